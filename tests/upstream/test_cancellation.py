"""Cancelled at every point where it can wait, a send leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.upstream import Upstream
from tests.support.scripted import OK, Peer, Script, ScriptedUpstream, answer, respond
from tests.support.sending import (
    assert_quiet,
    eventually,
    fetch,
    make_exchange,
    read,
    running,
    send,
)


async def slow_answer(peer: Peer) -> None:
    """Answer in five packets with pauses between them."""
    while True:
        await peer.request()
        for part in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\n\r\n", b"a", b"b", b"cd"):
            await peer.send(part)
            await asyncio.sleep(0.001)


async def upload() -> AsyncIterator[bytes]:
    for _ in range(5):
        await asyncio.sleep(0.001)
        yield b"x" * 100_000


async def whole_exchange(upstream: Upstream, method: str) -> None:
    stream = upload() if method == "POST" else None
    response = await upstream.send(make_exchange(method, stream=stream), method, b"/")
    await read(response)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("script", [answer(OK), slow_answer], ids=["whole", "pieces"])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "reused"])
async def test_cancelled_after_any_number_of_turns(script: Script, method: str, warm: bool) -> None:
    """Whichever turn of the loop the cancellation falls into, every count is zero afterwards."""
    async with (
        ScriptedUpstream(script) as server,
        running(server.url, connections={"max": 2}, connect_timeout="20s") as upstream,
    ):
        for turns in range(40):
            if warm:
                await whole_exchange(upstream, method)
            task = asyncio.create_task(whole_exchange(upstream, method))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert_quiet(upstream)
        await whole_exchange(upstream, method)


@pytest.mark.parametrize("script", [answer(OK), slow_answer], ids=["whole", "pieces"])
async def test_cancelled_at_many_moments(script: Script) -> None:
    """The same with real time passing, so that packets arrive around the cancellation."""
    async with (
        ScriptedUpstream(script) as server,
        running(server.url, connections={"max": 2}, connect_timeout="20s") as upstream,
    ):
        for step in range(40):
            tasks = [asyncio.create_task(whole_exchange(upstream, "GET")) for _ in range(6)]
            await asyncio.sleep(step * 0.0003)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(each is None for each in results[1::2]), results
            assert_quiet(upstream)
        assert upstream.status()["targets"][0]["open"] <= 2


async def test_cancelled_while_it_waits_for_a_slot() -> None:
    """A waiter that leaves takes no slot with it, not even one granted in the same moment."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await release.wait()
            await peer.send(OK)

    async with (
        ScriptedUpstream(script) as server,
        running(server.url, connections={"max": 1}, connect_timeout="20s") as upstream,
    ):
        for turns in range(8):
            release.clear()
            first = asyncio.create_task(fetch(upstream))
            await eventually(lambda: upstream.status()["targets"][0]["active"] == 1)
            second = asyncio.create_task(fetch(upstream))
            third = asyncio.create_task(fetch(upstream))
            await eventually(lambda: upstream.status()["targets"][0]["waiting"] == 2)
            release.set()
            if turns == 0:
                second.cancel()
            assert await first == b"ok"
            for _ in range(turns):
                await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            assert await third == b"ok"
            assert_quiet(upstream)


async def test_a_connect_that_succeeds_as_it_is_cancelled() -> None:
    """The connection of a connect that was cancelled in the last moment is closed."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        for turns in range(12):
            task = asyncio.create_task(fetch(upstream))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await upstream.aclose()
        await asyncio.sleep(0.01)
        await eventually(lambda: all(peer.gone.is_set() for peer in server.peers))


async def test_the_upload_ends_with_the_exchange() -> None:
    """Cancelling an exchange stops reading from its client."""
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)
        finally:
            stopped.set()

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        task = asyncio.create_task(fetch(upstream, "POST", stream=endless()))
        await server.connected.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(stopped.wait(), 20)
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)
        assert not server.peers[0].received.endswith(b"0\r\n\r\n")


async def test_a_cancelled_reader_of_a_body() -> None:
    """A client that leaves in mid-body cuts the upstream connection when the response is closed."""
    data = respond(b"x" * 10)[:-5]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream)
        task = asyncio.create_task(read(response))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)
        assert upstream.status()["targets"][0]["open"] == 0
