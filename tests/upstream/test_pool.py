"""The bound on connections, the queue behind it, expiry of idle connections, closing."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import ManualClock
from gateway.errors import CONNECTION_LIMIT, UPSTREAM_RESET, UpstreamError
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_wait,
    respond,
)
from tests.support.sending import eventually, fetch, read, running, send


class Gate:
    """A script whose answers wait for `open`; it counts how many exchanges are inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.open.wait()
            self.inside -= 1
            await peer.send(OK)


async def test_the_bound_holds_and_the_queue_is_served() -> None:
    """No more connections than allowed; those who wait are served in turn on the ones there are."""
    gate = Gate()
    async with (
        ScriptedUpstream(gate) as server,
        running(server.url, connections={"max": 3}, connect_timeout="20s") as upstream,
    ):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(10)]
        await eventually(lambda: gate.inside == 3)
        status = upstream.status()["targets"][0]
        assert (status["open"], status["active"], status["waiting"]) == (3, 10, 7)
        gate.open.set()
        assert await asyncio.gather(*tasks) == [b"ok"] * 10
        assert (gate.most, len(server.peers)) == (3, 3)
        assert upstream.status()["targets"][0]["waits"] == 7


async def test_waiting_in_vain() -> None:
    """Who gets no connection within connect_timeout is told connection_limit; nothing was sent."""
    gate = Gate()
    async with (
        ScriptedUpstream(gate) as server,
        running(server.url, connections={"max": 1}, connect_timeout="100ms") as upstream,
    ):
        first = asyncio.create_task(fetch(upstream))
        await eventually(lambda: gate.inside == 1)
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert (caught.value.kind, caught.value.sent) == (CONNECTION_LIMIT, False)
        gate.open.set()
        assert await first == b"ok"


async def test_the_queue_is_bounded() -> None:
    """Behind four times the bound, who comes is refused at once."""
    gate = Gate()
    async with (
        ScriptedUpstream(gate) as server,
        running(server.url, connections={"max": 1}, connect_timeout="20s") as upstream,
    ):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(5)]
        await eventually(lambda: upstream.status()["targets"][0]["waiting"] == 4)
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert caught.value.kind is CONNECTION_LIMIT
        gate.open.set()
        assert await asyncio.gather(*tasks) == [b"ok"] * 5


async def test_a_slot_passes_on_when_its_connection_dies() -> None:
    """Who waits gets the slot of a connection that broke, and opens another one in it."""
    gate = Gate()

    async def die(peer: Peer) -> None:
        await peer.head()
        await gate.open.wait()
        peer.reset()

    async with (
        ScriptedUpstream(die, answer(OK)) as server,
        running(server.url, connections={"max": 1}, connect_timeout="20s") as upstream,
    ):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(3)]
        await eventually(lambda: upstream.status()["targets"][0]["waiting"] == 2)
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], UpstreamError)
        assert results[1:] == [b"ok", b"ok"]


async def test_a_slot_passes_on_when_its_connect_fails() -> None:
    """Failing connects hand their slot on; nobody waits for a slot that nobody has."""
    async with ScriptedUpstream(answer(OK)) as server:
        port = server.port
    async with running(
        f"http://127.0.0.1:{port}", connections={"max": 1}, connect_timeout="20s"
    ) as upstream:
        results = await asyncio.gather(*(fetch(upstream) for _ in range(4)), return_exceptions=True)
        assert all(isinstance(each, UpstreamError) for each in results)
        assert upstream.status()["targets"][0]["open"] == 0


async def test_idle_connections_expire() -> None:
    """A connection that idled for longer than keep_alive is not used again."""
    clock = ManualClock()
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(server.url, clock=clock, connections={"keep_alive": "10s"}) as upstream,
    ):
        await fetch(upstream)
        clock.advance(9)
        await fetch(upstream)
        assert len(server.peers) == 1
        clock.advance(11)
        await fetch(upstream)
        assert len(server.peers) == 2


@pytest.mark.parametrize(("field", "kept"), [(b"timeout=5, max=100", 3.9), (b"timeout=1", 0.4)])
async def test_the_upstreams_own_keep_alive(field: bytes, kept: float) -> None:
    """If the upstream says how long it keeps connections, ours are given up a little earlier."""
    clock = ManualClock()
    data = respond(b"ok", "200 OK", b"Keep-Alive: " + field)
    async with (
        ScriptedUpstream(answer(data)) as server,
        running(server.url, clock=clock) as upstream,
    ):
        await fetch(upstream)
        clock.advance(kept)
        await fetch(upstream)
        assert len(server.peers) == 1
        clock.advance(kept + 0.2)
        await fetch(upstream)
        assert len(server.peers) == 2


async def test_the_sweep_closes_what_is_too_old() -> None:
    """Idle connections that nobody takes are closed as well, while the others stay."""
    clock = ManualClock()
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(server.url, clock=clock, connections={"keep_alive": "10s"}) as upstream,
    ):
        await asyncio.gather(*(fetch(upstream) for _ in range(3)))
        clock.advance(9)
        await fetch(upstream)
        clock.advance(2)
        upstream.sweep()
        assert upstream.status()["targets"][0]["idle"] == 1
        await eventually(lambda: sum(peer.reader.at_eof() for peer in server.peers) == 2)


async def test_closing_lets_exchanges_end() -> None:
    """aclose closes what idles; an exchange under way ends well, and its connection is not kept."""
    gate = Gate()
    async with ScriptedUpstream(answer(OK), gate) as server, running(server.url) as upstream:
        first, _ = await asyncio.gather(send(upstream), asyncio.sleep(0))
        task = asyncio.create_task(fetch(upstream))
        await read(first)
        await fetch(upstream)
        if not gate.inside:
            task2 = asyncio.create_task(fetch(upstream))
        await upstream.aclose()
        gate.open.set()
        assert await task == b"ok"
        if "task2" in locals():
            assert await task2 == b"ok"
        assert upstream.status()["targets"][0]["open"] == 0
        # What still comes in is served, on connections that are closed behind it.
        assert await fetch(upstream) == b"ok"
        assert upstream.status()["targets"][0]["open"] == 0


async def test_drain() -> None:
    """drain waits for active exchanges as long as it may, then cuts them."""
    gate = Gate()
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
    async with (
        ScriptedUpstream(gate, answer_then_wait(data)) as server,
        running(server.url) as upstream,
    ):
        task = asyncio.create_task(fetch(upstream))
        await eventually(lambda: gate.inside == 1)
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        await upstream.aclose()
        assert await upstream.drain(20)
        assert await task == b"ok"
        task = asyncio.create_task(fetch(upstream))
        await eventually(lambda: upstream.status()["targets"][0]["active"] == 1)
        assert not await upstream.drain(0.05)
        with pytest.raises(UpstreamError) as caught:
            await task
        assert caught.value.kind is UPSTREAM_RESET


async def test_both_targets_get_their_share() -> None:
    """Weights decide over a whole round, and active exchanges with least_requests."""
    async with (
        ScriptedUpstream(answer(respond(b"a"))) as one,
        ScriptedUpstream(answer(respond(b"b"))) as two,
        running(one.url, {"url": two.url, "weight": 3}) as upstream,
    ):
        answers = [await fetch(upstream) for _ in range(8)]
        assert (answers.count(b"a"), answers.count(b"b")) == (2, 6)
    gate = Gate()
    async with (
        ScriptedUpstream(gate) as one,
        ScriptedUpstream(answer(respond(b"b"))) as two,
        running(one.url, two.url, balance="least_requests") as upstream,
    ):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(2)]
        await eventually(lambda: gate.inside == 1)
        assert [await fetch(upstream) for _ in range(5)] == [b"b"] * 5
        gate.open.set()
        await asyncio.gather(*tasks)
