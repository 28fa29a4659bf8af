"""WebSockets from a real client to a real service, and what happens when either is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, routes, within
from tests.support.scripted import (
    ScriptedUpstream,
    answer,
    answer_then_close,
    answer_then_wait,
    close_at_once,
    respond,
)

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
Talk = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    """Send back what comes, until the other side closes."""
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        return


class Service:
    """A WebSocket service. `connections` are those it has had; `closed` is set by the first end."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections: list[ServerConnection] = []
        self.closed = asyncio.Event()
        self.server: Server

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        try:
            await self._talk(connection)
        finally:
            await connection.wait_closed()
            self.closed.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{next(iter(self.server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def service(talk: Talk = echo, **options: Any) -> AsyncIterator[Service]:
    """A service on a port of its own."""
    made = Service(talk)
    async with serve_websocket(made.handle, "127.0.0.1", 0, **options) as made.server:
        yield made


def to(gateway: RunningGateway, path: str = "/live", **options: Any) -> connect:
    """A client of the gateway; `async with` gives its connection."""
    return connect(gateway.url.replace("http", "ws") + path, proxy=None, **options)


async def status_of(gateway: RunningGateway, **options: Any) -> Any:
    """The answer of a handshake that fails."""
    with pytest.raises(InvalidStatus) as refused:
        async with to(gateway, **options):
            pass
    return refused.value.response


async def test_messages_go_both_ways(serve: Serve) -> None:
    """Text, binary, empty and large ones, in order and each as one message."""
    messages: list[str | bytes] = ["héllo", b"\x00\xff", "", b"", "x" * 300_000, b"y" * 3_000_000]
    async with service(max_size=None) as upstream, serve(routes(upstream.url)) as gateway:
        async with to(gateway, max_size=None) as client:
            for message in messages:
                await client.send(message)
                assert await within(client.recv()) == message
        await within(upstream.closed.wait())
        await gateway.quiet()
        line = await gateway.line()

    assert (line["status"], line["upstream_status"]) == (101, 101)
    assert "code" not in line


async def test_the_handshake_reaches_the_upstream(serve: Serve) -> None:
    """Path, query, subprotocols and fields; those of the gateway are written, hops are separate."""
    options = 'rewrite: {path: "/v2/{rest:path}"}'
    async with service(subprotocols=["chat"]) as upstream:
        async with serve(routes(upstream.url, options=options)) as gateway:
            async with to(
                gateway,
                "/live/x%20y?a=b",
                subprotocols=["other", "chat"],
                origin="https://app.internal",
                additional_headers={"X-Forwarded-For": "6.6.6.6", "Cookie": "a=b"},
            ) as client:
                assert client.subprotocol == "chat"
                assert client.response is not None
                echoed = client.response.headers["x-correlation-id"]

    request = upstream.connections[0].request
    assert request is not None
    assert request.path == "/v2/live/x%20y?a=b"
    assert request.headers["X-Forwarded-For"] == "127.0.0.1"
    assert request.headers["X-Correlation-ID"] == echoed
    assert request.headers["Origin"] == "https://app.internal"
    assert request.headers["Cookie"] == "a=b"
    assert request.headers["Sec-WebSocket-Protocol"] == "other, chat"
    assert request.headers["Via"] == "1.1 lockgate-test"
    assert request.headers.get_all("Host") == [request.headers["Host"]]


async def test_pages_of_strangers_are_refused(serve: Serve) -> None:
    """A route with cors takes WebSockets of the pages that it lists, its own, and of no page."""
    options = 'cors: {origins: ["https://app.internal"]}'
    async with service() as upstream, serve(routes(upstream.url, options=options)) as gateway:
        for origin in ("https://app.internal", gateway.url, None):
            async with to(gateway, origin=origin) as client:
                await client.send("x")
                assert await within(client.recv()) == "x"
        response = await status_of(gateway, origin="https://evil.example")

    assert response.status_code == 403
    assert len(upstream.connections) == 3


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4001, "enough"), (1011, "oops")])
async def test_close_codes_of_the_upstream_pass(serve: Serve, code: int, reason: str) -> None:
    """The client hears the code and the reason that the service gave."""

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(code, reason)

    async with service(talk) as upstream, serve(routes(upstream.url)) as gateway:
        async with to(gateway) as client:
            await client.send("x")
            await within(client.wait_closed())
            assert (client.close_code, client.close_reason) == (code, reason)
        await gateway.quiet()


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4001, "enough"), (1001, "away")])
async def test_close_codes_of_the_client_pass(serve: Serve, code: int, reason: str) -> None:
    """The service hears the code and the reason that the client gave."""
    async with service() as upstream, serve(routes(upstream.url)) as gateway:
        async with to(gateway) as client:
            await client.send("x")
            await client.recv()
            await client.close(code, reason)
        await within(upstream.closed.wait())
        (connection,) = upstream.connections
        assert (connection.close_code, connection.close_reason) == (code, reason)
        await gateway.quiet()


async def test_a_client_that_vanishes_is_no_normal_close(serve: Serve) -> None:
    """Its end without a close frame is told to the service as going away, not as a job done."""
    async with service() as upstream, serve(routes(upstream.url)) as gateway:
        client: ClientConnection = await to(gateway)
        await client.send("x")
        await client.recv()
        client.transport.abort()
        await within(upstream.closed.wait())
        await gateway.quiet()

    assert upstream.connections[0].close_code == 1001


async def test_an_upstream_that_vanishes_is_an_error(serve: Serve) -> None:
    """The client hears 1011."""

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with service(talk) as upstream, serve(routes(upstream.url)) as gateway:
        async with to(gateway) as client:
            await client.send("x")
            with pytest.raises(ConnectionClosedError):
                await within(client.recv())
            assert client.close_code == 1011
        await gateway.quiet()


async def test_a_service_that_says_much_to_a_slow_client(serve: Serve) -> None:
    """Messages wait at the service, not in the gateway."""
    sent = 0

    async def talk(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(400):
            await connection.send(b"x" * 100_000)
            sent += 1

    async with service(talk) as upstream, serve(routes(upstream.url)) as gateway:
        async with to(gateway, max_queue=1) as client:
            stalled, last = 0, -1
            while stalled < 20:
                stalled = stalled + 1 if sent == last else 0
                last = sent
                await asyncio.sleep(0.005)
            assert sent < 400
            for _ in range(400):
                await within(client.recv())


async def test_an_upstream_that_refuses(serve: Serve) -> None:
    """Its status, fields and body reach the client."""
    reply = respond(b'{"no":1}', "401 Unauthorized", b"WWW-Authenticate: Bearer", b"X-A: b")
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with serve(routes(upstream.url)) as gateway:
            got = await status_of(gateway)
            await gateway.quiet()
            line = await gateway.line()

    assert (got.status_code, got.body) == (401, b'{"no":1}')
    assert (got.headers["WWW-Authenticate"], got.headers["X-A"]) == ("Bearer", "b")
    assert got.headers["X-Correlation-ID"]
    assert (line["status"], line["upstream_status"]) == (401, 401)


async def test_an_upstream_that_knows_no_websocket(serve: Serve) -> None:
    """A 200 is no WebSocket: what the service says is what the client gets."""
    async with ScriptedUpstream(answer(respond(b"page"))) as upstream:
        async with serve(routes(upstream.url)) as gateway:
            got = await status_of(gateway)

    assert (got.status_code, got.body) == (200, b"page")


@pytest.mark.parametrize(
    ("options", "path", "status", "code"),
    [
        ("access: {deny: [127.0.0.0/8]}", "/live", 403, "access_denied"),
        ("enabled: false", "/live", 404, "route_not_found"),
        ("", "/..%2flive", 400, "ambiguous_path"),
    ],
)
async def test_the_gateway_refuses(
    serve: Serve, options: str, path: str, status: int, code: str
) -> None:
    """Admission applies whole, with problems as for any request; the upstream hears nothing."""
    async with service() as upstream, serve(routes(upstream.url, options=options)) as gateway:
        got = await status_of(gateway, path=path)
        line = await gateway.line()

    assert got.status_code == status
    assert got.headers["Content-Type"] == "application/problem+json"
    assert f'"code": "{code}"'.encode() in got.body
    assert upstream.connections == []
    assert (line["status"], line["code"]) == (status, code)


async def test_a_method_that_no_route_takes(serve: Serve) -> None:
    """A handshake is a GET."""
    async with service() as upstream:
        text = routes(upstream.url).replace('rest:path}"', 'rest:path}", methods: [POST]')
        async with serve(text) as gateway:
            got = await status_of(gateway)

    assert (got.status_code, got.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (close_at_once, 502, "upstream_reset"),
        (answer_then_close(), 502, "upstream_reset"),
        (answer(b"garbage\r\n\r\n"), 502, "invalid_response"),
        (
            answer(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            502,
            "upgrade_failed",
        ),
    ],
)
async def test_upstreams_that_fail(serve: Serve, script: Any, status: int, code: str) -> None:
    """A service that is down or broken is a problem with its code, and Proxy-Status."""
    async with ScriptedUpstream(script) as upstream, serve(routes(upstream.url)) as gateway:
        got = await status_of(gateway)
        await gateway.quiet()
        line = await gateway.line()

    assert got.status_code == status
    assert f'"code": "{code}"'.encode() in got.body
    assert "next-hop" in got.headers["Proxy-Status"]
    assert line["code"] == code


async def test_nobody_listens(serve: Serve, free_port: int) -> None:
    """502 with connect_failed."""
    async with serve(routes(f"http://127.0.0.1:{free_port}")) as gateway:
        got = await status_of(gateway)
        await gateway.quiet()

    assert got.status_code == 502
    assert b'"code": "connect_failed"' in got.body


async def test_an_upstream_that_does_not_answer_the_handshake(serve: Serve) -> None:
    """504 after the route's timeout, and its connection is closed."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url, options="timeout: 200ms")) as gateway:
            got = await status_of(gateway)
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()

    assert got.status_code == 504
    assert b'"code": "deadline_exceeded"' in got.body


async def test_the_timeout_ends_with_the_handshake(serve: Serve) -> None:
    """A WebSocket may live longer than a request."""
    async with service() as upstream:
        async with serve(routes(upstream.url, options="timeout: 200ms")) as gateway:
            async with to(gateway) as client:
                await asyncio.sleep(0.3)
                await client.send("x")
                assert await within(client.recv()) == "x"


async def test_a_client_that_leaves_during_the_handshake(serve: Serve) -> None:
    """Nobody is connected for it any longer."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(routes(upstream.url, options="timeout: 15s")) as gateway:
            async with gateway.raw() as client:
                await client.send(UPGRADE)
                await within(upstream.connected.wait())
                client.leave()
            await asyncio.wait_for(upstream.peers[0].gone.wait(), 1.5)
            await gateway.quiet()
            line = await gateway.line()

    assert (line["status"], line["code"]) == (499, "client_disconnected")


async def test_other_upgrades_are_not_tunnelled(serve: Serve) -> None:
    """h2c and its like are ignored: the request is served as it is, and nothing is upgraded."""
    async with ScriptedUpstream(answer(respond(b"plain"))) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.raw() as client:
            got = await client.ask(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            )

    assert (got.status, got.body) == (200, b"plain")
    (request,) = upstream.requests
    assert request.get("upgrade") is None
    assert request.get("http2-settings") is None


async def test_a_host_that_is_none_opens_nothing(serve: Serve) -> None:
    """Host becomes part of a URL on the way: it can't smuggle credentials or another target."""
    async with service() as upstream, serve(routes(upstream.url)) as gateway:
        for host in (b"user:secret@a", b"a/b?c", b"a:99999", b""):
            async with gateway.raw() as client:
                got = await client.ask(UPGRADE.replace(b"Host: a", b"Host: " + host))
                assert got.status in (400, 101), (host, got.body)
        await gateway.quiet()

    for connection in upstream.connections:
        assert connection.request is not None
        assert "Authorization" not in connection.request.headers
        assert connection.request.path == "/"
