"""The edge: ASGI scope, receive and send turned into an Exchange and a Response, and back.

The only ASGI code on the data path. It runs on any ASGI server; Lockgate's own protocol calls
`serve` instead of the ASGI entry, with the request's cycle, through which a whole answer leaves in
one write and a leaving client is noticed without a task that waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import (
    CLIENT_DISCONNECTED,
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    ClientError,
    GatewayError,
    Rejection,
)
from gateway.message import Exchange, Handler, Headers, RawHeaders, Request, Response
from gateway.policies.terminal import refusal_of
from gateway.routing.path import PathError, normalise
from gateway.routing.table import host_name
from gateway.runtime import Runtime, Snapshot

if TYPE_CHECKING:
    from gateway.server.cycle import Cycle

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("gateway")


class Gateway:
    """The ASGI application. It serves whatever snapshot of a started runtime is the current one."""

    def __init__(self, runtime: Runtime) -> None:
        self._snapshot = runtime.snapshot
        self._monotonic = runtime.clock.monotonic
        runtime.on_commit.append(self._swap)

    def _swap(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(receive, send)
        else:
            raise RuntimeError(f"unknown ASGI scope type {kind}")

    async def serve(self, cycle: Cycle) -> None:
        """Answer one request of Lockgate's own protocol, which asks for it in place of `__call__`.

        The same exchange, without the scope, the messages and the watching task that ASGI needs: a
        whole answer leaves through `cycle.respond`, and a leaving client calls `on_disconnect`.
        """
        if cycle.disconnected:
            return
        snapshot = self._snapshot
        head, connection = cycle.head, cycle.protocol
        raw_path, _, query = head.target.partition(b"?")
        request = Request(head.method, "", query, Headers(head.headers, head.index))
        request.peer = request.client = connection.peer
        request.port = connection.port
        if connection.secure:
            request.scheme, request.certificate = "https", connection.certificate
        if head.minor == 0:
            request.http_version = "1.0"
        exchange = Exchange(request, self._monotonic())
        exchange.task = cycle.task
        exchange.client_informational = cycle.informational
        exchange.cut = cycle.reset
        cycle.on_disconnect = exchange.abandon
        if head.length != 0:
            _take_body(cycle, exchange)
        snapshot.active += 1
        response: Response | None = None
        try:
            handler = _route(exchange, snapshot, raw_path)
            try:
                response = await handler(exchange)
            except Exception as failure:  # noqa: BLE001 - whatever it is, the client gets an answer
                response = exchange.refuse(_known(exchange, failure))
            exchange.response_status = response.status
            body = response.body
            if body is not None and response.trailers is None:
                exchange.bytes_out = len(body)
                cycle.respond(response.status, _reply_headers(exchange, response), body)
            else:
                await _send(exchange, response, cycle.send, None)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                raise
            exchange.fail(ClientError(CLIENT_DISCONNECTED))
        except Exception as failure:  # noqa: BLE001 - the same, once the answer has begun
            # Cutting it is how the client can tell.
            exchange.fail(_known(exchange, failure))
            cycle.abort()
        finally:
            cycle.on_disconnect = None
            _finish(exchange, response, snapshot)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of any other ASGI server."""
        snapshot = self._snapshot
        exchange = self._exchange(scope)
        client = _AsgiClient(exchange, receive)
        snapshot.active += 1
        response: Response | None = None
        try:
            handler = _route(exchange, snapshot, scope["raw_path"])
            try:
                response = await handler(exchange)
            except Exception as failure:  # noqa: BLE001 - whatever it is, the client gets an answer
                response = exchange.refuse(_known(exchange, failure))
            exchange.response_status = response.status
            await _send(exchange, response, send, client)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                raise
            exchange.fail(ClientError(CLIENT_DISCONNECTED))
        except Exception as failure:
            exchange.fail(_known(exchange, failure))
            # An ASGI server closes the connection without ending the body when the app raises.
            raise
        finally:
            client.stop()
            _finish(exchange, response, snapshot)

    def _exchange(self, scope: Scope) -> Exchange:
        """The exchange for an ASGI scope."""
        request = Request(
            scope.get("method", "GET"), "", scope["query_string"], Headers(list(scope["headers"]))
        )
        request.http_version, request.scheme = scope["http_version"], scope["scheme"]
        client, server = scope.get("client"), scope.get("server")
        if client:
            request.peer = request.client = client[0]
        if server:
            request.port = server[1] or 0
        request.certificate = scope.get("extensions", {}).get("lockgate.certificate")
        exchange = Exchange(request, self._monotonic())
        exchange.task = asyncio.current_task()
        return exchange

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect, always the first message
        snapshot = self._snapshot
        scope["scheme"] = "https" if scope["scheme"] == "wss" else "http"
        exchange = self._exchange(scope)
        exchange.subprotocols = list(scope.get("subprotocols") or ())
        client = _AsgiClient(exchange, receive)
        snapshot.active += 1
        response: Response | None = None
        try:
            handler = _route(exchange, snapshot, scope["raw_path"])
            try:
                response = await handler(exchange)
            except Exception as failure:  # noqa: BLE001 - whatever it is, the client gets an answer
                response = exchange.refuse(_known(exchange, failure))
            client.stop()
            exchange.response_status = response.status
            headers = _reply_headers(exchange, response)
            if (tunnel := response.tunnel) is None:
                await _deny(exchange, response, headers, scope, send)
            else:
                accept = {"type": "websocket.accept", "subprotocol": tunnel.subprotocol}
                await send({**accept, "headers": headers})
                await tunnel.run(client.receive, send)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                raise
            exchange.fail(ClientError(CLIENT_DISCONNECTED))
        finally:
            client.stop()
            _finish(exchange, response, snapshot)


def _route(exchange: Exchange, snapshot: Snapshot, raw_path: bytes) -> Handler:
    """Settle who asks for what, and find the chain that answers it."""
    request = exchange.request
    headers = request.headers
    exchange.generation = snapshot.generation
    trusted = snapshot.trusted_proxies
    if trusted is not None:
        seen = trusted.resolve(request.peer, headers)
        request.client = seen.ip
        request.scheme = seen.scheme or request.scheme
        request.trusted = seen.trusted
    request.host = host = host_name(headers.index.get(b"host", b""))
    try:
        request.path = path = normalise(raw_path)
    except PathError as error:
        exchange.refusal = Rejection(error.kind, error.reason)
        return snapshot.unmatched
    match = snapshot.table.match(host, path, request.method, headers)
    route = match.value
    if route is None or (match.preflight and not route.answers_preflight):
        exchange.refusal = refusal_of(match)
        return snapshot.unmatched
    exchange.route = route.name
    if match.raw_params:
        exchange.params = match.params
        exchange.raw_params = match.raw_params
    return route.handler


def _known(exchange: Exchange, failure: Exception) -> GatewayError:
    """A failure with its place in the taxonomy; what has none is a bug, and logged as one."""
    if isinstance(failure, GatewayError):
        return failure
    logger.error(
        "internal error",
        exc_info=failure,
        extra={"route": exchange.route, "correlation_id": exchange.correlation_id},
    )
    return GatewayError(INTERNAL_ERROR)


# Each such field of an answer adds to what the others say.
_ADDED: Final = frozenset({b"link", b"set-cookie", b"vary", b"warning", b"www-authenticate"})


def _reply_headers(exchange: Exchange, response: Response) -> RawHeaders:
    """The answer's fields with those that policies set, which replace the upstream's own."""
    headers = response.headers
    replies = exchange.reply_headers
    if not replies:
        return headers
    both = headers + replies
    if len(dict(both)) == len(both):
        return both
    replaced = {name for name, _ in replies} - _ADDED
    return [pair for pair in headers if pair[0] not in replaced] + replies


def _take_body(cycle: Cycle, exchange: Exchange) -> None:
    request = exchange.request
    if cycle.body_complete:
        request.body = body = cycle.take_body()
        exchange.bytes_in = len(body)
    else:
        request.body = None
        request.stream = _BodyStream(exchange, cycle.receive)


async def _send(
    exchange: Exchange, response: Response, send: Send, client: _AsgiClient | None
) -> None:
    """Send an answer through ASGI, piece by piece; `send` waits while the client is slow.

    Raises GatewayError if the upstream fails in mid-body, or the deadline passes.
    """
    start: Message = {"type": "http.response.start", "status": response.status}
    start["headers"] = _reply_headers(exchange, response)
    # Trailers go to clients that asked for them, through servers that can send them.
    with_trailers = client is None and b"te" in exchange.request.headers
    if with_trailers:
        start["trailers"] = True
    body = response.body or b""
    try:
        await send(start)
        if response.stream is not None:
            async for piece in response.stream:
                exchange.bytes_out += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if client is not None:
            # From here on "disconnected" may mean no more than "the answer is complete".
            client.stop()
        exchange.bytes_out += len(body)
        await send({"type": "http.response.body", "body": body})
        if with_trailers:
            await send({"type": "http.response.trailers", "headers": response.trailers or []})
    except asyncio.CancelledError:
        if exchange.timed_out and not exchange.client_gone:
            detail = "the answer was not finished in time"
            raise GatewayError(DEADLINE_EXCEEDED, detail) from None
        raise


def _finish(exchange: Exchange, response: Response | None, snapshot: Snapshot) -> None:
    """Release what the exchange held, and tell those who asked that it has ended."""
    if response is not None:
        response.close()
    snapshot.active -= 1
    if snapshot.retired and snapshot.active == 0:
        snapshot.drained.set()
    for hook in exchange.on_finish:
        try:
            hook(exchange)
        except Exception:
            logger.exception("a finish hook failed", extra={"route": exchange.route})


class _BodyStream:
    """The request body, piece by piece, from ASGI's `receive`."""

    __slots__ = ("_done", "_ended", "_exchange", "_receive")

    def __init__(
        self, exchange: Exchange, receive: Receive, done: Callable[[], None] | None = None
    ) -> None:
        self._exchange = exchange
        self._receive = receive
        self._done = done
        self._ended = False

    def __aiter__(self) -> _BodyStream:
        return self

    async def __anext__(self) -> bytes:
        """The next piece, never empty. Raises ClientError if the client left in mid-body."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientError(CLIENT_DISCONNECTED, "the request body broke off")
            if not message.get("more_body", False):
                self._ended = True
                if self._done is not None:
                    self._done()
            piece: bytes = message.get("body", b"")
            if piece:
                self._exchange.bytes_in += len(piece)
                return piece
        raise StopAsyncIteration


class _AsgiClient:
    """The client behind another ASGI server, watched by `receive` once the body is in.

    A WebSocket's client is watched until it is answered; what it says before goes to `receive`.
    """

    __slots__ = ("_early", "_exchange", "_receive", "_watch")

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._early: list[Message] = []
        self._watch: asyncio.Task[None] | None = None
        framed = {b"content-length", b"transfer-encoding"} & exchange.request.headers.index.keys()
        if framed and exchange.subprotocols is None:
            exchange.request.body = None
            exchange.request.stream = _BodyStream(exchange, receive, self._start)
        else:
            self._start()

    def _start(self) -> None:
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while not (message := await self._receive())["type"].endswith(".disconnect"):
            self._early.append(message)
        self._exchange.abandon()

    async def receive(self) -> Message:
        return self._early.pop(0) if self._early else await self._receive()

    def stop(self) -> None:
        """Stop watching, because the answer is about to be complete."""
        if self._watch is not None:
            self._watch.cancel()


async def _deny(
    exchange: Exchange, response: Response, headers: RawHeaders, scope: Scope, send: Send
) -> None:
    """Refuse a WebSocket handshake with an HTTP answer, where the server can do that."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    stream = response.stream
    body = b"".join([piece async for piece in stream]) if stream else response.body or b""
    exchange.bytes_out = len(body)
    headers = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding")]
    headers.append((b"content-length", b"%d" % len(body)))
    start = {"type": "websocket.http.response.start", "status": response.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    # The runtime is started and closed by whoever built it; here is nothing left to do.
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
