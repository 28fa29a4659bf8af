"""Nothing stops all requests at once: no cycles to collect, no growth, no large release."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.pauses import let_go

ROOT = Path(__file__).resolve().parent.parent
# In processes of their own, because the collector is one for the whole process.
START = """
import asyncio, gc, json, socket, sys, uvloop
from pathlib import Path
from gateway import pauses
pauses.prepare_process()
from gateway.runtime import Runtime, load_configuration
from gateway.server.local import LocalPlane

FILE = Path(sys.argv[1])
ROUTES = 40

def write(extra):
    routes = [
        {"name": f"r{n}", "match": {"path": f"/r{n}/{{id}}"}, "upstream": "none", "timeout": "5s"}
        for n in range(ROUTES)
    ]
    routes.append({"name": "own", "match": {"path": "/own"}, "respond": {"body": extra}})
    FILE.write_text(json.dumps({
        "version": 1,
        "server": {"listen": "127.0.0.1:0"},
        "telemetry": {"access_log": {"to": "/dev/null"}},
        "upstreams": {"none": {"targets": ["http://127.0.0.1:9"]}},
        "routes": routes,
    }))
    return load_configuration(FILE, {})

async def ask(address, line, leave=False):
    # A bare socket: asyncio's streams leave cycles of their own.
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, line + b"\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
        while not leave and await loop.sock_recv(sock, 65536):
            pass

def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

async def served():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    plane = LocalPlane(Runtime(), [sock])
    await plane.apply(write("first"))
    return plane, sock.getsockname()
"""
RELOADS = """
async def main():
    # As with thousands of routes, where nothing is ever collected.
    pauses._FEW_ROUTES = 0
    plane, address = await served()
    kept = []
    for turn in range(50):
        await ask(address, b"GET /own HTTP/1.1")
        await plane.apply(write(f"text {turn}"))
        while plane.runtime._retiring:
            await asyncio.sleep(0)
        kept.append((gc.get_freeze_count(), sys.getallocatedblocks()))
    print(json.dumps({
        "kept": kept, "enabled": gc.isenabled(), "generation": plane.runtime.generation,
    }))
    await plane.aclose()
run(main)
"""
EXCHANGES = """
async def main():
    plane, address = await served()
    lines = {
        "answered": b"GET /own HTTP/1.1", "failed": b"GET /r1/x HTTP/1.1",
        "unknown": b"GET /x HTTP/1.1", "malformed": b"rubbish",
    }
    found = {}
    for name, line in [*lines.items(), ("left", lines["failed"])]:
        for many in (5, 40):
            for _ in range(many):
                await ask(address, line, leave=name == "left")
            while plane.runtime.snapshot.active:
                await asyncio.sleep(0.01)
            found[name] = gc.collect()
            gc.disable()
    print(json.dumps(found))
    await plane.aclose()
run(main)
"""


def run(script: str, file: Path) -> Any:
    told = subprocess.run(
        [sys.executable, "-c", START + script, str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_memory_does_not_grow_over_fifty_reloads(tmp_path: Path) -> None:
    """What a reload replaces goes with its last reference, though nothing is ever collected."""
    told = run(RELOADS, tmp_path / "gateway.yaml")
    (objects, blocks), (objects_after, blocks_after) = told["kept"][4], told["kept"][-1]
    assert told["generation"] == 51
    assert told["enabled"]
    # A snapshot that stayed would be thousands of objects, 45 times.
    assert abs(objects_after - objects) < 1000
    assert abs(blocks_after - blocks) < 5000


def test_exchanges_and_connections_leave_no_cycles(tmp_path: Path) -> None:
    """Forty requests of each kind leave less than one object each for the collector."""
    left = run(EXCHANGES, tmp_path / "gateway.yaml")
    assert max(left.values()) < 40, left


async def test_letting_go_gives_others_their_turn() -> None:
    """While many objects are dropped, the event loop goes round."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    parts: list[object] = [object() for _ in range(2000)]
    await let_go(parts)
    task.cancel()
    assert not parts
    assert turns >= 5
