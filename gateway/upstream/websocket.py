"""WebSocket towards the upstream (RFC 6455): the handshake, then a relay in both directions.

The upstream is connected before the client's handshake is answered, so that the upstream's status,
subprotocol and refusal reach the client. Frames and extensions belong to each hop; messages and
close codes pass. Admission applies whole; of delivery, what applies is what acts at connect.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from gateway.errors import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    INVALID_RESPONSE,
    MALFORMED_REQUEST,
    TLS_CERTIFICATE,
    TLS_FAILED,
    UPGRADE_FAILED,
    UPSTREAM_RESET,
    ClientError,
    UpstreamError,
)
from gateway.message import Exchange, RawHeaders, Response

Message = MutableMapping[str, Any]

# The same bound as on the client's side, where uvicorn's default stands.
MAX_MESSAGE: Final = 16 * 1024 * 1024
# Seconds between pings on the upstream side, and for the pong: a dead peer is noticed in 40 s.
PING: Final = 20.0
# No user information, which would become credentials, and nothing that begins another part.
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::([0-9]{0,5}))?")
_HANDSHAKE: Final = frozenset(
    {
        b"connection",
        b"host",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
_ANSWER_DROPPED: Final = frozenset(
    {
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "transfer-encoding",
        "upgrade",
    }
)


async def open_websocket(
    exchange: Exchange,
    *,
    authority: str,
    target: str,
    headers: RawHeaders,
    address: tuple[str, int] | str,
    tls: ssl.SSLContext | None,
    server_name: str | None,
    connect_timeout: float,
    release: Callable[[], None],
) -> Response:
    """Shake hands with one upstream target.

    `address` is (host, port) or the path of a unix socket. Returns a 101 response with its tunnel,
    or the upstream's own refusal. `release` is called when the tunnel or the refusal is done with.
    Raises UpstreamError if there is no WebSocket to be had, ClientError if `authority`, which may
    be the client's Host field, can't stand in a URI.
    """
    named = _AUTHORITY.fullmatch(authority)
    if named is None or int(named[1] or 0) > 65535:
        release()
        raise ClientError(MALFORMED_REQUEST, "Host is not a host and a port")
    scheme = "wss" if tls is not None else "ws"
    options: dict[str, Any] = {
        "additional_headers": [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in headers
            if name not in _HANDSHAKE
        ],
        "subprotocols": [Subprotocol(name) for name in exchange.subprotocols or ()] or None,
        "compression": None,
        "max_size": MAX_MESSAGE,
        "ping_interval": PING,
        "ping_timeout": PING,
        "user_agent_header": None,
        "open_timeout": connect_timeout,
    }
    if tls is not None:
        options["ssl"] = tls
        options["server_hostname"] = server_name
    uri = f"{scheme}://{authority}{target}"
    try:
        try:
            if isinstance(address, str):
                connection = await unix_connect(address, uri, **options)
            else:
                connection = await connect(
                    uri, host=address[0], port=address[1], proxy=None, **options
                )
        except InvalidStatus as refusal:
            return _refused(exchange, refusal, release)
        except Exception as error:
            raise _translate(error, exchange.target) from error
    except BaseException:
        release()
        raise
    exchange.upstream_status = 101
    response = Response(101, _answer_headers(connection.response.headers.raw_items()))  # type: ignore[union-attr]
    response.tunnel = tunnel = WebSocketTunnel(exchange, connection)
    response.on_close(release)
    response.on_close(tunnel.abort)
    return response


def _refused(exchange: Exchange, refusal: InvalidStatus, release: Callable[[], None]) -> Response:
    answer = refusal.response
    exchange.upstream_status = answer.status_code
    release()
    headers = _answer_headers(answer.headers.raw_items())
    body = bytes(answer.body or b"")
    headers.append((b"content-length", b"%d" % len(body)))
    return Response(answer.status_code, headers, body)


def _answer_headers(fields: Any) -> RawHeaders:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in fields
        if name.lower() not in _ANSWER_DROPPED
    ]


def _translate(error: Exception, next_hop: str) -> Exception:
    """The taxonomy's error for what went wrong in the handshake; anything unknown stays itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamError(TLS_CERTIFICATE, error.verify_message, next_hop=next_hop, sent=False)
    if isinstance(error, ssl.SSLError):
        return UpstreamError(TLS_FAILED, error.reason or "", next_hop=next_hop, sent=False)
    if isinstance(error, TimeoutError):
        return UpstreamError(CONNECT_TIMEOUT, next_hop=next_hop)
    if isinstance(error, OSError):
        return UpstreamError(CONNECT_FAILED, error.strerror or "", next_hop=next_hop, sent=False)
    if isinstance(error, InvalidMessage):
        ended = isinstance(error.__cause__, EOFError)
        return UpstreamError(UPSTREAM_RESET if ended else INVALID_RESPONSE, next_hop=next_hop)
    if isinstance(error, InvalidHandshake):
        return UpstreamError(UPGRADE_FAILED, str(error), next_hop=next_hop)
    return error


class WebSocketTunnel:
    """The relay between an ASGI WebSocket and an upstream connection.

    Each side's messages go to the other with back-pressure: the next message is read only when the
    last one was taken. The first side to close closes the other with the same code.
    """

    def __init__(self, exchange: Exchange, connection: ClientConnection) -> None:
        self._exchange = exchange
        self._connection = connection
        self.subprotocol: str | None = connection.subprotocol

    async def run(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Relay until either side has closed. Cancelled, it leaves the upstream side to `abort`."""
        up = asyncio.create_task(self._to_upstream(receive))
        down = asyncio.create_task(self._to_client(send))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _to_upstream(self, receive: Callable[[], Awaitable[Message]]) -> None:
        connection = self._connection
        try:
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    await connection.close(_closing_code(message), message.get("reason") or "")
                    return
                data: str | bytes | None = message.get("bytes")
                if data is None:
                    data = message.get("text") or ""
                self._exchange.bytes_in += len(data)
                await connection.send(data)
        except ConnectionClosed:
            return

    async def _to_client(self, send: Callable[[Message], Awaitable[None]]) -> None:
        connection = self._connection
        try:
            while True:
                data = await connection.recv()
                self._exchange.bytes_out += len(data)
                key = "text" if isinstance(data, str) else "bytes"
                await send({"type": "websocket.send", key: data})
        except ConnectionClosed:
            code = passable(connection.close_code or 1006, 1011)
            reason = connection.close_reason or ""
            try:
                await send({"type": "websocket.close", "code": code, "reason": reason})
            except (OSError, RuntimeError):
                # The client closed in the same moment; there is nobody left to tell.
                return

    def abort(self) -> None:
        """Cut the upstream connection if it is still there."""
        transport = self._connection.transport
        if not transport.is_closing():
            transport.abort()


def _closing_code(message: Message) -> int:
    """The code that a client's end has for the upstream."""
    code = message.get("code") or 1005
    if code == 1005 and "reason" not in message:
        # Servers say 1005 both for a close frame without a code and for a connection that is gone;
        # only the frame comes with a reason, an empty one.
        return 1001
    return passable(code, 1001)


def passable(code: int, broken: int) -> int:
    """A close code that may stand in a frame (RFC 6455 section 7.4.1).

    1005 says that no code was given, which a normal close says as 1000; 1006 and 1015 say that the
    connection broke, which the other side hears as `broken`.
    """
    if code == 1005:
        return 1000
    if code in (1006, 1015) or not 1000 <= code < 5000:
        return broken
    return code
