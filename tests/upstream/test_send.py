"""One exchange with an upstream: what leaves on the wire, and what comes back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.errors import LOOP_DETECTED, GatewayError
from gateway.message import RawHeaders
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_close,
    answer_then_wait,
    echo,
    respond,
)
from tests.support.sending import eventually, fetch, make_exchange, read, running, send

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_the_request_on_the_wire() -> None:
    """Method, target and fields leave as given, in order, with Host first and our own fields."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        exchange = make_exchange(
            "PATCH",
            headers=[
                (b"accept", b"*/*"),
                (b"host", b"api.test:8080"),
                (b"x-a", b"1"),
                (b"x-a", b"2"),
            ],
            body=b"hello",
        )
        response = await upstream.send(exchange, "PATCH", b"/a%2Fb/[1]?q=%20")
        assert (response.status, response.body) == (200, b"ok")
        request = server.requests[0]
        assert request.line == b"PATCH /a%2Fb/[1]?q=%20 HTTP/1.1"
        assert request.lines[:4] == [b"host: api.test:8080", b"accept: */*", b"x-a: 1", b"x-a: 2"]
        assert request.get("via") == "1.1 lockgate-test"
        assert request.get("x-forwarded-for") == "192.0.2.7"
        assert (request.get("content-length"), request.body) == ("5", b"hello")
        assert exchange.upstream == "orders"
        assert exchange.target == f"127.0.0.1:{server.port}"
        assert exchange.upstream_status == 200
        assert 0 < exchange.upstream_seconds < 20


@pytest.mark.parametrize(
    ("method", "length"),
    [("GET", None), ("DELETE", None), ("HEAD", None), ("POST", "0"), ("PUT", "0"), ("PATCH", "0")],
)
async def test_an_empty_body(method: str, length: str | None) -> None:
    """Content-Length: 0 is sent with the methods that usually have a body (RFC 9110 8.6)."""
    async with ScriptedUpstream(answer(respond(b""))) as server, running(server.url) as upstream:
        await fetch(upstream, method)
        assert server.requests[0].get("content-length") == length
        assert server.requests[0].get("transfer-encoding") is None


@pytest.mark.parametrize(
    ("rule", "host"),
    [("preserve", "api.test"), ("upstream", None), ("orders.internal:81", "orders.internal:81")],
)
async def test_host_rules(rule: str, host: str | None) -> None:
    """The Host field is the client's, the target's, or a fixed one."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        await upstream.send(make_exchange(), "GET", b"/", rule)
        assert server.requests[0].get_all("host") == [host or f"127.0.0.1:{server.port}"]


async def test_large_body_in_one_piece() -> None:
    """A body far above every buffer arrives whole."""
    body = bytes(range(256)) * 20_000
    async with ScriptedUpstream(echo) as server, running(server.url) as upstream:
        seen = json.loads(await fetch(upstream, "POST", body=body))
        assert seen["body"].encode("latin-1") == body


async def test_connections_are_reused_last_in_first_out() -> None:
    """Exchanges one after another share one connection."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        for _ in range(5):
            assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 1
        status = upstream.status()["targets"][0]
        assert (status["connects"], status["reuses"], status["requests"]) == (1, 4, 5)
        assert (status["active"], status["idle"]) == (0, 1)


BODIES: dict[str, tuple[list[bytes], bytes]] = {
    "sized": ([respond(b"hello")], b"hello"),
    "sized, in two packets": ([respond(b"hello")[:-5], b"hello"], b"hello"),
    "sized, in three": ([respond(b"hello")[:-5], b"he", b"llo"], b"hello"),
    "split head": ([b"HTTP/1.1 20", b"0 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhello"], b"hello"),
    "chunked": ([CHUNKED + b"5\r\nhello\r\n3\r\n wo\r\n0\r\n\r\n"], b"hello wo"),
    "chunked in pieces": (
        [CHUNKED, b"5\r\nhe", b"llo\r\n3", b"\r\n wo\r\n0\r\n", b"\r\n"],
        b"hello wo",
    ),
    "until close": ([b"HTTP/1.1 200 OK\r\n\r\n", b"hello", b" world"], b"hello world"),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\nhello"], b"hello"),
    "empty": ([respond(b"")], b""),
    "empty chunked": ([CHUNKED + b"0\r\n\r\n"], b""),
    "behind 100": ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], b"ok"),
}


@pytest.mark.parametrize("close", [False, True], ids=["kept", "closed"])
@pytest.mark.parametrize(("parts", "body"), BODIES.values(), ids=BODIES.keys())
async def test_bodies(parts: list[bytes], body: bytes, close: bool) -> None:
    """Every framing, in one packet or many, with or without the connection closing behind it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0.002)
        if close or (b"ength" not in b"".join(parts) and b"chunked" not in parts[0]):
            peer.close()
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        assert await fetch(upstream) == body


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(method: str, data: bytes) -> None:
    """HEAD, 204 and 304 have no body whatever their fields say, and the connection lives on."""
    async with ScriptedUpstream(answer(data, OK)) as server, running(server.url) as upstream:
        response = await send(upstream, method)
        assert (response.body, response.stream) == (b"", None)
        length = dict(response.headers).get(b"content-length")
        assert length == (b"1234" if b"1234" in data else None)
        await eventually(lambda: upstream.status()["targets"][0]["idle"] == 1)
        assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 1


async def test_connection_close_is_obeyed() -> None:
    """A connection is not used again after `Connection: close`, whole answer or streamed."""
    whole = respond(b"ok", "200 OK", b"Connection: close")
    split = [whole[:-1], whole[-1:]]

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in split:
            await peer.send(part)
            await asyncio.sleep(0.005)
        await peer.until_gone()

    async with (
        ScriptedUpstream(answer_then_wait(whole), script, answer(OK)) as server,
        running(server.url) as upstream,
    ):
        for _ in range(3):
            assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 3


async def test_response_fields() -> None:
    """End-to-end fields pass in order, doubles included; hop-by-hop fields do not."""
    data = respond(
        b"ok",
        "200 OK",
        b"Server: demo/1",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Connection: keep-alive, X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Status: inner; error=x",
        b"Upgrade: h2c",
        b"X-Raw: caf\xe9",
    )
    async with ScriptedUpstream(answer(data)) as server, running(server.url) as upstream:
        response = await send(upstream)
        assert response.headers == [
            (b"server", b"demo/1"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"proxy-status", b"inner; error=x"),
            (b"x-raw", b"caf\xe9"),
            (b"content-length", b"2"),
        ]


@pytest.mark.parametrize("split", [False, True])
async def test_trailers(split: bool) -> None:
    """Trailer fields stay apart from header fields; those that frame or route are dropped."""
    first = CHUNKED + b"2\r\nok\r\n"
    last = b"0\r\nX-Sum: 1\r\nContent-Length: 9\r\nAuthorization: x\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in [first, last] if split else [first + last]:
            await peer.send(part)
            await asyncio.sleep(0.005)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream)
        assert await read(response) == b"ok"
        assert response.trailers == [(b"x-sum", b"1")]
        assert b"x-sum" not in dict(response.headers)


async def test_interim_answers_pass() -> None:
    """103 reaches the client when it can take it; 100 is for this hop alone."""
    seen: list[tuple[int, RawHeaders]] = []
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n"
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + early * 2 + OK
    async with ScriptedUpstream(answer(data)) as server, running(server.url) as upstream:
        exchange = make_exchange()
        exchange.client_informational = lambda status, headers: seen.append((status, headers))
        response = await upstream.send(exchange, "GET", b"/")
        assert response.body == b"ok"
        assert seen == [(103, [(b"link", b"</a>")])] * 2
        assert await fetch(upstream) == b"ok"


async def test_a_loop_is_refused() -> None:
    """A request that came through this gateway already is not sent again."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        headers = [(b"host", b"a"), (b"via", b"1.1 other, 1.1 lockgate-test")]
        with pytest.raises(GatewayError) as caught:
            await fetch(upstream, headers=headers)
        assert caught.value.kind is LOOP_DETECTED
        assert server.peers == []


async def test_max_forwards() -> None:
    """OPTIONS with Max-Forwards: 0 ends here, TRACE is refused, and others are counted down."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        zero = [(b"host", b"a"), (b"max-forwards", b"0")]
        assert (await send(upstream, "OPTIONS", headers=zero)).status == 204
        assert (await send(upstream, "TRACE", headers=zero)).status == 405
        assert server.peers == []
        await fetch(upstream, "OPTIONS", headers=[(b"host", b"a"), (b"max-forwards", b"5")])
        await fetch(upstream, "GET", headers=[(b"host", b"a"), (b"max-forwards", b"5")])
        assert [request.get("max-forwards") for request in server.requests] == ["4", "5"]


async def test_line_ends_in_fields_never_leave() -> None:
    """A policy that puts a line end into a field fails its request instead of making two of one."""
    async with ScriptedUpstream(answer(OK)) as server, running(server.url) as upstream:
        for bad in (b"a\r\nx-evil: 1", b"a\n", b"a\rb"):
            with pytest.raises(GatewayError):
                await fetch(upstream, headers=[(b"host", b"a"), (b"x-a", bad)])
        with pytest.raises(GatewayError):
            await upstream.send(make_exchange(), "GET", b"/ HTTP/1.1\r\nx: y")
        assert server.requests == []


async def test_unix_socket(tmp_path: Path) -> None:
    """A target may be a unix socket."""
    path = str(tmp_path / "s")
    async with ScriptedUpstream(echo, path=path) as server, running(server.url) as upstream:
        exchange = make_exchange()
        response = await upstream.send(exchange, "GET", b"/x", "upstream")
        seen = json.loads(response.body or b"")
        assert seen["target"] == "/x"
        assert dict(seen["headers"])["host"] == "localhost"
        assert exchange.target == server.url


async def test_back_pressure_on_the_upstream() -> None:
    """While nobody reads the body, the upstream is stopped: memory does not grow with the body."""
    size = 50_000_000
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = b"x" * 100_000
        while sent < size:
            await peer.send(piece)
            sent += len(piece)
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        response = await send(upstream)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size / 2
        assert len(await read(response)) == size
        # Read to the end, its connection serves the next exchange.
        assert upstream.status()["targets"][0]["idle"] == 1


async def test_a_body_that_is_given_up() -> None:
    """Closing a response in mid-body cuts its connection and frees everything."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
    async with (
        ScriptedUpstream(answer_then_wait(data), answer(OK)) as server,
        running(server.url, connections={"max": 1}) as upstream,
    ):
        response = await send(upstream)
        assert upstream.status()["targets"][0]["active"] == 1
        response.close()
        response.close()
        assert upstream.status()["targets"][0]["open"] == 0
        await asyncio.wait_for(server.peers[0].gone.wait(), 20)
        assert await fetch(upstream) == b"ok"


async def test_a_closed_response_of_an_ended_body_is_harmless() -> None:
    """Closing late must not touch the connection, which may carry another exchange by then."""
    split = respond(b"ok")

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(split[:-1])
            await asyncio.sleep(0.005)
            await peer.send(split[-1:])

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        first = await send(upstream)
        assert first.stream is not None
        assert b"".join([piece async for piece in first.stream]) == b"ok"
        second = await send(upstream)
        first.close()
        assert await read(second) == b"ok"
        assert len(server.peers) == 1


async def test_upstream_seconds_cover_the_stream() -> None:
    """Waiting for pieces counts as the upstream's share, the reader's own pauses do not."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.1)
        await peer.send(b"ok")
        await peer.until_gone()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        exchange = make_exchange()
        response = await upstream.send(exchange, "GET", b"/")
        head_seconds = exchange.upstream_seconds
        assert await read(response) == b"ok"
        assert exchange.upstream_seconds >= head_seconds + 0.05


async def test_an_answer_and_the_end_in_one_packet() -> None:
    """An upstream that answers and closes at once is understood, and not used again."""
    async with ScriptedUpstream(answer_then_close(OK)) as server, running(server.url) as upstream:
        for _ in range(3):
            assert await fetch(upstream) == b"ok"
        assert len(server.peers) == 3
