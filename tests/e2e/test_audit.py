"""The audit over a real gateway and a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.admin.control import DeliveryAnswer, DeliveryCall
from gateway.delivery.audit_entry import Entry
from gateway.delivery.queue import Queue
from gateway.delivery.recorder import Recorder
from gateway.delivery.trail import Wanted, of_transaction, page
from gateway.errors import ConfigError
from tests.store.servers import VALKEY, Server, serving, stopped
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.scripted import Peer, ScriptedUpstream, respond


def config(upstream: ScriptedUpstream, store: Server, extra: str = "") -> str:
    return f"""\
store: {{url: "{store.unix}", timeout: 500ms}}
upstreams:
  api: {{targets: ["{upstream.url}"]}}
routes:
  - name: read
    match: {{path: "/read/{{rest:path}}"}}
    upstream: api
    audit: true
  - name: quiet
    match: {{path: /quiet}}
    upstream: api
    audit: false
  - name: events
    match: {{path: /events, methods: [POST]}}
    upstream: api
    delivery: {{}}
{extra}"""


async def answer(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(respond(b"ok"))


async def hang_up(peer: Peer) -> None:
    await peer.request()
    peer.close()


def queue_of(gateway: RunningGateway) -> Queue:
    (_, dispatcher), *_ = gateway.runtime.known("delivery")
    queue: Queue = dispatcher.queue
    return queue


async def trail(queue: Queue, correlation_id: str, count: int) -> list[Entry]:
    """The entries of a transaction, once there are so many."""
    async with asyncio.timeout(10):
        while len(found := await of_transaction(queue, correlation_id)) < count:
            await asyncio.sleep(0.01)
    return found


async def test_one_transaction_over_both_kinds_of_routes(tmp_path: Path) -> None:
    """A call and an event with one correlation id are one trail; a quiet route leaves nothing."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client(headers={"X-Correlation-ID": "flow-7"}) as client,
    ):
        assert (await client.get("/read/a", headers={"Idempotency-Key": '"k"'})).text == "ok"
        assert (await client.get("/quiet")).text == "ok"
        accepted = (await client.post("/events", json={})).json()
        found = await trail(queue_of(gateway), "flow-7", 3)
    assert sorted(each.kind for each in found) == ["accepted", "attempt", "call"]
    call = next(each for each in found if each.kind == "call")
    assert (call.route, call.method, call.status, call.key) == ("read", "GET", 200, "k")
    assert call.ms > 0
    attempt = next(each for each in found if each.kind == "attempt")
    assert (attempt.event, attempt.verdict) == (accepted["event_id"], "delivered")


async def test_refused_calls_are_there_too(tmp_path: Path) -> None:
    """With the code of what went wrong."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(hang_up) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        failed = await client.get("/read/a", headers={"X-Correlation-ID": "flow-8"})
        (entry,) = await trail(queue_of(gateway), "flow-8", 1)
    assert failed.status_code == entry.status == 502
    assert entry.code == failed.json()["code"]


async def test_entries_wait_for_the_store(tmp_path: Path) -> None:
    """Calls go on without it, and are written once it is back."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        with stopped(store):
            assert (
                await client.get("/read/a", headers={"X-Correlation-ID": "flow-9"})
            ).status_code == 200
        found = await trail(queue_of(gateway), "flow-9", 1)
    # After a lost reply an entry is written again.
    assert {each.kind for each in found} == {"call"}


async def test_pages_of_the_audit(tmp_path: Path) -> None:
    """By time, route and kind, some at a time; each entry once."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        for number in range(5):
            await client.get(f"/read/{number}", headers={"X-Correlation-ID": f"p-{number}"})
            await trail(queue_of(gateway), f"p-{number}", 1)
        queue, seen, cursor = queue_of(gateway), [], ""
        while True:
            found = await page(queue, Wanted(route="read", kind="call"), cursor, count=2)
            seen += [each.correlation_id for each in found.entries]
            cursor = found.cursor
            if not cursor:
                break
        other = await page(queue, Wanted(route="events"))
        past = await page(queue, Wanted(until=1.0))
    assert seen == [f"p-{number}" for number in range(5)]
    assert other.entries == past.entries == []


async def test_an_audit_that_is_switched_off(tmp_path: Path) -> None:
    """A route that needs it is refused, and asynchronous ones write nothing."""
    async with serving(VALKEY, tmp_path / "store") as store, ScriptedUpstream(answer) as upstream:
        head = 'server: {listen: "127.0.0.1:0", admin: null}\ntelemetry: {audit: null}\n'
        text = head + config(upstream, store)
        with pytest.raises(ConfigError, match=r"telemetry\.audit is null"):
            async with run_gateway(tmp_path, text):
                pass
        text = text.replace("    audit: true\n", "")
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            done = await client.post("/events", json={}, headers={"Prefer": "wait=5"})
            assert done.json()["state"] == "delivered"
            assert await queue_of(gateway).store.call("EXISTS", queue_of(gateway).key("audit")) == 0


async def test_the_audit_is_held_to_its_number(tmp_path: Path) -> None:
    """The oldest entries go first."""
    async with serving(VALKEY, tmp_path / "store") as store, ScriptedUpstream(answer) as upstream:
        head = 'server: {listen: "127.0.0.1:0", admin: null}\ntelemetry: {audit: {max: 100}}\n'
        async with run_gateway(tmp_path, head + config(upstream, store)) as gateway:
            ((_, recorder),) = gateway.runtime.known("audit")
            ((_, dispatcher),) = gateway.runtime.known("delivery")
            for number in range(1000):
                recorder.record(Entry(float(number), "call", "read", "many"))
            await trail(queue_of(gateway), "many", 1000)
            await dispatcher._trim()
            left = await page(queue_of(gateway), Wanted())
    # Streams are trimmed by whole blocks.
    assert 100 <= len(left.entries) <= 250
    assert left.entries[-1].at == 999.0


async def test_the_audit_is_held_to_its_age(tmp_path: Path) -> None:
    """What is older than the retention goes, by the store's clock."""
    async with serving(VALKEY, tmp_path / "store") as store, ScriptedUpstream(answer) as upstream:
        head = 'server: {listen: "127.0.0.1:0", admin: null}\ntelemetry: {audit: {retention: 1h}}\n'
        async with run_gateway(tmp_path, head + config(upstream, store)) as gateway:
            ((_, dispatcher),) = gateway.runtime.known("delivery")
            queue = queue_of(gateway)
            now = int((await queue.store.call("TIME"))[0])
            for number in range(1000):
                old = f"{(now - 7200) * 1000 + number}-0"
                await queue.store.call("XADD", queue.key("audit"), old, "r", b"{}")
            await queue.note([(b"{}", "new")] * 10)
            await dispatcher._trim()
            # Streams are trimmed by whole blocks.
            assert 10 <= await queue.store.call("XLEN", queue.key("audit")) <= 150


async def test_a_full_buffer_drops_and_counts(tmp_path: Path) -> None:
    """Memory is bounded while the store is away."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
    ):
        ((_, recorder),) = gateway.runtime.known("audit")
        assert isinstance(recorder, Recorder)
        with stopped(store):
            for _ in range(10_050):
                recorder.record(Entry(0.0, "call", "read", "many"))
            assert gateway.metric("gateway_audit_dropped_total") == 50


async def test_operators_ask(tmp_path: Path) -> None:
    """A trace with its events, one event, the audit in pages; what can't be meant is refused."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client(headers={"X-Correlation-ID": "flow-10"}) as client,
    ):
        done = await client.post("/events", json={}, headers={"Prefer": "wait=5"})
        accepted = done.json()

        async def ask(name: str, **params: object) -> DeliveryAnswer:
            return await gateway.plane.delivery(DeliveryCall(name, params))

        found = (await ask("trace", correlation_id="flow-10")).data
        assert [each.kind for each in found.entries] == ["accepted", "attempt"]
        assert [each.event_id for each in found.events] == [accepted["event_id"]]
        event = (await ask("event", event_id=accepted["event_id"])).data
        assert [each["status"] for each in event.targets[0].history] == [200]
        first = (await ask("audit", count="1")).data
        second = (await ask("audit", count=1, cursor=first["cursor"])).data
        kinds = [each.kind for each in first["entries"] + second["entries"]]
        assert kinds == ["accepted", "attempt"]
        refused = [
            await ask("trace", correlation_id="nobody"),
            await ask("trace", correlation_id="x" * 1000),
            await ask("event", event_id="nothing"),
            await ask("audit", count=0),
            await ask("audit", cursor="1 COUNT 5"),
            await ask("audit", who="me"),
        ]
    states = [each.state for each in refused]
    assert states == ["missing", "invalid", "missing", "invalid", "invalid", "invalid"]
