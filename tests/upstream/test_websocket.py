"""WebSockets to a target: choice, counting and failover are those of other exchanges."""

from __future__ import annotations

import socket

import pytest
from websockets.asyncio.server import ServerConnection, serve

from gateway.errors import CONNECT_FAILED, UpstreamError
from tests.support.scripted import ScriptedUpstream, answer, respond
from tests.support.sending import make_exchange, read, running


async def test_a_tunnel_counts_as_an_active_exchange() -> None:
    """The target is busy as long as the tunnel is open; one that refuses is passed over."""
    seen: list[tuple[str, str | None]] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append((connection.request.path, connection.request.headers.get("X-Forwarded-For")))
        await connection.wait_closed()

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with running(dead, f"http://127.0.0.1:{port}") as upstream:
                for _ in range(2):
                    exchange = make_exchange()
                    exchange.subprotocols = []
                    response = await upstream.connect_websocket(exchange, b"/live?x=1")
                    assert response.status == 101
                    assert exchange.target == f"127.0.0.1:{port}"
                    assert upstream.targets[1].active == 1
                    assert response.tunnel is not None
                    response.tunnel.abort()
                    response.close()
                    assert upstream.targets[1].active == 0
    assert seen == [("/live?x=1", "192.0.2.7")] * 2


async def test_a_refused_handshake_is_an_answer() -> None:
    """An upstream that answers the handshake with another status is heard, and nothing is left."""
    refusal = respond(b"no", "403 Forbidden")
    async with ScriptedUpstream(answer(refusal)) as server, running(server.url) as upstream:
        exchange = make_exchange()
        exchange.subprotocols = []
        response = await upstream.connect_websocket(exchange, b"/")
        assert (response.status, await read(response)) == (403, b"no")
        assert exchange.upstream_status == 403


async def test_no_target_can_be_reached(free_port: int) -> None:
    """The last target's failure comes out."""
    async with running(f"http://127.0.0.1:{free_port}") as upstream:
        exchange = make_exchange()
        exchange.subprotocols = []
        with pytest.raises(UpstreamError) as caught:
            await upstream.connect_websocket(exchange, b"/")
        assert caught.value.kind is CONNECT_FAILED
