"""Accepting and delivering while stores, gateways and configurations come and go."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.delivery.event import decode_record
from gateway.delivery.queued import Lane
from tests.e2e.deliveries import (
    clean,
    config,
    queue_of,
    rows,
    send,
    settled,
    store_in,
    until_state,
)
from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import stopped
from tests.support.gateway import RunningGateway, eventually, run_gateway, within
from tests.support.inbox import Inbox, status
from tests.support.scripted import ScriptedUpstream

ONLY_ACCEPTS = "server: {listen: '127.0.0.1:0', admin: null, deliver: false}\n"
AOF = ("--appendonly", "yes", "--appendfsync", "always")


async def accepted(client: httpx.AsyncClient) -> str | None:
    """The id of an event, or None if it was refused as it should be."""
    got = await client.post("/hooks", json={})
    if got.status_code == 202:
        return str(got.json()["event_id"])
    assert got.status_code == 503, got.text
    assert got.json()["code"] == "store_unavailable"
    assert int(got.headers["retry-after"]) > 0
    return None


async def all_delivered(inbox: Inbox, events: list[str]) -> None:
    async with asyncio.timeout(20):
        while not set(events) <= set(inbox.field("x-lockgate-event")):
            await asyncio.sleep(0.01)


def is_busy(gateway: RunningGateway) -> bool:
    return rows(gateway, "in_flight") == 1


async def until_accepted(client: httpx.AsyncClient) -> str:
    async with asyncio.timeout(20):
        while (event := await accepted(client)) is None:
            await asyncio.sleep(0.05)
    return event


async def test_the_store_is_gone_for_a_while(tmp_path: Path) -> None:
    """503 while it is gone, never a false 202; what was accepted before is delivered after."""
    inbox = Inbox()
    async with (
        store_in(tmp_path, *AOF) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{lease: 1s}")) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        events = [(await send(client))["event_id"] for _ in range(5)]
        await inbox.until(5)
        store.kill()
        assert await accepted(client) is None
        assert (await client.get(f"/hooks/{events[0]}")).status_code == 503
        inbox.go.set()
        await eventually(lambda: inbox.answered == 5)
        store.start()
        await store.ready()
        events.append(await until_accepted(client))
        for event in events:
            assert (await settled(client, event))["state"] == "delivered"
        # What was done before it came back was not done again.
        assert len(inbox.got) == 6
        await gateway.quiet()
        await clean(store)


async def test_the_store_stalls(tmp_path: Path) -> None:
    """What it was asked to keep may be kept, but nobody was told so; the rest is not lost."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{lease: 1s}")) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        first = (await send(client))["event_id"]
        await inbox.until(1)
        with stopped(store):
            inbox.go.set()
            assert await accepted(client) is None
        events = [first, await until_accepted(client)]
        for event in events:
            assert (await settled(client, event))["state"] == "delivered"
        await all_delivered(inbox, events)
        assert inbox.field("x-lockgate-event").count(first) <= 2
        await gateway.quiet()


async def test_the_store_is_full(tmp_path: Path) -> None:
    """507, nothing half-written; what is there is delivered, which makes room."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{concurrency: 1}")) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        inbox.go.clear()
        events = [(await send(client))["event_id"] for _ in range(3)]
        await inbox.until(1)
        before = set(await queue.store.call("KEYS", "*"))
        await queue.store.call("CONFIG", "SET", "maxmemory", 1)
        got = await client.post("/hooks", json={})
        assert (got.status_code, got.json()["code"]) == (507, "store_full")
        assert "retry-after" in got.headers
        assert rows(gateway, "accepted_total", result="store_full") == 1
        assert set(await queue.store.call("KEYS", "*")) == before
        inbox.go.set()
        for event in events:
            assert (await settled(client, event))["state"] == "delivered"
        await queue.store.call("CONFIG", "SET", "maxmemory", 0)
        await send(client)


async def test_the_store_is_emptied(tmp_path: Path) -> None:
    """What it lost is lost, and the gateway goes on with what comes then."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        inbox.go.clear()
        gone = (await send(client))["event_id"]
        await inbox.until(1)
        await queue.store.call("FLUSHALL")
        inbox.go.set()
        await eventually(lambda: rows(gateway, "attempts_total", result="stale") == 1)
        assert (await client.get(f"/hooks/{gone}")).status_code == 404
        event = (await send(client))["event_id"]
        assert (await settled(client, event))["state"] == "delivered"


async def test_reload_in_the_middle(tmp_path: Path) -> None:
    """What is under way ends as it began; what comes then is delivered as the new one says."""
    inbox, other = Inbox(), Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        ScriptedUpstream(other) as elsewhere,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        first = (await send(client))["event_id"]
        await inbox.until(1)
        await gateway.reload(
            config(upstream, store, "{concurrency: 3}").replace(upstream.url, elsewhere.url)
        )
        second = (await send(client))["event_id"]
        assert (await settled(client, second))["state"] == "delivered"
        assert len(other.got) == 1
        inbox.go.set()
        assert (await settled(client, first))["state"] == "delivered"
        assert (len(inbox.got), len(other.got)) == (1, 1)
        (dispatcher,) = (each for _, each in gateway.runtime.known("delivery"))
        (lane,) = dispatcher._lanes.values()
        await eventually(lambda: len(lane.plans) == 1)
        await clean(store)


async def test_a_route_is_removed_and_comes_back(tmp_path: Path) -> None:
    """Its events stay, and go on their way when it is there again."""
    inbox = Inbox(status(500), status(200))
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{schedule: [50ms]}")) as gateway,
        gateway.client() as client,
    ):
        event = (await send(client))["event_id"]
        await until_state(client, event, "waiting")
        text = config(upstream, store, "{schedule: [50ms]}")
        await gateway.reload(text.replace("hooks", "others"))
        (dispatcher,) = (each for _, each in gateway.runtime.known("delivery"))
        await eventually(lambda: [lane.route for lane in dispatcher.lanes()] == ["others"])
        assert (await client.get(f"/hooks/{event}")).status_code == 404
        await asyncio.sleep(0.1)
        assert len(inbox.got) == 1
        await gateway.reload(text)
        assert (await settled(client, event))["state"] == "delivered"


async def test_a_graceful_stop_gives_back_what_is_under_way(tmp_path: Path) -> None:
    """Others deliver it at once, by the same key, without waiting for the lease."""
    inbox = Inbox()
    for name in "ab":
        (tmp_path / name).mkdir()
    text = "{lease: 1h, concurrency: 3}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path / "b", ONLY_ACCEPTS + config(upstream, store, text)) as watching,
        watching.client() as client,
    ):
        async with run_gateway(tmp_path / "a", config(upstream, store, text)):
            inbox.go.clear()
            events = [(await send(client))["event_id"] for _ in range(5)]
            await inbox.until(3)
        async with queue_of(store) as queue:
            ready = queue.key("ready", "hooks/api")
            held = await queue.store.call("XPENDING", ready, "lockgate")
            assert held == [0, None, None, None]
            record = decode_record((await queue.fields(events[0]))[b"t:api"])
            assert record.attempts == 0, "nobody knows how it ended, so it does not count"
        inbox.go.set()
        async with run_gateway(tmp_path / "a", config(upstream, store, text)):
            for event in events:
                assert (await settled(client, event))["state"] == "delivered"
        for event in events[:3]:
            assert inbox.field("x-lockgate-event").count(event) == 2
            assert inbox.field("idempotency-key").count(f'"{event}"') == 2
        assert len(inbox.got) == 8
        await clean(store)


async def test_a_drain_lets_attempts_end(tmp_path: Path) -> None:
    """Within its time; nothing new is begun, and what takes longer goes back."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{concurrency: 1}")) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        inbox.go.clear()
        first, second = [(await send(client))["event_id"] for _ in range(2)]
        await inbox.until(1)
        drain = asyncio.create_task(gateway.plane.drain(9.0, asyncio.Event()))
        (dispatcher,) = (each for _, each in gateway.runtime.known("delivery"))
        await eventually(lambda: dispatcher._halted)
        inbox.go.set()
        await within(drain)
        assert (await queue.fields(first))[b"s:api"] == b"d"
        assert (await queue.fields(second))[b"s:api"] == b"q"
        assert len(inbox.got) == 1


async def test_a_drain_has_its_time_and_an_end(tmp_path: Path) -> None:
    """What does not end within it is given back; a second signal to stop ends the waiting."""
    inbox = Inbox()
    inbox.go.clear()
    for name, seconds, force in (("a", 0.05, False), ("b", 9.0, True)):
        (tmp_path / name).mkdir()
        async with (
            store_in(tmp_path / name) as store,
            ScriptedUpstream(inbox) as upstream,
            queue_of(store) as queue,
            run_gateway(tmp_path / name, config(upstream, store)) as gateway,
        ):
            async with gateway.client() as client:
                event = (await send(client))["event_id"]
            await eventually(partial(is_busy, gateway))
            forced = asyncio.Event()
            if force:
                forced.set()
            async with asyncio.timeout(5):
                await gateway.plane.drain(seconds, forced)
                await gateway.plane.aclose()
            assert (await queue.fields(event))[b"s:api"] == b"q"


async def test_idle_gateways_hear_of_what_is_given_back(tmp_path: Path) -> None:
    """At once, though they had looked already and wait for new events."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        await send(client)
        await inbox.until(1)
        (dispatcher,) = (each for _, each in gateway.runtime.known("delivery"))
        (lane,) = dispatcher._lanes.values()
        await eventually(lambda: lane.idle_since is not None)
        inbox.go.clear()
        event = (await send(client))["event_id"]
        await inbox.until(2)
        (taken,) = (taken for _, taken in lane._running.values())
        await queue.settle(Lane("hooks", "api"), taken, "later", None, delay=0.0)
        await eventually(lambda: inbox.field("x-lockgate-event").count(event) == 2)
        inbox.go.set()


async def test_a_stop_while_the_store_is_gone_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be given back; it is not waited for."""
    monkeypatch.setattr("gateway.delivery.attempt._RELEASE_S", 0.05)
    inbox = Inbox()
    async with store_in(tmp_path) as store, ScriptedUpstream(inbox) as upstream:
        async with run_gateway(tmp_path, config(upstream, store)) as gateway:
            async with gateway.client() as client:
                inbox.go.clear()
                await send(client)
                await inbox.until(1)
            store.kill()
            await within(gateway.plane.aclose())


async def test_a_stop_does_not_wait_for_a_retired_configuration(tmp_path: Path) -> None:
    """What that one began may go on for minutes, but not when the process ends."""
    inbox = Inbox()
    async with store_in(tmp_path) as store, ScriptedUpstream(inbox) as upstream:
        async with (
            run_gateway(tmp_path, config(upstream, store)) as gateway,
            gateway.client() as client,
            queue_of(store) as queue,
        ):
            inbox.go.clear()
            event = (await send(client))["event_id"]
            await inbox.until(1)
            await gateway.reload(config(upstream, store, "{concurrency: 3}"))
            await within(gateway.plane.aclose())
            assert (await queue.fields(event))[b"s:api"] == b"q"


async def test_a_killed_gateway(tmp_path: Path) -> None:
    """SIGKILL in the middle of attempts: another takes over after the lease, by the same key."""
    inbox = Inbox()
    async with store_in(tmp_path) as store, ScriptedUpstream(inbox) as upstream:
        head = "version: 1\nserver: {listen: '127.0.0.1:0', admin: '127.0.0.1:0'}\n"
        head += "telemetry: {access_log: null}\n"
        file = tmp_path / "gateway.yaml"
        file.write_text(head + config(upstream, store, "{lease: 1s, ordered_by: headers.X-Order}"))
        (tmp_path / "b").mkdir()
        async with gateway_process(file) as dying:
            async with httpx.AsyncClient(base_url=dying.url, timeout=20) as client:
                inbox.go.clear()
                first = (await send(client, x_order="a"))["event_id"]
                second = (await send(client, x_order="a"))["event_id"]
                third = (await send(client, x_order="b"))["event_id"]
                await inbox.until(2)
            dying.signal(signal.SIGKILL)
            await dying.exit_code()
        inbox.go.set()
        text = config(upstream, store, "{lease: 1s, ordered_by: headers.X-Order}")
        async with run_gateway(tmp_path / "b", text) as gateway, gateway.client() as client:
            for event in (first, second, third):
                assert (await settled(client, event))["state"] == "delivered"
            sent = inbox.field("x-lockgate-event")
            assert set(sent[:2]) == {first, third}
            assert [sent.count(each) for each in (first, second, third)] == [2, 1, 2]
            assert sent.index(second) > max(at for at, each in enumerate(sent) if each == first)
            keys = {(e, k) for e, k in zip(sent, inbox.field("idempotency-key"), strict=True)}
            assert keys == {(each, f'"{each}"') for each in (first, second, third)}
            await clean(store)
