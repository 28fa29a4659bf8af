"""What an upstream does wrong, each against the real pool over sockets: code, and nothing left."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from gateway.errors import (
    CONNECT_FAILED,
    INVALID_RESPONSE,
    RESPONSE_HEADERS_TOO_LARGE,
    RESPONSE_INCOMPLETE,
    UPSTREAM_RESET,
    UPSTREAM_TIMEOUT,
    UPSTREAM_WRITE_TIMEOUT,
    ErrorCode,
    UpstreamError,
)
from gateway.upstream import Upstream
from tests.support.scripted import (
    OK,
    Peer,
    Script,
    ScriptedUpstream,
    answer,
    answer_then_close,
    answer_then_reset,
    answer_then_wait,
    close_at_once,
    respond,
)
from tests.support.sending import (
    assert_quiet,
    eventually,
    fetch,
    make_exchange,
    read,
    running,
    send,
)

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def failing(upstream: Upstream, **exchange: Any) -> UpstreamError:
    """The error that the next exchange gets, before or within its body."""
    with pytest.raises(UpstreamError) as caught:
        await fetch(upstream, **exchange)
    return caught.value


async def test_nobody_listens(free_port: int) -> None:
    """A target that refuses connections is connect_failed, and nothing was sent."""
    async with running(f"http://127.0.0.1:{free_port}") as upstream:
        error = await failing(upstream)
        assert (error.kind, error.sent) == (CONNECT_FAILED, False)
        assert error.next_hop == f"127.0.0.1:{free_port}"
        assert upstream.status()["targets"][0]["failures"] == {"connect_failed": 1}


GARBAGE = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no HTTP, and no line end": b"\x00\x01\x02\x03\x04\x05\x06\x07\x08",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bad version": b"HTTP/2.0 200 OK\r\n\r\n",
    "bad status": b"HTTP/1.1 99 Low\r\n\r\n",
    "status with four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "length and chunked": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "length list": HEAD + b"Content-Length: 2, 2\r\n\r\nok",
    "unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded field": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": HEAD + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "bare CR": HEAD + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "bare LF ends": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "no colon": HEAD + b"Nonsense\r\n\r\n",
    "unasked upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "bad first chunk": CHUNKED + b"zz\r\n",
    "negative chunk": CHUNKED + b"-1\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_an_invalid_response(data: bytes) -> None:
    """What is no HTTP answer, or one with two meanings, is invalid_response at once."""
    async with ScriptedUpstream(answer_then_wait(data)) as server, running(server.url) as upstream:
        error = await failing(upstream)
        assert error.kind is INVALID_RESPONSE
        assert upstream.status()["targets"][0]["open"] == 0


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_byte_by_byte(data: bytes) -> None:
    """The same comes out when the bytes arrive one at a time."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for index in range(len(data)):
            await peer.send(data[index : index + 1])
            await asyncio.sleep(0)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        assert (await failing(upstream)).kind is INVALID_RESPONSE


LARGE = {
    "one endless field": HEAD + b"A: " + b"a" * 70_000,
    "one huge field": HEAD + b"A: " + b"a" * 70_000 + b"\r\n\r\n",
    "too many fields": HEAD + b"A: b\r\n" * 300 + b"\r\n",
    "endless reason": b"HTTP/1.1 200 " + b"a" * 70_000,
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE.keys())
async def test_header_without_end(data: bytes) -> None:
    """A header section above the limit is refused before it is whole."""
    async with ScriptedUpstream(answer_then_wait(data)) as server, running(server.url) as upstream:
        assert (await failing(upstream)).kind is RESPONSE_HEADERS_TOO_LARGE


ENDS: dict[str, tuple[Script, ErrorCode]] = {
    "closed instead of an answer": (answer_then_close(), UPSTREAM_RESET),
    "reset instead of an answer": (answer_then_reset(), UPSTREAM_RESET),
    "closed within the header": (answer_then_close(HEAD), RESPONSE_INCOMPLETE),
    "reset within the header": (answer_then_reset(HEAD), RESPONSE_INCOMPLETE),
    "closed behind a 103": (answer_then_close(b"HTTP/1.1 103 Hi\r\n\r\n"), RESPONSE_INCOMPLETE),
    "closed within a sized body": (
        answer_then_close(HEAD + b"Content-Length: 10\r\n\r\nhello"),
        RESPONSE_INCOMPLETE,
    ),
    "closed behind the head of a sized body": (
        answer_then_close(HEAD + b"Content-Length: 10\r\n\r\n"),
        RESPONSE_INCOMPLETE,
    ),
    "reset within a sized body": (
        answer_then_reset(HEAD + b"Content-Length: 10\r\n\r\nhello"),
        RESPONSE_INCOMPLETE,
    ),
    "closed within a chunk": (answer_then_close(CHUNKED + b"5\r\nhel"), RESPONSE_INCOMPLETE),
    "closed between chunks": (answer_then_close(CHUNKED + b"5\r\nhello\r\n"), RESPONSE_INCOMPLETE),
    "closed before the last CRLF": (
        answer_then_close(CHUNKED + b"5\r\nhello\r\n0\r\n"),
        RESPONSE_INCOMPLETE,
    ),
    "closed within the trailers": (
        answer_then_close(CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n"),
        RESPONSE_INCOMPLETE,
    ),
    "reset in a body until close": (
        answer_then_reset(HEAD + b"Connection: close\r\n\r\nhello"),
        RESPONSE_INCOMPLETE,
    ),
    "broken second chunk": (
        answer_then_wait(CHUNKED + b"5\r\nhello\r\nhello"),
        INVALID_RESPONSE,
    ),
}


@pytest.mark.parametrize(("script", "kind"), ENDS.values(), ids=ENDS.keys())
async def test_answers_that_break_off(script: Script, kind: ErrorCode) -> None:
    """A connection that ends too early has the right code, and its slot comes back."""
    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        error = await failing(upstream)
        assert error.kind is kind
        assert error.sent
        await eventually(lambda: upstream.status()["targets"][0]["open"] == 0)
        assert upstream.status()["targets"][0]["failures"] == {kind.code: 1}


async def test_what_arrived_before_the_break_is_delivered() -> None:
    """The pieces before the break come first, so that they can reach the client; then the error."""
    script = answer_then_reset(HEAD + b"Content-Length: 10\r\n\r\nhello")
    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream)
        assert response.stream is not None
        assert await anext(response.stream) == b"hello"
        with pytest.raises(UpstreamError) as caught:
            await anext(response.stream)
        assert caught.value.kind is RESPONSE_INCOMPLETE
        response.close()


async def test_closing_before_anything_is_a_failed_connect() -> None:
    """A target that accepts and closes was either not sent to, or reset the exchange."""
    async with ScriptedUpstream(close_at_once) as server, running(server.url) as upstream:
        assert (await failing(upstream)).kind is UPSTREAM_RESET


async def test_informational_flood() -> None:
    """Interim answers are bounded: a flood of them is an error, not work without end."""
    flood = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100
    for data in (flood, flood + OK, b"HTTP/1.1 100 Continue\r\n\r\n" * 5000):
        script = answer_then_wait(data)
        async with ScriptedUpstream(script) as server, running(server.url) as upstream:
            assert (await failing(upstream)).kind is INVALID_RESPONSE


BEHIND = {
    "a second answer": OK + respond(b"evil"),
    "one byte": OK + b"x",
    "bytes behind chunks": CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + respond(b"evil"),
    "body on 304": b"HTTP/1.1 304 Not Modified\r\n\r\nevil",
    "body on 204": b"HTTP/1.1 204 No Content\r\n\r\n" + respond(b"evil"),
}


@pytest.mark.parametrize("data", BEHIND.values(), ids=BEHIND.keys())
async def test_bytes_behind_an_answer(data: bytes) -> None:
    """The answer counts, its connection is dropped, and the next exchange never sees the rest."""
    async with (
        ScriptedUpstream(answer_then_wait(data), answer(OK)) as server,
        running(server.url) as upstream,
    ):
        await fetch(upstream)
        assert upstream.status()["targets"][0]["open"] == 0
        assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 2


async def test_body_on_head() -> None:
    """A body sent for a HEAD, even in a later packet, never becomes the next answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n")
        await asyncio.sleep(0.005)
        await peer.send(respond(b"evil"))
        await peer.until_gone()

    async with ScriptedUpstream(script, answer(OK)) as server, running(server.url) as upstream:
        assert await fetch(upstream, "HEAD") == b""
        assert await fetch(upstream) == b"ok"


@pytest.mark.parametrize("unasked", [respond(b"evil"), b"x", b"HTTP/1.1 408 Timeout\r\n\r\n"])
async def test_an_answer_while_idle_never_reaches_the_next_client(unasked: bytes) -> None:
    """Bytes on an idle connection close it; the next exchange gets a new one and its own answer."""
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await asyncio.sleep(0.01)
        await peer.send(unasked)
        sent.set()
        await peer.until_gone()

    async with ScriptedUpstream(script, answer(OK)) as server, running(server.url) as upstream:
        assert await fetch(upstream) == b"ok"
        assert upstream.status()["targets"][0]["idle"] == 1
        await sent.wait()
        assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 2
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)


async def test_unasked_bytes_that_the_loop_has_not_read_yet() -> None:
    """The check at check-out looks at the socket itself, not at what the loop happens to know."""
    async with (
        ScriptedUpstream(answer_then_wait(OK), answer(OK)) as server,
        running(server.url) as upstream,
    ):
        assert await fetch(upstream) == b"ok"
        # Written past the loop, in the same iteration in which the next exchange begins.
        raw = server.peers[0].writer.get_extra_info("socket")
        os.write(raw.fileno(), respond(b"evil"))
        assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    "data",
    [HEAD + b"Content-Length: 10\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n", CHUNKED],
    ids=["sized", "chunked", "no piece yet"],
)
async def test_a_stall_in_the_body(data: bytes) -> None:
    """A body that stands still for too long is given up as upstream_timeout."""
    async with (
        ScriptedUpstream(answer_then_wait(data)) as server,
        running(server.url, options={"body_idle": 0.05}) as upstream,
    ):
        error = await failing(upstream)
        assert error.kind is UPSTREAM_TIMEOUT
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)


async def test_a_slow_body_is_no_stall() -> None:
    """As long as something moves, a body may take longer than the limit for standing still."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 30\r\n\r\n")
        for _ in range(30):
            await asyncio.sleep(0.02)
            await peer.send(b"x")
        await peer.until_gone()

    async with (
        ScriptedUpstream(script) as server,
        running(server.url, options={"body_idle": 0.3}) as upstream,
    ):
        assert await fetch(upstream) == b"x" * 30


async def test_an_event_stream_may_be_silent() -> None:
    """Events come when they come: their stream is not cut for being silent."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n")
        await asyncio.sleep(0.2)
        await peer.send(b"5\r\nhello\r\n0\r\n\r\n")
        await peer.until_gone()

    async with (
        ScriptedUpstream(script) as server,
        running(server.url, options={"body_idle": 0.05}) as upstream,
    ):
        assert await fetch(upstream) == b"hello"


async def test_an_upstream_that_does_not_read() -> None:
    """An upload that the upstream does not take is given up as upstream_write_timeout."""

    async def script(peer: Peer) -> None:
        peer.pause_reading()
        await asyncio.sleep(60)

    async with (
        ScriptedUpstream(script) as server,
        running(server.url, options={"body_idle": 0.1}) as upstream,
    ):
        error = await failing(upstream, method="POST", body=b"x" * 20_000_000)
        assert error.kind is UPSTREAM_WRITE_TIMEOUT


async def test_a_slow_client_is_not_the_upstreams_fault() -> None:
    """While the client does not read, the upstream is stopped, not blamed for standing still."""
    size = 4_000_000

    async with (
        ScriptedUpstream(answer_then_wait(respond(b"x" * size))) as server,
        running(server.url, options={"body_idle": 0.05}) as upstream,
    ):
        response = await send(upstream)
        await asyncio.sleep(0.3)
        assert len(await read(response)) == size


async def test_errors_of_many_at_once() -> None:
    """Faults under concurrency leave no slot, no active exchange and no waiter behind."""
    scripts = [
        answer(OK),
        close_at_once,
        answer_then_reset(),
        answer_then_close(HEAD),
        answer_then_wait(b"garbage"),
        answer_then_close(HEAD + b"Content-Length: 10\r\n\r\nhello"),
    ] * 10
    async with (
        ScriptedUpstream(*scripts) as server,
        running(server.url, connections={"max": 4}, connect_timeout="10s") as upstream,
    ):
        results = await asyncio.gather(
            *(fetch(upstream, "POST", body=b"x") for _ in range(16)), return_exceptions=True
        )
        assert all(isinstance(each, UpstreamError | bytes) for each in results), results
        assert b"ok" in results
        assert_quiet(upstream)


async def test_upstream_seconds_are_counted_for_failures_too() -> None:
    """The time that a failed exchange spent waiting is the upstream's share."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        peer.close()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        exchange = make_exchange()
        with pytest.raises(UpstreamError):
            await upstream.send(exchange, "GET", b"/")
        assert exchange.upstream_seconds >= 0.04
        assert (exchange.upstream, exchange.target) == ("orders", f"127.0.0.1:{server.port}")
