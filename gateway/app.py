"""The edge: ASGI scope, receive and send turned into an Exchange and a Response, and back.

The only ASGI code on the data path. It runs on any ASGI server; on Lockgate's own protocol the
scope carries `extensions["lockgate"]`, the request's cycle, through which a whole answer leaves in
one write and a leaving client is noticed without a task that waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gateway.errors import (
    AMBIGUOUS_PATH,
    CLIENT_DISCONNECTED,
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    ROUTE_NOT_FOUND,
    ClientError,
    GatewayError,
    Rejection,
)
from gateway.message import Exchange, Handler, Headers, RawHeaders, Request, Response
from gateway.policies.terminal import method_not_allowed
from gateway.routing.path import PathError, normalise
from gateway.routing.table import Match, host_name
from gateway.runtime import CompiledRoute, Runtime, Snapshot

if TYPE_CHECKING:
    from gateway.server.cycle import Cycle

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("gateway")


class Gateway:
    """The ASGI application. It holds nothing but the runtime whose current snapshot it serves."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._monotonic = runtime.clock.monotonic

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

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        snapshot = self._runtime.snapshot
        extensions = scope.get("extensions")
        cycle: Cycle | None = extensions.get("lockgate") if extensions else None
        headers = Headers(scope["headers"], cycle.head.index if cycle is not None else None)
        exchange, handler = self._open(scope, snapshot, headers)
        exchange.task = asyncio.current_task()
        client = None
        if cycle is not None:
            _attach(cycle, exchange, receive)
        else:
            client = _AsgiClient(exchange, receive)
        snapshot.active += 1
        response: Response | None = None
        try:
            response = await _run(handler, exchange)
            exchange.response_status = response.status
            if cycle is not None and response.body is not None:
                exchange.bytes_out = len(response.body)
                cycle.respond(
                    response.status, response.headers + exchange.reply_headers, response.body
                )
            else:
                await _send(exchange, response, send, cycle, client)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                raise
            exchange.fail(ClientError(CLIENT_DISCONNECTED))
        except GatewayError as failure:
            # The answer had begun: all that is left is to cut it, so that the client can tell.
            exchange.fail(failure)
            _cut(cycle, failure)
        finally:
            if cycle is not None:
                cycle.on_disconnect = None
            if client is not None:
                client.stop()
            if response is not None:
                response.close()
            _finish(exchange)
            snapshot.release()

    def _open(
        self, scope: Scope, snapshot: Snapshot, headers: Headers
    ) -> tuple[Exchange, Handler]:
        """The exchange for a scope, and the chain that answers it."""
        started = self._monotonic()
        client = scope.get("client")
        peer = address = client[0] if client else ""
        scheme = scope["scheme"]
        host = headers.get(b"host") or b""
        trusted = snapshot.trusted_proxies
        if trusted is not None:
            seen = trusted.resolve(peer, headers)
            address = seen.ip
            scheme = seen.scheme or scheme
        method = scope.get("method", "GET")
        server = scope.get("server")
        request = Request(
            method,
            "",
            scope["query_string"],
            headers,
            scheme=scheme,
            host=host_name(host),
            client=address,
            peer=peer,
            port=(server[1] or 0) if server else 0,
            http_version=scope["http_version"],
        )
        request.trusted = trusted is not None and seen.trusted
        exchange = Exchange(request, started)
        exchange.generation = snapshot.generation
        try:
            request.path = path = normalise(scope["raw_path"])
        except PathError as error:
            exchange.refusal = Rejection(error.kind, error.reason)
            return exchange, snapshot.unmatched
        match = snapshot.table.match(request.host, path, method, headers)
        route = match.value
        if route is None or (match.preflight and not route.answers_preflight):
            exchange.refusal = _refusal(match)
            return exchange, snapshot.unmatched
        exchange.route = route.name
        exchange.params = match.params
        exchange.raw_params = match.raw_params
        return exchange, route.handler

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect, always the first message
        snapshot = self._runtime.snapshot
        scope["scheme"] = "https" if scope["scheme"] == "wss" else "http"
        exchange, handler = self._open(scope, snapshot, Headers(scope["headers"]))
        exchange.task = asyncio.current_task()
        exchange.subprotocols = list(scope.get("subprotocols") or ())
        snapshot.active += 1
        response: Response | None = None
        try:
            response = await _run(handler, exchange)
            exchange.response_status = response.status
            headers = response.headers + exchange.reply_headers
            if response.tunnel is None:
                await _deny(exchange, response, headers, scope, send)
            else:
                accept = {"type": "websocket.accept", "headers": headers}
                await send({**accept, "subprotocol": response.tunnel.subprotocol})
                await response.tunnel.run(receive, send)
        finally:
            if response is not None:
                if response.tunnel is not None:
                    response.tunnel.abort()
                response.close()
            _finish(exchange)
            snapshot.release()


def _refusal(match: Match[CompiledRoute]) -> Rejection:
    if match.ambiguous:
        return Rejection(AMBIGUOUS_PATH, "decoded once more, the path leads elsewhere")
    if match.allowed:
        return method_not_allowed(match.allowed)
    return Rejection(ROUTE_NOT_FOUND)


async def _run(handler: Handler, exchange: Exchange) -> Response:
    """The chain's answer; failures become problems here, and only here."""
    try:
        return await handler(exchange)
    except GatewayError as failure:
        return exchange.refuse(failure)
    except Exception:
        logger.exception(
            "internal error",
            extra={"route": exchange.route, "correlation_id": exchange.correlation_id},
        )
        return exchange.refuse(GatewayError(INTERNAL_ERROR))


def _attach(cycle: Cycle, exchange: Exchange, receive: Receive) -> None:
    """Give the exchange what the request's cycle on the lean protocol offers."""
    cycle.on_disconnect = exchange.abandon
    exchange.client_informational = cycle.informational
    if cycle.head.length == 0:
        return
    if cycle.body_complete:
        exchange.request.body = body = cycle.take_body()
        exchange.bytes_in = len(body)
        return
    exchange.request.body = None
    exchange.request.stream = _BodyStream(exchange, receive)


async def _send(
    exchange: Exchange,
    response: Response,
    send: Send,
    cycle: Cycle | None,
    client: _AsgiClient | None,
) -> None:
    """Send an answer through ASGI, piece by piece; `send` waits while the client is slow.

    Raises GatewayError if the upstream fails in mid-body, or the deadline passes.
    """
    headers = response.headers + exchange.reply_headers
    start: Message = {"type": "http.response.start", "status": response.status}
    start["headers"] = headers
    with_trailers = cycle is not None and b"te" in exchange.request.headers
    if with_trailers:
        start["trailers"] = True
    await send(start)
    body = response.body or b""
    if response.stream is not None:
        try:
            async for piece in response.stream:
                exchange.bytes_out += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except asyncio.CancelledError:
            if exchange.timed_out and not exchange.client_gone:
                raise GatewayError(DEADLINE_EXCEEDED, "the answer was not finished in time") from None
            raise
    if client is not None:
        # From here on "disconnected" may mean no more than "the answer is complete".
        client.stop()
    exchange.bytes_out += len(body)
    await send({"type": "http.response.body", "body": body})
    if with_trailers:
        await send({"type": "http.response.trailers", "headers": response.trailers or []})


def _cut(cycle: Cycle | None, failure: GatewayError) -> None:
    if cycle is None:
        # An ASGI server closes the connection without ending the body when the app raises.
        raise failure
    cycle.abort()


def _finish(exchange: Exchange) -> None:
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
    """The client behind an ASGI server other than our own: a leaving one is seen by `receive`.

    Only one place may call `receive` at a time, so the watch begins when the body has been read.
    """

    __slots__ = ("_exchange", "_receive", "_watch")

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        headers = exchange.request.headers
        if b"content-length" in headers or b"transfer-encoding" in headers:
            exchange.request.body = None
            exchange.request.stream = _BodyStream(exchange, receive, self._start)
        else:
            self._start()

    def _start(self) -> None:
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._exchange.abandon()

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
    body = response.body
    if body is None:
        body = b"".join([piece async for piece in response.stream or _nothing()])
    exchange.bytes_out = len(body)
    headers = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding")]
    headers.append((b"content-length", b"%d" % len(body)))
    start = {"type": "websocket.http.response.start", "status": response.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _lifespan(receive: Receive, send: Send) -> None:
    # The runtime is started and closed by whoever built it; here is nothing left to do.
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
