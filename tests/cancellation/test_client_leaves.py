"""The client leaves, at every stage of an exchange: whatever was held for it is given back.

After each of these nothing is active, waiting or in flight, no slot is held, the upstream has seen
its connection close, and the next client is served.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.e2e.conftest import Serve
from tests.e2e.test_websocket import service
from tests.support.gateway import RunningGateway, eventually, routes, within
from tests.support.raw import RawClient
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_wait,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


def leave(client: RawClient, how: str) -> None:
    """Go away: with a FIN, as a browser does, or with an RST, as a process that died."""
    if how == "fin":
        client.leave()
    else:
        client.reset()


@pytest.fixture(params=["fin", "rst"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ended(gateway: RunningGateway, lines: int = 1) -> dict[str, Any]:
    """Wait until nothing is held; the last line of the log."""
    await gateway.quiet()
    line = (await gateway.lines(lines))[-1]
    assert line["code"] == "client_disconnected"
    assert gateway.metric("gateway_requests_total", code="client_disconnected") >= 1
    return line


async def test_before_the_upstream_answers(serve: Serve, how: str) -> None:
    """The upstream's connection is closed at once, and the line says 499."""
    async with ScriptedUpstream(answer_then_wait(), answer(OK)) as upstream:
        async with serve(routes(upstream.url)) as gateway:
            async with gateway.raw() as client:
                await client.send(GET)
                await within(upstream.connected.wait())
                await eventually(lambda: len(upstream.requests) == 1)
                leave(client, how)
                await within(upstream.peers[0].gone.wait())
                line = await ended(gateway)
            async with gateway.raw() as other:
                assert (await other.ask(GET)).body == b"ok"

    assert line["status"] == 499


async def test_during_its_upload(serve: Serve, how: str) -> None:
    """Half a body is never ended as a whole one."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(POST + b"x" * 100_000)
            await eventually(
                lambda: any(len(peer.reader._buffer) > 50_000 for peer in upstream.peers)  # type: ignore[attr-defined]
            )
            leave(client, how)
            await within(upstream.peers[0].gone.wait())
            await ended(gateway)

    assert upstream.peers[0].requests[0].body == b""


async def test_while_the_upstream_does_not_read_its_upload(serve: Serve) -> None:
    """Where nothing is read from the client, its end is not seen; the deadline ends it then."""

    async def service(peer: Peer) -> None:
        await peer.head()
        peer.pause_reading()
        await asyncio.sleep(60)

    async with ScriptedUpstream(service) as upstream:
        text = routes(upstream.url, options="body: {max: 1GiB}, timeout: 500ms")
        async with serve(text) as gateway, gateway.raw() as client:
            client.writer.write(POST.replace(b"1000000", b"100000000") + b"x" * 20_000_000)
            await eventually(lambda: bool(upstream.requests))
            client.reset()
            await gateway.quiet()


async def test_while_it_downloads(serve: Serve, how: str) -> None:
    """In the middle of a body that the upstream is still sending."""

    async def service(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await peer.send(b"x" * 100_000)
        except ConnectionError:
            peer.gone.set()

    async with ScriptedUpstream(service) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(GET)
            await client.head()
            await client.exactly(1_000_000)
            leave(client, how)
            await within(upstream.peers[0].gone.wait())
            line = await ended(gateway)

    assert line["status"] == 200
    assert line["bytes_out"] >= 1_000_000


async def test_while_nothing_comes(serve: Serve, how: str) -> None:
    """In the middle of a body that stands still."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with ScriptedUpstream(answer_then_wait(half)) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(GET)
            await client.head()
            leave(client, how)
            await within(upstream.peers[0].gone.wait())
            await ended(gateway)


async def test_while_it_waits_for_a_slot(serve: Serve, how: str) -> None:
    """It gives up its place in the queue; whoever holds the slot is not disturbed."""
    go = asyncio.Event()

    async def service(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(OK)

    async with ScriptedUpstream(service) as upstream:
        text = routes(upstream.url).replace("connect_timeout: 2s", "connections: {max: 1}")
        async with serve(text) as gateway:
            async with gateway.raw() as first, gateway.raw() as client, gateway.raw() as third:
                await first.send(GET)
                await within(upstream.connected.wait())
                await client.send(GET)
                await eventually(lambda: gateway.targets()[0]["waiting"] == 1)
                await third.send(GET)
                await eventually(lambda: gateway.targets()[0]["waiting"] == 2)
                leave(client, how)
                await eventually(lambda: gateway.targets()[0]["waiting"] == 1)
                go.set()
                assert (await first.answer()).body == b"ok"
                assert (await third.answer()).body == b"ok"
            await gateway.quiet()
            lines = await gateway.lines(3)

    assert sorted(line["status"] for line in lines) == [200, 200, 499]
    assert len(upstream.peers) == 1


async def test_while_the_upstream_is_connected_to(serve: Serve, how: str) -> None:
    """A connect that is under way is given up with its slot."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        where = listening.getsockname()
        with socket.create_connection(where):
            text = routes(f"http://127.0.0.1:{where[1]}").replace("2s", "30s")
            async with serve(text) as gateway, gateway.raw() as client:
                await client.send(GET)
                await eventually(lambda: gateway.snapshot.active == 1)
                await eventually(lambda: gateway.targets()[0]["open"] == 1)
                leave(client, how)
                line = await ended(gateway)
                assert gateway.targets()[0]["open"] == 0

    assert line["status"] == 499


async def test_between_pipelined_requests(serve: Serve, how: str) -> None:
    """A client that sent three requests and left has none of them under way."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            await client.send(GET * 3)
            await eventually(lambda: len(upstream.requests) == 1)
            leave(client, how)
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()

    assert len(upstream.requests) == 1


async def test_during_a_websocket(serve: Serve) -> None:
    """The service's connection ends with it."""
    async with service() as upstream, serve(routes(upstream.url)) as gateway:
        client = await connect(gateway.url.replace("http", "ws"), proxy=None)
        await client.send("x")
        await client.recv()
        assert gateway.targets()[0]["active"] == 1
        client.transport.abort()
        await within(upstream.closed.wait())
        await gateway.quiet()


async def test_a_storm(serve: Serve) -> None:
    """Two hundred clients come and go at once, in every way; then all is quiet, and it serves."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.03)
            await peer.send(OK)

    async def visit(gateway: RunningGateway, number: int) -> None:
        async with gateway.raw() as client:
            await client.send(GET if number % 2 else POST + b"x" * 1000)
            await asyncio.sleep(number % 10 * 0.007)
            leave(client, "rst" if number % 3 else "fin")

    async with ScriptedUpstream(slow) as upstream:
        text = routes(upstream.url).replace("connect_timeout: 2s", "connections: {max: 20}")
        async with serve(text) as gateway:
            await asyncio.gather(*(visit(gateway, number) for number in range(200)))
            await gateway.quiet()
            async with gateway.raw() as client:
                assert (await client.ask(GET)).body == b"ok"
            await gateway.quiet()
            assert gateway.metric("gateway_requests_in_flight") == 0
