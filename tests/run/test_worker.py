"""`lockgate worker`: deliveries in processes of their own, from start to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import httpx

from tests.run.gateway_process import HUP, TERM, WAIT_S, GatewayProcess, gateway, until
from tests.run.test_workers import all_serve
from tests.store.servers import VALKEY, Server, serving
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def write(
    folder: Path, store: str, upstream: str = "http://127.0.0.1:1", *, drain: str = "10s"
) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(f"""\
version: 1
server:
  listen: 127.0.0.1:0
  admin: 127.0.0.1:0
  deliver: false
  tls: null
  timeouts: {{drain: {drain}}}
telemetry: {{access_log: null}}
store: {{url: "{store}"}}
upstreams:
  sink: {{targets: ["{upstream}"]}}
routes:
  - name: events
    match: {{path: /events}}
    upstream: sink
    delivery: {{lease: 30s}}
""")
    return path


async def post(running: GatewayProcess, number: int) -> str:
    async with httpx.AsyncClient() as client:
        found = await client.post(f"{running.url}/events", json={"n": number}, timeout=WAIT_S)
    assert found.status_code == 202, found.text
    return str(found.json()["event_id"])


async def ask(running: GatewayProcess, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(running.admin + path, timeout=WAIT_S)


def is_ready(running: GatewayProcess) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await ask(running, "/readyz")).status_code == 200

    return look


def counted(running: GatewayProcess, deliveries: int) -> Callable[[], Awaitable[bool]]:
    labels = 'result="delivered",route="events",target="sink"'

    async def look() -> bool:
        text = (await ask(running, "/metrics")).text
        return f"gateway_delivery_attempts_total{{{labels}}} {deliveries}.0\n" in text

    return look


class Held:
    """Answers 200, and holds the answer to events of these numbers back until it is released."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if json.loads(request.body)["n"] in self.numbers:
                self.arrived.set()
                await self.release.wait()
            await peer.send(OK)


def numbers(upstream: ScriptedUpstream) -> list[int]:
    return sorted(json.loads(each.body)["n"] for each in upstream.requests if each.body)


async def test_workers_deliver_what_a_gateway_accepts(tmp_path: Path) -> None:
    """The gateway keeps, two processes deliver; they reload, and end what is under way."""
    held = Held(3)
    async with serving(VALKEY, tmp_path / "store", *DURABLE) as store, ScriptedUpstream(held) as up:
        config = write(tmp_path, store.url, up.url)
        two = {"GATEWAY_WORKERS": "2"}
        options = ("--no-watch", "--admin", "127.0.0.1:0")
        async with (
            gateway(config, "--no-watch") as keeper,
            gateway(config, *options, command="worker", environ=two) as worker,
        ):
            assert worker.url == ""
            await until(is_ready(worker))
            await post(keeper, 1)
            await until(lambda: numbers(up) == [1])

            # What is fixed for a gateway is nothing to a worker.
            config.write_text(
                config.read_text().replace("listen: 127.0.0.1:0", "listen: 127.0.0.1:1")
            )
            worker.signal(HUP)
            await worker.line("reloaded")
            await until(lambda: all_serve(worker))
            await post(keeper, 2)
            await until(lambda: numbers(up) == [1, 2])
            await until(counted(worker, 2))

            await post(keeper, 3)
            await held.arrived.wait()
            worker.signal(TERM)
            await worker.line("draining")
            assert (await ask(worker, "/readyz")).status_code == 503
            last = await post(keeper, 4)
            held.release.set()
            assert await worker.exit_code() == 0
            assert numbers(up) == [1, 2, 3]
            async with httpx.AsyncClient() as client:
                found = await client.get(f"{keeper.url}/events/{last}", timeout=WAIT_S)
            assert found.json()["state"] == "accepted"


async def test_an_embedded_store_is_refused(tmp_path: Path) -> None:
    """It belongs to one gateway; the message says what to do instead, and where it stands."""
    config = write(tmp_path, "embedded")
    async with gateway(config, command="worker", wait=False) as running:
        assert await running.exit_code() == 78
    text = " ".join(line["message"] for line in running.lines)
    assert "gateway.yaml:9:14:" in text
    assert "store.url: a worker takes events from the store" in text
    assert "such as redis://host:6379" in text


async def test_without_its_store(tmp_path: Path) -> None:
    """Ready is only a worker that has its store; a stop does not wait for one that is gone, and
    what was under way then is delivered again.
    """
    held = Held(1)
    server = Server(VALKEY, tmp_path / "store", *DURABLE)
    async with ScriptedUpstream(held, answer(OK)) as up:
        config = write(tmp_path, server.url, up.url, drain="300ms")
        try:
            async with gateway(config, "--no-watch", command="worker") as worker:
                answered = await ask(worker, "/readyz?verbose")
                assert answered.status_code == 503
                assert "[-]deliveries" in answered.text
                server.start()
                await until(is_ready(worker))
                async with gateway(config, "--no-watch") as keeper:
                    await post(keeper, 1)
                await held.arrived.wait()

                server.kill()
                worker.signal(TERM)
                began = monotonic()
                assert await worker.exit_code() == 0
                assert monotonic() - began < 8.0

            server.start()
            await server.ready()
            text = config.read_text().replace("lease: 30s", "lease: 1s")
            config.write_text(text)
            async with gateway(config, "--no-watch", command="worker"):
                await until(lambda: numbers(up) == [1, 1])
                keys = {each.get("idempotency-key") for each in up.requests}
                assert len(keys) == 1
        finally:
            server.kill()
