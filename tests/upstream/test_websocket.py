"""WebSockets to a target: choice, counting and failover are those of other exchanges."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve, unix_serve

from gateway.errors import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    INVALID_RESPONSE,
    MALFORMED_REQUEST,
    TLS_CERTIFICATE,
    UPGRADE_FAILED,
    UPSTREAM_RESET,
    ClientError,
    ErrorCode,
    UpstreamError,
)
from gateway.message import Exchange, Response
from gateway.upstream import Upstream
from gateway.upstream.websocket import passable
from tests.support.scripted import (
    ScriptedUpstream,
    answer,
    answer_then_close,
    answer_then_wait,
    close_at_once,
    respond,
)
from tests.support.sending import assert_quiet, make_exchange, read, running


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


def handshake(host: bytes = b"api.test") -> Exchange:
    exchange = make_exchange(headers=[(b"host", host)])
    exchange.subprotocols = []
    return exchange


async def opened(upstream: Upstream) -> Response:
    return await upstream.connect_websocket(handshake(), b"/live")


async def greet(connection: ServerConnection) -> None:
    await connection.send("hello")
    await connection.wait_closed()


async def greeting(response: Response) -> list[Any]:
    """What the client is sent, from a tunnel whose client leaves at once."""
    sent: list[Any] = []
    said = asyncio.Event()

    async def receive() -> Any:
        await said.wait()
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(message: Any) -> None:
        sent.append(message)
        said.set()

    assert response.tunnel is not None
    await response.tunnel.run(receive, send)
    response.close()
    return sent


async def test_a_unix_socket(tmp_path: Path) -> None:
    """A target may be a file."""
    path = str(tmp_path / "service.sock")
    async with unix_serve(greet, path), running(f"unix:{path}") as upstream:
        sent = await greeting(await opened(upstream))

    assert sent[0] == {"type": "websocket.send", "text": "hello"}


async def test_tls(tmp_path: Path) -> None:
    """wss to a target whose authority is known; to no other."""
    import ssl

    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serve(greet, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with running(url, tls={"ca": str(ca)}) as upstream:
            sent = await greeting(await opened(upstream))
        async with running(url) as stranger:
            with pytest.raises(UpstreamError) as caught:
                await opened(stranger)

    assert sent[0] == {"type": "websocket.send", "text": "hello"}
    assert caught.value.kind is TLS_CERTIFICATE


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (close_at_once, UPSTREAM_RESET),
        (answer_then_close(), UPSTREAM_RESET),
        (answer(b"SSH-2.0-OpenSSH\r\n\r\n"), INVALID_RESPONSE),
        (
            answer(b"HTTP/1.1 101 X\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n"),
            UPGRADE_FAILED,
        ),
        (answer_then_wait(), CONNECT_TIMEOUT),
    ],
)
async def test_handshakes_that_fail(script: Any, kind: ErrorCode) -> None:
    """Each has its code and names the target, and nothing is left."""
    async with ScriptedUpstream(script) as server:
        async with running(server.url, connect_timeout="200ms") as upstream:
            with pytest.raises(UpstreamError) as caught:
                await opened(upstream)
            assert caught.value.kind is kind
            assert caught.value.next_hop == f"127.0.0.1:{server.port}"
            assert_quiet(upstream)


@pytest.mark.parametrize("host", [b"u:p@a", b"a/b", b"a?b", b"a#b", b"a:99999", b"[::1", b"a b"])
async def test_a_host_that_cannot_stand_in_a_uri(host: bytes) -> None:
    """It would change what is asked for, or become credentials."""
    async with ScriptedUpstream(answer_then_wait()) as server, running(server.url) as upstream:
        with pytest.raises(ClientError) as caught:
            await upstream.connect_websocket(handshake(host), b"/")
        assert caught.value.kind is MALFORMED_REQUEST
        assert_quiet(upstream)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_cancelled_in_the_handshake(turns: int) -> None:
    """The connection is closed and the target no longer busy, whenever it happens."""
    async with ScriptedUpstream(answer_then_wait()) as server, running(server.url) as upstream:
        opening = asyncio.create_task(opened(upstream))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert_quiet(upstream)
        for peer in server.peers:
            await asyncio.wait_for(peer.gone.wait(), 20)


@pytest.mark.parametrize(
    ("code", "passed"),
    [(1000, 1000), (1001, 1001), (4999, 4999), (1005, 1000), (1006, 1011), (1015, 1011),
     (5000, 1011), (0, 1011), (999, 1011)],
)  # fmt: skip
def test_close_codes(code: int, passed: int) -> None:
    """Only what may stand in a close frame goes into one (RFC 6455 section 7.4)."""
    assert passable(code, 1011) == passed
