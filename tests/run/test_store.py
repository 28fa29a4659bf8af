"""The embedded store under a whole gateway: with workers, reloads, and every way to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.run.gateway_process import HUP, KILL, TERM, WAIT_S, GatewayProcess, gateway, until
from tests.run.test_workers import all_serve, workers
from tests.store.servers import is_alive

PLUGIN = '''
"""Counts in the store."""
from gateway.plugin import BuildContext, Exchange, Guard, PolicyConfig, Script, StoreError

ADD = Script.of(b"return redis.call('INCR', KEYS[1])", "add")


class CountConfig(PolicyConfig):
    """Nothing."""


class Count(Guard):
    """A number for each request, the same for all workers."""

    name = "count"
    Config = CountConfig

    def __init__(self, store):
        self.store = store

    @classmethod
    def build(cls, config, context: BuildContext):
        store = context.store()
        store.require_durability()
        return cls(store)

    async def check(self, exchange: Exchange):
        try:
            number = await self.store.run(ADD, (self.store.key_prefix + b":{n}",), ())
        except StoreError:
            number = -1
        exchange.reply_headers.append((b"x-count", b"%d" % number))
'''


def write(folder: Path, count: int = 1, store: str = "", plugin: bool = True) -> Path:
    (folder / "count.py").write_text(PLUGIN)
    uses = "plugins: [{use: count, with: {}}]" if plugin else ""
    path = folder / "gateway.yaml"
    path.write_text(f"""\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0", workers: {count}, timeouts: {{drain: 2s}}}}
telemetry: {{access_log: null}}
plugins: [count.py]
store: {{data: data, {store or "timeout: 500ms"}}}
routes:
  - name: hello
    match: {{path: /hello}}
    respond: {{status: 200}}
    {uses}
""")
    return path


async def get(running: GatewayProcess, path: str = "/hello") -> httpx.Response:
    base = running.admin if path != "/hello" else running.url
    async with httpx.AsyncClient() as client:
        return await client.get(base + path, timeout=WAIT_S)


async def count(running: GatewayProcess) -> int:
    return int((await get(running)).headers["x-count"])


async def views(running: GatewayProcess) -> list[dict[str, Any]]:
    return list((await get(running, "/api/v1/store")).json()["store"])


def engine_pid(folder: Path) -> int:
    return int((folder / "data" / "lock").read_text().split()[1])


async def test_workers_share_one_engine(tmp_path: Path) -> None:
    """One engine for all workers; it outlives a worker and a reload, and ends with the gateway."""
    async with gateway(write(tmp_path, 2), "--no-watch") as running:
        assert [await count(running) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        pid = engine_pid(tmp_path)
        found = await views(running)
        assert len({view["worker"] for view in found}) == 2
        assert {view["state"] for view in found} == {"up"}

        async def told() -> bool:
            return "[+]store ok" in (await get(running, "/readyz?verbose")).text

        await until(told)
        assert "gateway_store_up 1" in (await get(running, "/metrics")).text

        os.kill((await workers(running))[0]["pid"], KILL)
        await running.line("starting another")
        await until(lambda: all_serve(running))
        assert {await count(running) for _ in range(6)} == set(range(7, 13))

        write(tmp_path, 2, "timeout: 400ms")
        running.signal(HUP)
        await running.line("reloaded")
        assert await count(running) == 13
        assert engine_pid(tmp_path) == pid

        os.kill(pid, KILL)
        await running.line("the embedded store ended")

        async def counts() -> bool:
            return await count(running) > 13

        await until(counts)
        pid = engine_pid(tmp_path)
        assert is_alive(pid)
        running.signal(TERM)
        assert await running.exit_code() == 0
        assert not is_alive(pid)


async def test_killed_supervisor_takes_the_engine_along(tmp_path: Path) -> None:
    """After KILL of the supervising process nothing is left, and the next start has the data."""
    async with gateway(write(tmp_path, 2)) as running:
        assert await count(running) == 1
        pid = engine_pid(tmp_path)
        running.signal(KILL)
        await running.exit_code()

    async with gateway(write(tmp_path)) as running:
        assert await count(running) == 2
        assert not is_alive(pid)


async def test_an_engine_that_nothing_needs_any_more(tmp_path: Path) -> None:
    """It is not started without need, and stopped when a reload takes the need away."""
    async with gateway(write(tmp_path, plugin=False), "--no-watch") as running:
        assert not (tmp_path / "data").exists()
        assert await views(running) == []
        assert "store" not in (await get(running, "/readyz?verbose")).text
        assert "\ngateway_store_up " not in (await get(running, "/metrics")).text

        write(tmp_path)
        running.signal(HUP)
        await running.line("reloaded")
        assert await count(running) == 1
        pid = engine_pid(tmp_path)

        after = len(running.lines)
        write(tmp_path, plugin=False)
        running.signal(HUP)
        await running.line("reloaded", after)

        async def ended() -> bool:
            return not is_alive(pid)

        await until(ended)


async def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """The gateway starts without its store, stays ready, and says what is wrong."""
    config = write(tmp_path, store="url: 'redis://127.0.0.1:1'")
    async with gateway(config) as running:
        assert await count(running) == -1
        answer = await get(running, "/readyz?verbose")
        assert answer.status_code == 200
        assert "[-]store" in answer.text
        assert "can't be reached" in answer.text
        assert "gateway_store_up 0" in (await get(running, "/metrics")).text


async def test_second_gateway_on_one_directory(tmp_path: Path) -> None:
    """It is told who has the directory; looking at the configuration is no use of it."""
    config = write(tmp_path)
    async with gateway(config) as running:
        async with gateway(config, wait=False) as other:
            assert await other.exit_code() == 78
            text = " ".join(line["message"] for line in other.lines)
            assert f"is used by another gateway (process {running.process.pid})" in text
            assert "store.data" in text
        checked = subprocess.run(
            [sys.executable, "-m", "gateway", "check", str(config)], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stderr
        assert await count(running) == 1


async def test_a_store_that_could_never_be(tmp_path: Path) -> None:
    """What is wrong with the store is told at the store, not at the route that asks for it."""
    config = write(tmp_path, store="url: 'rediss://h?ca=none.pem'")
    checked = subprocess.run(
        [sys.executable, "-m", "gateway", "check", str(config)], capture_output=True, text=True
    )
    assert checked.returncode == 78
    assert "gateway.yaml:5:" in checked.stdout + checked.stderr
    assert "store.url: " in checked.stdout + checked.stderr
    assert "No such file" in checked.stdout + checked.stderr
