"""Request bodies that stream: framing, back-pressure, early answers, bodies that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from gateway.errors import (
    BODY_TOO_LARGE,
    CLIENT_DISCONNECTED,
    INTERNAL_ERROR,
    ClientError,
    GatewayError,
    UpstreamError,
)
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer, respond
from tests.support.sending import fetch, read, running, send


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """These parts, each after the loop ran once; then the end or an error."""
    for part in parts:
        await asyncio.sleep(0)
        yield part
    if error is not None:
        raise error


def sized(length: int) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"a"), (b"content-length", b"%d" % length)]


@pytest.mark.parametrize(
    "parts",
    [(), (b"",), (b"hello",), (b"he", b"", b"llo"), (b"x" * 300_000, b"y" * 100), (b"z",) * 500],
    ids=["nothing", "empty piece", "one", "empty between", "large", "many"],
)
@pytest.mark.parametrize("declared", [True, False], ids=["sized", "chunked"])
async def test_the_body_arrives(parts: Iterable[bytes], declared: bool) -> None:
    """A streamed body arrives whole, sized if the client said its size and chunked if not."""
    body = b"".join(parts)
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        headers = sized(len(body)) if declared else [(b"host", b"a")]
        for _ in range(2):
            assert await fetch(upstream, "POST", headers=headers, stream=pieces(*parts)) == b"ok"
        for request in server.requests:
            assert request.body == body
            assert request.get("content-length") == (str(len(body)) if declared else None)
            assert request.get("transfer-encoding") == (None if declared else "chunked")
        assert len(server.peers) == 1


async def test_the_first_piece_leaves_before_the_last_is_there() -> None:
    """Pieces pass as they come; nothing waits for the whole body."""
    arrived = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        yield b"first"
        await arrived.wait()
        yield b"last"

    async def script(peer: Peer) -> None:
        await peer.head()
        while b"first" not in peer.received:
            await peer.read()
        arrived.set()
        while not peer.received.endswith(b"0\r\n\r\n"):
            await peer.read()
        await peer.send(OK)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        assert await fetch(upstream, "POST", stream=stream()) == b"ok"


async def test_an_early_refusal_is_relayed_at_once() -> None:
    """An upstream that refuses before the body is sent is heard, and the upload stops."""
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 10_000
        finally:
            stopped.set()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(respond(b"no", "413 Content Too Large"))
        await peer.until_gone()

    async with ScriptedUpstream(script, answer(OK)) as server, running(server.url) as upstream:
        source = endless()
        response = await send(upstream, "POST", stream=source)
        assert (response.status, await read(response)) == (413, b"no")
        await source.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(stopped.wait(), 20)
        # The rest of that body must never be read as a request.
        assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 2
        assert not server.peers[0].received.endswith(b"0\r\n\r\n")


async def test_an_early_refusal_and_the_connection_closed() -> None:
    """The refusal is heard even if the upstream closes right behind it, with the body unread."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(respond(b"no", "413 Content Too Large", b"Connection: close"))
        peer.close()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(200):
            await asyncio.sleep(0.001)
            yield b"x" * 1000

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream, "POST", stream=slow())
        assert (response.status, await read(response)) == (413, b"no")


async def test_an_answer_that_streams_while_the_body_is_sent() -> None:
    """An upstream may answer as it reads: both directions go on at the same time."""
    turn = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        for part in (b"a", b"b", b"c"):
            yield part
            await turn.wait()
            turn.clear()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            data = await peer.read()
            if data.endswith(b"0\r\n\r\n"):
                break
            await peer.send(b"1\r\n%b\r\n" % data[3:4])
        await peer.send(b"0\r\n\r\n")
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream, "POST", stream=stream())
        assert response.stream is not None
        seen = []
        async for piece in response.stream:
            seen.append(piece)
            turn.set()
        response.close()
        assert b"".join(seen) == b"abc"
        assert upstream.status()["targets"][0]["idle"] == 1


BROKEN = {
    "client left": ClientError(CLIENT_DISCONNECTED),
    "too large": ClientError(BODY_TOO_LARGE),
    "a bug": ValueError("a policy's stream failed"),
}


@pytest.mark.parametrize("declared", [True, False], ids=["sized", "chunked"])
@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_breaks_off(error: Exception, declared: bool) -> None:
    """The upstream connection is cut, never ended properly, and the cause is what is raised."""

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        headers = sized(100) if declared else [(b"host", b"a")]
        with pytest.raises(GatewayError) as caught:
            await fetch(upstream, "POST", headers=headers, stream=pieces(b"hello", error=error))
        expected = error.kind if isinstance(error, ClientError) else INTERNAL_ERROR
        assert caught.value.kind is expected
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)
        assert b"hello" in server.peers[0].received
        assert b"0\r\n" not in server.peers[0].received.partition(b"\r\n\r\n")[2]
        # It was the client's fault, or ours.
        assert upstream.status()["targets"][0]["failures"] == {}


@pytest.mark.parametrize("parts", [(b"hello",), (b"x" * 11,)], ids=["short", "long"])
async def test_a_body_of_another_size_than_declared(parts: tuple[bytes, ...]) -> None:
    """A body that does not match its Content-Length is cut, so that it can't shift the framing."""

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        with pytest.raises(GatewayError):
            await fetch(upstream, "POST", headers=sized(10), stream=pieces(*parts))
        assert b"x" * 11 not in server.peers[0].received


async def test_a_body_that_breaks_off_behind_the_answers_head() -> None:
    """Once the answer streams, the break shows as the end of that stream, with its cause."""
    begun = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        yield b"hello"
        await begun.wait()
        raise ClientError(CLIENT_DISCONNECTED)

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream, "POST", stream=stream())
        begun.set()
        with pytest.raises(ClientError):
            await read(response)


async def test_back_pressure_on_the_client() -> None:
    """While the upstream does not read, no more is taken from the client."""
    taken = 0
    go = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(500):
            taken += 100_000
            yield b"x" * 100_000
            await asyncio.sleep(0)

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        left = 50_000_000
        while left:
            left -= len(await peer.read(1_000_000))
        await peer.send(OK)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        task = asyncio.create_task(
            fetch(upstream, "POST", headers=sized(50_000_000), stream=stream())
        )
        before = -1
        while before != taken:
            before = taken
            await asyncio.sleep(0.05)
        assert taken < 25_000_000
        go.set()
        assert await task == b"ok"


async def test_an_upstream_that_goes_away_during_the_upload() -> None:
    """The exchange fails as reset; a streamed body is never sent twice."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.read()
        peer.reset()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(1000):
            await asyncio.sleep(0.001)
            yield b"x"

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        with pytest.raises(UpstreamError):
            await fetch(upstream, "PUT", stream=slow())
        assert len(server.peers) == 1
