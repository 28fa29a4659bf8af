"""Deadlines, event streams, and what is exempt from the one because it is the other."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import routes, within
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_wait,
)

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
SHORT = "timeout: 200ms"


async def test_the_deadline_before_the_head_is_a_504(serve: Serve) -> None:
    """With its code; the upstream's connection is closed, and the client's goes on."""
    async with ScriptedUpstream(answer_then_wait(), answer(OK)) as upstream:
        async with serve(routes(upstream.url, options=SHORT)) as gateway:
            async with gateway.raw() as client:
                got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await within(upstream.peers[0].gone.wait())
                await gateway.quiet()
                again = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            lines = await gateway.lines(2)

    assert got.status == 504
    assert b'"code": "deadline_exceeded"' in got.body
    assert b"error=http_response_timeout" in (got.get(b"proxy-status") or b"")
    assert again.body == b"ok"
    assert [line.get("code") for line in lines] == ["deadline_exceeded", None]


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_the_deadline_in_mid_body_cuts_the_answer(serve: Serve, framing: bytes) -> None:
    """The status is out, so the connection ends such that the client can tell."""
    part = b"4\r\nhalf\r\n" if b"chunked" in framing else b"half"
    reply = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (framing, part)
    async with ScriptedUpstream(answer_then_wait(reply)) as upstream:
        async with serve(routes(upstream.url, options=SHORT)) as gateway:
            async with gateway.client() as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/")
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()
            line = await gateway.line()

    assert (line["status"], line["code"]) == (200, "deadline_exceeded")


async def test_the_deadline_while_the_client_sends(serve: Serve) -> None:
    """A client that dawdles with its body gets the 504, too, and the upstream no whole body."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url, options=SHORT)) as gateway:
            async with gateway.raw() as client:
                got = await client.ask(
                    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
                )
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()

    assert got.status == 504
    assert b"0\r\n\r\n" not in upstream.peers[0].received


async def test_the_upstreams_own_timeout(serve: Serve) -> None:
    """`timeout` of the upstream counts for routes that have none."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        text = routes(upstream.url).replace("connect_timeout: 2s", SHORT)
        async with serve(text) as gateway, gateway.client() as client:
            got = await client.get("/")

    assert got.json()["code"] == "deadline_exceeded"


async def test_a_connect_that_takes_too_long(serve: Serve) -> None:
    """The deadline also bounds connecting: here, to a socket that does not accept."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        where = listening.getsockname()
        with socket.create_connection(where):
            text = routes(f"http://127.0.0.1:{where[1]}", options=SHORT)
            async with serve(text) as gateway, gateway.client() as client:
                got = await client.get("/")
                await gateway.quiet()

    assert got.status_code == 504


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b""])
async def test_events_arrive_one_by_one(serve: Serve, framing: bytes) -> None:
    """An event is here before the next one is sent; the timeout does not end the stream."""
    read = asyncio.Event()

    async def service(peer: Peer) -> None:
        def event(number: int) -> bytes:
            data = b"data: %d\n\n" % number
            return b"%x\r\n%b\r\n" % (len(data), data) if framing else data

        await peer.request()
        await peer.send(EVENTS + framing + b"\r\n" + event(1))
        await read.wait()
        read.clear()
        await asyncio.sleep(0.3)  # longer than the timeout
        await peer.send(event(2))
        await read.wait()
        await peer.send(b"0\r\n\r\n" if framing else b"")
        peer.close()

    seen = []
    async with ScriptedUpstream(service) as upstream:
        async with serve(routes(upstream.url, options=SHORT)) as gateway:
            async with gateway.client() as client, client.stream("GET", "/") as got:
                assert got.headers["content-type"].startswith("text/event-stream")
                async for text in got.aiter_lines():
                    if text:
                        seen.append(text)
                        read.set()
            line = await gateway.line()

    assert seen == ["data: 1", "data: 2"]
    assert line["status"] == 200
    assert "code" not in line


async def test_a_client_that_leaves_an_event_stream(serve: Serve) -> None:
    """The upstream hears of it at once, not with the next event."""
    async with ScriptedUpstream(answer_then_wait(EVENTS + b"\r\ndata: 1\n\n")) as upstream:
        async with serve(routes(upstream.url)) as gateway:
            async with gateway.client() as client, client.stream("GET", "/") as got:
                async for line in got.aiter_lines():
                    assert line == "data: 1"
                    break
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()
            logged = await gateway.line()

    assert (logged["status"], logged["code"]) == (200, "client_disconnected")
