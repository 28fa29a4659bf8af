"""Requests and answers on their way through: methods, framing, bodies, statuses, versions."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import routes, within
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

MB = 1024 * 1024
LARGE = 50 * MB


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
async def test_methods_pass(serve: Serve, method: str) -> None:
    """Every method reaches the upstream as it is, with its body and its query."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            got = await client.request(method, "/a/b?c=d%20e&f", content=b"body")

    seen = got.json()
    assert (seen["method"], seen["target"], seen["body"]) == (method, "/a/b?c=d%20e&f", "body")


async def test_head_has_the_fields_and_no_body(serve: Serve) -> None:
    """HEAD is passed on as HEAD; Content-Length says what GET would give."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n"
    async with ScriptedUpstream(answer(reply)) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            ask = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
            for _ in range(2):
                got = await client.ask(ask, "HEAD")
                assert (got.status, got.get(b"content-length")) == (200, b"1234")
                assert got.get(b"x-a") == b"b"

    assert [request.method for request in upstream.requests] == ["HEAD", "HEAD"]


@pytest.mark.parametrize(
    ("reply", "status", "length"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, None),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 99\r\n\r\n', 304, b"99"),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', 304, None),
    ],
)
async def test_answers_without_a_body(
    serve: Serve, reply: bytes, status: int, length: bytes | None
) -> None:
    """204 and 304 end with their head (RFC 9112 section 6.3), and the next answer is in step."""
    async with ScriptedUpstream(answer(reply)) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            for _ in range(2):
                got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (got.status, got.get(b"content-length")) == (status, length)
                assert got.get(b"transfer-encoding") is None


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_a_large_body_goes_up(serve: Serve, declared: bool) -> None:
    """50 MB arrive whole, in order and framed as they were, and are not piled up on the way."""
    received = 0
    framing: list[str | None] = []
    piece = bytes(range(256)) * 1024

    async def service(peer: Peer) -> None:
        nonlocal received
        request = await peer.head()
        framing.append(request.get("content-length"))
        framing.append(request.get("transfer-encoding"))
        if declared:
            while received < LARGE:
                data = await peer.reader.read(MB)
                assert data[:1] == bytes([received % 256])
                received += len(data)
        else:
            while size := int(await peer.reader.readuntil(b"\r\n"), 16):
                data = await peer.reader.readexactly(size)
                assert data[:1] == bytes([received % 256])
                received += size
                await peer.reader.readexactly(2)
            await peer.reader.readexactly(2)
        await peer.send(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // len(piece)):
            yield piece

    async with ScriptedUpstream(service) as upstream:
        async with serve(routes(upstream.url, options="body: {max: 1GiB}")) as gateway:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            async with gateway.client() as client:
                headers = {"Content-Length": str(LARGE)} if declared else {}
                got = await client.post("/", content=pieces(), headers=headers)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            line = await gateway.line()

    assert got.status_code == 200
    assert received == LARGE == line["bytes_in"]
    assert framing == ([str(LARGE), None] if declared else [None, "chunked"])
    assert grown < 20 * 1024  # kilobytes; client and upstream are in it, too


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_a_large_body_comes_down_to_a_slow_client(serve: Serve, declared: bool) -> None:
    """50 MB arrive whole; while the client does not read, the upstream is held back."""
    piece = bytes(range(256)) * 1024
    sent = 0

    async def service(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        head = b"Content-Length: %d" % LARGE if declared else b"Transfer-Encoding: chunked"
        await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head)
        for _ in range(LARGE // len(piece)):
            await peer.send(piece if declared else b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += len(piece)
        if not declared:
            await peer.send(b"0\r\n\r\n")
        await peer.until_gone()

    async with ScriptedUpstream(service) as upstream, serve(routes(upstream.url)) as gateway:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        received = 0
        async with gateway.client() as client, client.stream("GET", "/") as got:
            stalled, last = 0, -1
            while stalled < 20:  # until nothing moves any more
                stalled = stalled + 1 if sent == last else 0
                last = sent
                await asyncio.sleep(0.005)
            assert sent < LARGE
            async for data in got.aiter_raw():
                assert data[:1] == bytes([received % 256])
                received += len(data)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        line = await gateway.line()

    assert received == LARGE == line["bytes_out"]
    assert grown < 20 * 1024


async def test_an_answer_that_ends_with_its_connection(serve: Serve) -> None:
    """A body until close is framed anew, and the client's connection stays."""
    script = answer_then_close(b"HTTP/1.1 200 OK\r\n\r\none ", b"two")
    async with ScriptedUpstream(script) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            for _ in range(2):
                got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (got.body, got.get(b"connection")) == (b"one two", None)


@pytest.mark.parametrize("te", [b"TE: trailers\r\nConnection: TE\r\n", b""])
async def test_answer_trailers_go_to_clients_that_take_them(serve_lean: Serve, te: bytes) -> None:
    """Trailer fields pass if the client said so, and are dropped if not (RFC 9110 6.5.1)."""
    reply = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=b\r\n\r\n"
    )
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with serve_lean(routes(upstream.url)) as gateway, gateway.raw() as client:
            got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % te)
            again = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert got.body == again.body == b"ok"
    assert got.trailers == ([(b"x-sum", b"7")] if te else [])
    assert again.trailers == []
    assert upstream.requests[0].get("te") == ("trailers" if te else None)


async def test_request_trailers_go_no_further(serve_lean: Serve) -> None:
    """They become neither header fields nor trailer fields of what the upstream reads."""
    body = b"2\r\nok\r\n0\r\nAuthorization: Bearer x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    async with ScriptedUpstream(echo) as upstream:
        async with serve_lean(routes(upstream.url)) as gateway, gateway.raw() as client:
            got = await client.ask(
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
            )
            assert got.status == 200

    assert b"Bearer" not in upstream.peers[0].received
    assert b"6.6.6.6" not in upstream.peers[0].received


async def test_100_continue(serve: Serve) -> None:
    """The client is asked for its body, and the upstream gets no Expect."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            head = (
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
            await client.send(head)
            assert await client.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            got = await client.ask(b"body")

    assert got.status == 200
    assert upstream.requests[0].body == b"body"
    assert upstream.requests[0].get("expect") is None


async def test_a_refusal_needs_no_100(serve_lean: Serve) -> None:
    """A request that is refused by its head is answered before the body was asked for."""
    text = routes("http://127.0.0.1:1", options="body: {max: 10B}")
    async with serve_lean(text) as gateway, gateway.raw() as client:
        got = await client.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
        )

    assert (got.status, got.interim) == (413, [])
    assert got.get(b"connection") == b"close"


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
async def test_an_old_client(serve: Serve, keep: bytes) -> None:
    """HTTP/1.0 gets no chunks; the upstream is asked in 1.1, and told in Via."""
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with ScriptedUpstream(answer(reply)) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n%b\r\n" % keep)
            got = await client.answer()

            assert got.get(b"transfer-encoding") is None
            assert got.body == b"ok"

    (request,) = upstream.requests
    assert request.line == b"GET / HTTP/1.1"
    assert (request.get("via") or "").startswith("1.0 ")


async def test_interim_answers_pass(serve_lean: Serve) -> None:
    """103 reaches the client before the answer."""
    reply = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + OK
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with serve_lean(routes(upstream.url)) as gateway, gateway.raw() as client:
            got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (got.status, got.interim, got.body) == (200, [103], b"ok")


async def test_connections_are_kept_on_both_sides(serve: Serve) -> None:
    """Requests of one client connection use one upstream connection."""
    async with ScriptedUpstream(answer(OK)) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            for _ in range(5):
                assert (await client.get("/")).text == "ok"

    assert len(upstream.peers) == 1


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    """Three requests in one write, three answers in their order."""

    async def service(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(respond(request.target.encode()))

    async with ScriptedUpstream(service) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            await client.send(
                b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(3))
            )
            assert [(await client.answer()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]


async def test_an_early_refusal_by_the_upstream_is_relayed(serve: Serve) -> None:
    """A 413 that comes in mid-upload reaches the client, which has not sent its body yet."""
    reply = respond(b"too much", "413 Content Too Large", b"Connection: close")

    async def service(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply)
        await peer.until_gone()

    async with ScriptedUpstream(service) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nsome")
            got = await client.answer()
            assert (got.status, got.body) == (413, b"too much")
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_a_body_that_breaks_off_is_not_ended_cleanly(serve: Serve, framing: bytes) -> None:
    """The client leaves in mid-upload: the upstream sees no last chunk, and no whole body."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url)) as gateway:
            peer_seen = asyncio.Event()
            broken: list[bytes] = []

            async def service(peer: Peer) -> None:
                await peer.head()
                await peer.read()
                peer_seen.set()
                await peer.until_gone()
                broken.append(bytes(peer.received).partition(b"\r\n\r\n")[2])

            upstream.scripts = (service,)
            async with gateway.raw() as client:
                part = b"4\r\npart\r\n" if b"chunked" in framing else b"part"
                await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (framing, part))
                await within(peer_seen.wait())
                client.leave()
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()
            line = await gateway.line()

    assert broken == [part]
    assert line["code"] == "client_disconnected"


async def test_an_answer_that_breaks_off_is_cut(serve: Serve) -> None:
    """The client can tell: no last chunk, or fewer bytes than Content-Length said."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    script = answer_then_close(half), answer_then_close(chunk)
    async with ScriptedUpstream(*script) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            for _ in range(2):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/")
        lines = await gateway.lines(2)

    assert [line["code"] for line in lines] == ["response_incomplete"] * 2
    assert [line["status"] for line in lines] == [200, 200]


async def test_an_old_client_can_tell_a_broken_answer(serve_lean: Serve) -> None:
    """Without chunks and length only a reset shows that the answer is not whole."""
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    async with ScriptedUpstream(answer_then_close(chunk)) as upstream:
        async with serve_lean(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            assert (await client.head()).get(b"content-length") is None
            with pytest.raises(ConnectionResetError):
                await within(client.reader.read())
