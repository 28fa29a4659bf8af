"""Streams of another server, read into asynchronous routes and appended to, over real servers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.config.issues import ConfigErrors
from gateway.delivery.streams.shape import Shape
from gateway.store.base import ReplyError, Store
from tests.run.gateway_process import gateway as gateway_process
from tests.run.gateway_process import until
from tests.store.servers import BINARIES, VALKEY, Server, opened, serving, stopped
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import Peer, Received, ScriptedUpstream, respond

KEPT = ("--appendonly", "yes", "--appendfsync", "always")


class Recorder:
    """An upstream that takes everything and remembers it."""

    def __init__(self) -> None:
        self.requests: list[Received] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.requests.append(await peer.request())
            await peer.send(respond(b""))

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.requests]


@dataclass
class World:
    """The gateway's own store, the server of the stream with a client of its own, an upstream."""

    store: Server
    bus: Server
    client: Store
    recorder: Recorder
    upstream: ScriptedUpstream
    folder: Path

    def config(self, options: str = "", route: str = "", target: str = "") -> str:
        return f"""\
store: {{url: "{self.store.unix}", timeout: 5s}}
upstreams:
  api: {{targets: ["{self.upstream.url}"], timeout: 5s}}
routes:
  - name: orders.events
    match: {{path: "/events", methods: [POST, PUT]}}
    {route}
    delivery: {{backoff: {{base: 10ms}}, to: [{target or "api"}]}}
streams:
  erp-changes:
    {{url: "{self.bus.unix}", stream: erp.changes, route: orders.events,
     claim_after: 1s, {options}}}
"""

    async def add(self, *fields: str | bytes) -> bytes:
        entry: bytes = await self.client.call("XADD", "erp.changes", "*", *fields)
        return entry

    async def pending(self) -> int:
        reply = await self.client.call("XPENDING", "erp.changes", "lockgate")
        return int(reply[0])

    async def confirmed(self) -> None:
        async with asyncio.timeout(20):
            while await self.pending():
                await asyncio.sleep(0.01)

    async def has_group(self) -> None:
        """Wait until the gateway has made its group."""
        async with asyncio.timeout(20):
            while not await self.groups():
                await asyncio.sleep(0.01)

    async def groups(self) -> list[Any]:
        try:
            found: list[Any] = await self.client.call("XINFO", "GROUPS", "erp.changes")
        except ReplyError:
            return []
        return found


@asynccontextmanager
async def world(folder: Path, binary: str = VALKEY) -> AsyncIterator[World]:
    recorder = Recorder()
    async with (
        serving(VALKEY, folder / "store", *KEPT) as store,
        serving(binary, folder / "bus", *KEPT) as bus,
        opened(bus.unix, folder) as client,
        ScriptedUpstream(recorder) as upstream,
    ):
        yield World(store, bus, client, recorder, upstream, folder)


def entries(gateway: RunningGateway, result: str) -> float:
    return gateway.metric("gateway_stream_entries_total", stream="erp-changes", result=result)


@pytest.mark.parametrize("binary", BINARIES)
async def test_an_entry_becomes_an_event(tmp_path: Path, binary: str) -> None:
    """All fields as JSON, with an origin; it is confirmed, and its target is told its place."""
    async with world(tmp_path, binary) as at:
        async with run_gateway(tmp_path, at.config()) as gateway:
            await at.has_group()
            entry = await at.add("order_id", "7", "state", "paid")
            await eventually(lambda: len(at.recorder.requests) == 1)
            await at.confirmed()

            (request,) = at.recorder.requests
            assert json.loads(request.body) == {"order_id": "7", "state": "paid"}
            assert (request.method, request.target) == ("POST", "/events")
            assert request.get("x-lockgate-stream") == "erp-changes"
            assert request.get("x-lockgate-entry") == entry.decode()
            assert request.get("idempotency-key") == f'"stream:erp-changes:{entry.decode()}"'
            assert request.get("x-correlation-id")
            async with gateway.client() as client:
                event_id = request.get("x-lockgate-event")
                status = (await client.get(f"/events/{event_id}")).json()
            assert status["origin"] == "stream:erp-changes"
            assert entries(gateway, "accepted") == 1
            assert gateway.metric("gateway_stream_up", stream="erp-changes") == 1


async def test_where_a_group_begins(tmp_path: Path) -> None:
    """At new entries, or at the beginning."""
    async with world(tmp_path) as at:
        await at.add("n", "1")
        async with run_gateway(tmp_path, at.config()):
            await at.has_group()
            await at.add("n", "2")
            await eventually(lambda: len(at.recorder.requests) == 1)
        assert json.loads(at.recorder.bodies[0]) == {"n": "2"}

        async with run_gateway(tmp_path, at.config("group: other, from: beginning")):
            await eventually(lambda: len(at.recorder.requests) >= 2)
            await at.add("n", "3")
            await eventually(lambda: len(at.recorder.requests) == 3)
        # The second entry is a repetition: the same stream, the same id.
        assert [json.loads(body)["n"] for body in at.recorder.bodies] == ["2", "1", "3"]


async def test_what_the_body_is(tmp_path: Path) -> None:
    """A field as it stands, bytes and all; or a template over the entry, with header fields."""
    async with world(tmp_path) as at:
        field = "field: payload, content_type: application/octet-stream, request: {method: PUT}"
        async with run_gateway(tmp_path, at.config(field)):
            await at.has_group()
            await at.add("payload", b"\xff\x00\r\n", "x", "y")
            await eventually(lambda: len(at.recorder.requests) == 1)
        (request,) = at.recorder.requests
        assert (request.method, request.body) == ("PUT", b"\xff\x00\r\n")
        assert request.get("content-type") == "application/octet-stream"

        template = (
            'body: {id: "=entry.fields.id", at: "=entry.id", of: "=entry.stream", by: erp}, '
            'request: {headers: {X-Type: "=entry.fields.type", X-Fixed: "1"}}'
        )
        async with run_gateway(tmp_path, at.config(template)):
            entry = await at.add("id", "7", "type", "order.paid")
            await eventually(lambda: len(at.recorder.requests) == 2)
        request = at.recorder.requests[1]
        assert json.loads(request.body) == {
            "id": "7", "at": entry.decode(), "of": "erp.changes", "by": "erp",
        }  # fmt: skip
        assert (request.get("x-type"), request.get("x-fixed")) == ("order.paid", "1")


VALIDATED = "validate: {request: {body: {type: object, required: [id]}}}"


async def test_entries_that_can_not_be_used(tmp_path: Path) -> None:
    """They are dead letters that say why; the entries behind them are delivered."""
    async with world(tmp_path) as at:
        async with run_gateway(tmp_path, at.config("field: payload", VALIDATED)) as gateway:
            await at.has_group()
            await at.add("payload", "no json")
            await at.add("payload", '{"no": "id"}')
            await at.add("other", b"\xff")
            await at.add("payload", '{"id": 1}')
            await eventually(lambda: len(at.recorder.requests) == 1)
            await eventually(lambda: entries(gateway, "invalid") == 3)
            await at.confirmed()

        assert at.recorder.bodies == [b'{"id": 1}']
        async with opened(at.store.unix, tmp_path) as store:
            letters = await store.call("ZRANGE", "lockgate:{delivery}:dead:orders.events", 0, -1)
            kept = []
            for each in letters:
                event_id = each.decode().split(" ")[0]
                assert each.decode().split(" ")[2] == "invalid"
                kept.append(
                    await store.call("HGET", f"lockgate:{{delivery}}:event:{event_id}", "body")
                )
        assert sorted(kept) == sorted(
            [b"no json", b'{"no": "id"}', b'[["other",{"base64":"/w=="}]]']
        )


async def test_a_fault_of_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that meets one becomes a dead letter, and does not stand before others."""
    fill = Shape.fill

    def faulty(shape: Shape, entry_id: bytes, fields: Any, now: float) -> Any:
        if (b"n", b"2") in fields:
            raise RuntimeError("a fault")
        return fill(shape, entry_id, fields, now)

    monkeypatch.setattr(Shape, "fill", faulty)
    async with world(tmp_path) as at, run_gateway(tmp_path, at.config()) as gateway:
        await at.has_group()
        for number in range(5):
            await at.add("n", str(number))
        await eventually(lambda: len(at.recorder.requests) == 4)
        await at.confirmed()
        await eventually(lambda: entries(gateway, "invalid") == 1)


async def test_many_entries_over_two_gateways(tmp_path: Path) -> None:
    """Each becomes one event, whoever reads it."""
    async with world(tmp_path) as at:
        text = at.config("batch: 10, from: beginning")
        for number in range(100):
            await at.add("n", str(number))
        (tmp_path / "b").mkdir()
        async with run_gateway(tmp_path, text) as a, run_gateway(tmp_path / "b", text) as b:
            await eventually(lambda: len(at.recorder.requests) >= 100)
            await at.confirmed()
            assert entries(a, "accepted") + entries(b, "accepted") == 100
        numbers = sorted(int(json.loads(body)["n"]) for body in at.recorder.bodies)
        assert numbers == list(range(100))


async def test_order_over_two_gateways(tmp_path: Path) -> None:
    """On a route with an order one gateway reads at a time, and the other one takes over."""
    async with world(tmp_path) as at:
        text = at.config("batch: 5").replace("to: [api]", "to: [api], ordered_by: body.key")
        (tmp_path / "b").mkdir()
        async with run_gateway(tmp_path / "b", text) as b:
            async with run_gateway(tmp_path, text) as a:
                await at.has_group()
                for number in range(40):
                    await at.add("key", "k", "n", str(number))
                await eventually(lambda: len(at.recorder.requests) >= 40)
                assert sorted([entries(a, "accepted"), entries(b, "accepted")]) == [0, 40]
            for number in range(40, 60):
                await at.add("key", "k", "n", str(number))
            await eventually(lambda: len(at.recorder.requests) == 60)
        numbers = [int(json.loads(body)["n"]) for body in at.recorder.bodies]
        assert numbers == list(range(60))


async def test_killed_between_keeping_and_confirming(tmp_path: Path) -> None:
    """Another gateway is handed the entries, and tells that they were kept: each is one event."""
    async with world(tmp_path) as at:
        for number in range(20):
            await at.add("n", str(number))
        text = at.config("from: beginning")
        # The server of the stream takes no confirmation: what follows is as if it never came.
        await at.client.call("ACL", "SETUSER", "default", "-xack")
        file = tmp_path / "killed.yaml"
        head = 'version: 1\nserver: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        file.write_text(head + text)
        async with gateway_process(file) as process:
            await until(lambda: len(at.recorder.requests) >= 20)
            process.signal(signal.SIGKILL)
            await process.exit_code()
        assert await at.pending() == 20
        await at.client.call("ACL", "SETUSER", "default", "+xack")
        async with run_gateway(tmp_path, text) as gateway:
            await at.confirmed()
            await eventually(lambda: entries(gateway, "duplicate") == 20)
        assert len(at.recorder.requests) == 20


async def test_the_own_store_is_away(tmp_path: Path) -> None:
    """Nothing more is read, nothing is confirmed, and nothing is lost."""
    async with world(tmp_path) as at:
        async with run_gateway(tmp_path, at.config("batch: 5")) as gateway:
            await at.has_group()
            with stopped(at.store):
                for number in range(30):
                    await at.add("n", str(number))
                async with asyncio.timeout(20):
                    while not await at.pending():
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                assert 1 <= await at.pending() <= 5
            await eventually(lambda: len(at.recorder.requests) >= 30)
            await at.confirmed()
            assert entries(gateway, "accepted") + entries(gateway, "duplicate") >= 30
        assert len({each.get("x-lockgate-entry") for each in at.recorder.requests}) == 30
        assert len(at.recorder.requests) == 30


async def test_the_server_of_the_stream_is_restarted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and reading goes on; also if the stream was lost and began anew."""
    async with world(tmp_path) as at:
        async with run_gateway(tmp_path, at.config()) as gateway:
            await at.has_group()
            await at.add("n", "1")
            await eventually(lambda: len(at.recorder.requests) == 1)
            at.bus.kill()
            up = lambda: gateway.metric("gateway_stream_up", stream="erp-changes")  # noqa: E731
            await eventually(lambda: up() == 0)
            at.bus.start()
            await at.bus.ready()
            async with opened(at.bus.unix, tmp_path) as at.client:
                await at.add("n", "2")
                await eventually(lambda: len(at.recorder.requests) == 2)
                await at.client.call("DEL", "erp.changes")
                await at.add("n", "3")
                await eventually(lambda: len(at.recorder.requests) == 3)
                assert up() == 1
        assert sum("a stream can't be read" in record.message for record in caplog.records) <= 2


async def test_a_changed_stream_is_followed(tmp_path: Path) -> None:
    """After a reload the new configuration counts; without the stream nothing is read."""
    async with world(tmp_path) as at:
        async with run_gateway(tmp_path, at.config()) as gateway:
            await at.has_group()
            await gateway.reload(at.config("field: payload"))
            await at.add("payload", "{}")
            await eventually(lambda: b"{}" in at.recorder.bodies)
            await gateway.reload(at.config("enabled: false"))
            await eventually(lambda: not gateway.runtime.known("streams"))
            entry = await at.add("payload", "late")
            assert await at.pending() == 0
            await gateway.reload(at.config("field: payload"))
            await eventually(lambda: b"late" in at.recorder.bodies)
            assert at.recorder.requests[-1].get("x-lockgate-entry") == entry.decode()


async def test_a_stream_as_a_target(tmp_path: Path) -> None:
    """The event is appended with its ids, its body, and the fields that were chosen."""
    async with world(tmp_path) as at:
        target = (
            f'{{name: log, stream: {{url: "{at.bus.unix}", stream: "log:a", maxlen: 1000, '
            "headers: [X-Kind]}}, api"
        )
        text = at.config(target=target).partition("\nstreams:")[0]
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            answer = await client.post("/events", content=b"\xff\x00", headers={"X-Kind": "k"})
            assert answer.json()["targets"] == {"log": "queued", "api": "queued"}
            await eventually(lambda: len(at.recorder.requests) == 1)
            await eventually(lambda: delivered(gateway, "log") == 1)
            ((_, fields),) = await at.client.call("XRANGE", "log:a", "-", "+")
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        assert found[b"event_id"].decode() == answer.json()["event_id"]
        assert found[b"correlation_id"].decode() == answer.headers["x-correlation-id"]
        assert found[b"idempotency_key"] == found[b"event_id"]
        assert (found[b"body"], found[b"x-kind"]) == (b"\xff\x00", b"k")
        assert (found[b"route"], found[b"attempt"]) == (b"orders.events", b"1")


def delivered(gateway: RunningGateway, target: str) -> float:
    return gateway.metric("gateway_delivery_attempts_total", target=target, result="delivered")


async def test_the_server_of_a_target_is_away(tmp_path: Path) -> None:
    """Its events wait without spending attempts; what it refuses is a dead letter."""
    async with world(tmp_path) as at:
        target = f'{{stream: {{url: "{at.bus.unix}", stream: log}}, body: {{n: "=body.n"}}}}'
        text = at.config(target=target).partition("\nstreams:")[0]
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            at.bus.kill()
            for number in range(5):
                await client.post("/events", json={"n": number})
            attempts = "gateway_delivery_attempts_total"
            await eventually(lambda: gateway.metric(attempts, target="log", result="paused") > 0)
            at.bus.start()
            await at.bus.ready()
            await eventually(lambda: delivered(gateway, "log") == 5)
            async with opened(at.bus.unix, tmp_path) as bus:
                found = await bus.call("XRANGE", "log", "-", "+")
                bodies = {dict(zip(f[::2], f[1::2], strict=True))[b"body"] for _, f in found}
                assert bodies == {b'{"n":%d}' % number for number in range(5)}
                await bus.call("DEL", "log")
                await bus.call("SET", "log", "no stream")
            await client.post("/events", json={"n": 9})
            dead = "gateway_delivery_dead_letters_total"
            await eventually(lambda: gateway.metric(dead, target="log", reason="permanent") == 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("body: {a: '=entry.('}", "streams.erp-changes.body: not a CEL expression"),
        ("body: {a: '=request.path'}", 'unknown name "request"'),
        ("field: a, body: {}", "field and body can't both be given"),
        ("request: {headers: {X-A: '=('}}", "streams.erp-changes.request.headers: not a CEL"),
        ("request: {method: DELETE}", "the route orders.events takes POST, PUT"),
    ],
)
async def test_what_can_not_be_read(tmp_path: Path, options: str, complaint: str) -> None:
    """Is refused when the configuration is loaded, at its place."""
    at = World(
        Server(VALKEY, tmp_path / "s"), Server(VALKEY, tmp_path / "b"),
        None, Recorder(), ScriptedUpstream(Recorder()), tmp_path,  # type: ignore[arg-type]
    )  # fmt: skip
    async with at.upstream:
        with pytest.raises(ConfigErrors) as caught:
            async with run_gateway(tmp_path, at.config(options)):
                pass
    assert complaint in str(caught.value)
