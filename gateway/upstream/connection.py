"""One HTTP/1.1 connection to a target: an asyncio protocol that carries one exchange at a time.

Rules of this file: every callback leaves the connection in one of four states; whatever ends an
exchange goes through `_complete` or `_lose`, once, so that slots and counters always come back. An
answer that arrives whole in one read resolves one future and makes no stream. What is a legal head
is decided by `gateway.http1`, which connection is used by the pool, whether to try again by the
client.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final, cast

from gateway.errors import (
    INVALID_RESPONSE,
    RESPONSE_HEADERS_TOO_LARGE,
    RESPONSE_INCOMPLETE,
    UPSTREAM_RESET,
    UPSTREAM_TIMEOUT,
    UPSTREAM_WRITE_TIMEOUT,
    ErrorCode,
    GatewayError,
    UpstreamError,
)
from gateway.http1.chunked import ChunkedDecoder
from gateway.http1.head import (
    CHUNKED,
    UNTIL_CLOSE,
    MalformedMessage,
    ResponseHead,
    parse_response_head,
)
from gateway.message import Exchange, Response
from gateway.upstream.body import ResponseBody
from gateway.upstream.headers import peer_keep_alive, response_headers, response_trailers

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool
    from gateway.upstream.upload import Upload

MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 256
# Interim answers to one request (103 and the like); more is a flood.
MAX_INFORMATIONAL: Final = 16
# A request body above this size is written beside its head instead of being copied behind it.
_COPY: Final = 64 * 1024
_WRITE_HIGH: Final = 256 * 1024

_IDLE, _HEAD, _BODY, _CLOSED = range(4)


class StaleConnection(UpstreamError):
    """A reused connection was closed before the first byte of an answer: it may have been idle for
    too long for the upstream, which then never saw the request."""


class UpstreamConnection(asyncio.Protocol):
    """A connection in a pool. `expires` is when an idle one is too old, on the pool's clock.

    `used` tells a connection that carried an exchange from a new one. `retired` marks one that must
    not be used again. `peer` is the address it leads to, "" for a unix socket. `peer_keep_alive` is
    how long the upstream said it keeps an idle connection, in seconds.
    """

    __slots__ = (
        "_bodiless",
        "_buffer",
        "_decoder",
        "_exchange",
        "_informational",
        "_left",
        "_loop",
        "_method",
        "_moved_at",
        "_poll",
        "_pool",
        "_reading_paused",
        "_response",
        "_since",
        "_state",
        "_stream",
        "_timer",
        "_transport",
        "_unsent",
        "_upload",
        "_waiter",
        "_write_waiter",
        "_writing_paused",
        "expires",
        "now",
        "peer",
        "peer_keep_alive",
        "retired",
        "target",
        "used",
    )  # fmt: skip

    _transport: asyncio.Transport
    _loop: asyncio.AbstractEventLoop

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.target = pool.target
        self.now = pool.clock.monotonic
        self.expires = 0.0
        self.used = False
        self.retired = False
        self.peer = ""
        self.peer_keep_alive = pool.keep_alive
        self._poll: select.poll | None = None
        self._state = _IDLE
        self._buffer: bytearray | None = None
        self._method = ""
        self._exchange: Exchange | None = None
        self._since = 0.0
        self._informational = 0
        self._waiter: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._stream: ResponseBody | None = None
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._bodiless = False
        self._upload: Upload | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved_at = 0.0
        self._reading_paused = False
        self._writing_paused = False
        self._write_waiter: asyncio.Future[None] | None = None
        self._unsent = 0

    # What the pool sees

    @property
    def is_idle(self) -> bool:
        """Whether it carries no exchange and is open."""
        return self._state == _IDLE

    def has_input(self) -> bool:
        """Whether bytes, an end or an error wait on it, which nobody asked for while it idled."""
        return self._state != _IDLE or (self._poll is not None and bool(self._poll.poll(0)))

    def close(self) -> None:
        """Close an idle connection politely."""
        self._shut(abort=False)

    def give_up(self) -> None:
        """Close a connection that nobody waits for any more, made or not yet made."""
        self._shut(abort=True)

    def cut(self, reason: str) -> None:
        """Close it whatever it carries; the exchange fails with UPSTREAM_RESET."""
        self._fail(UPSTREAM_RESET, reason)

    # What the client does

    def begin(
        self, exchange: Exchange, method: str, head: bytes, body: bytes, since: float
    ) -> asyncio.Future[Response]:
        """Send a request on an idle connection; the future is the answer to it.

        `since` is when the exchange began to wait for this upstream. The future fails with
        UpstreamError; whoever stops awaiting it calls `abandon`.
        """
        self._state = _HEAD
        self.target.active += 1
        self._exchange = exchange
        self._method = method
        self._since = since
        self._waiter = waiter = self._loop.create_future()
        if len(body) <= _COPY:
            self._transport.write(head + body if body else head)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return waiter

    def abandon(self, waiter: asyncio.Future[Response]) -> None:
        """The answer is not awaited any more: cut the connection unless it is another's by now."""
        if self._waiter is waiter:
            self._shut(abort=True)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().close()

    def drop(self, stream: ResponseBody) -> None:
        """The rest of this body is not wanted."""
        if self._stream is stream:
            self._shut(abort=True)

    def resume(self, stream: ResponseBody) -> None:
        """This body's reader has caught up."""
        if self._stream is stream and self._reading_paused:
            self._reading_paused = False
            self._moved_at = self._loop.time()
            self._transport.resume_reading()

    # What an upload does

    def attach(self, upload: Upload) -> None:
        """Tie the sending of the request's body to this exchange."""
        self._upload = upload

    async def send(self, *pieces: bytes) -> None:
        """Write, and wait while the upstream is slow to read."""
        for piece in pieces:
            self._transport.write(piece)
        if self._writing_paused and self._state != _CLOSED:
            self._write_waiter = self._loop.create_future()
            try:
                await self._write_waiter
            finally:
                self._write_waiter = None

    def fail_upload(self, error: GatewayError) -> None:
        """The request's body broke off. The connection is cut, so that it can't look whole."""
        self._lose(error)

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By duck type: uvloop's transports don't derive from asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        if self._state == _CLOSED:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        socket = transport.get_extra_info("socket")
        if socket is not None:
            self._poll = select.poll()
            self._poll.register(socket.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._read_head(data)
        elif state == _BODY:
            self._read_body(data)
        else:
            # Nobody asked for this. It must not be read as the answer to the next request.
            self._shut(abort=True)

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._watch()

    def resume_writing(self) -> None:
        self._writing_paused = False
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Reading

    def _read_head(self, data: bytes) -> None:
        buffer = self._buffer
        if buffer is None:
            stop = data.find(b"\r\n\r\n")
            if stop < 0:
                self._buffer = bytearray(data)
                self._check_partial(data)
                return
        else:
            # The end may straddle the pieces; what was searched before is not searched again.
            start = max(0, len(buffer) - 3)
            buffer += data
            stop = buffer.find(b"\r\n\r\n", start)
            if stop < 0:
                self._check_partial(bytes(buffer[start:]))
                return
            data = bytes(buffer)
            self._buffer = None
        stop += 4
        if stop > MAX_HEAD:
            self._fail(RESPONSE_HEADERS_TOO_LARGE, f"more than {MAX_HEAD} bytes")
            return
        try:
            head = parse_response_head(data[:stop], self._method)
            if len(head.headers) > MAX_FIELDS:
                self._fail(RESPONSE_HEADERS_TOO_LARGE, f"more than {MAX_FIELDS} fields")
            elif head.status < 200:
                self._read_informational(head, data[stop:])
            else:
                self._answer(head, data, stop)
        except MalformedMessage as error:
            self._fail(INVALID_RESPONSE, error.reason)

    def _check_partial(self, tail: bytes) -> None:
        """Refuse what can't become a head any more, instead of waiting for the rest of it."""
        buffer = self._buffer
        assert buffer is not None
        if len(buffer) > MAX_HEAD:
            self._fail(RESPONSE_HEADERS_TOO_LARGE, f"more than {MAX_HEAD} bytes")
        elif not buffer.startswith(b"HTTP/1."[: len(buffer)]):
            self._fail(INVALID_RESPONSE, "the status line is malformed")
        elif tail.count(b"\n", 1) != tail.count(b"\r\n"):
            self._fail(INVALID_RESPONSE, "a bare CR or LF, or a control character")

    def _read_informational(self, head: ResponseHead, rest: bytes) -> None:
        self._informational += 1
        if head.status == 101:
            self._fail(INVALID_RESPONSE, "an upgrade that nobody asked for")
            return
        if self._informational > MAX_INFORMATIONAL:
            self._fail(INVALID_RESPONSE, f"more than {MAX_INFORMATIONAL} interim answers")
            return
        exchange = self._exchange
        if head.status != 100 and exchange is not None and exchange.client_informational:
            exchange.client_informational(head.status, response_headers(head))
        if rest and self._state == _HEAD:
            self._read_head(rest)

    def _answer(self, head: ResponseHead, data: bytes, stop: int) -> None:
        """The final head is here: resolve the future, with the whole body if that is here too."""
        waiter, exchange = self._waiter, self._exchange
        assert waiter is not None and exchange is not None
        if waiter.done():
            # Cancelled, and the task that awaited it has not run yet.
            self._shut(abort=True)
            return
        now = self.now()
        length = head.length
        body: bytes | None = b""
        decoder: ChunkedDecoder | None = None
        if length >= 0:
            if len(data) - stop < length:
                body = None
            elif length:
                body = data[stop : stop + length]
            clean = len(data) - stop == length
        elif length == CHUNKED:
            decoder = ChunkedDecoder()
            body = decoder.feed(data[stop:])
            clean = not decoder.remainder
            if not decoder.done:
                self._stream_answer(head, body, decoder, now)
                return
        else:
            body = None
        if body is None:
            self._stream_answer(head, data[stop:], None, now)
            return
        exchange.upstream_seconds += now - self._since
        exchange.upstream_status = head.status
        response = Response(head.status, response_headers(head), body)
        if decoder is not None and decoder.trailers:
            response.trailers = response_trailers(decoder.trailers)
        self._bodiless = not length and (self._method == "HEAD" or head.status in (204, 304))
        self._note_keep_alive(head)
        self._complete(clean and head.keep_alive, now)
        waiter.set_result(response)

    def _stream_answer(
        self, head: ResponseHead, first: bytes, decoder: ChunkedDecoder | None, now: float
    ) -> None:
        waiter, exchange = self._waiter, self._exchange
        assert waiter is not None and exchange is not None
        exchange.upstream_seconds += now - self._since
        exchange.upstream_status = head.status
        self._state = _BODY
        self._waiter = None
        self._bodiless = False
        self._left = head.length
        self._decoder = decoder
        self._note_keep_alive(head)
        self.retired = self.retired or not head.keep_alive
        stream = self._stream = ResponseBody(self, exchange)
        response = self._response = Response(head.status, response_headers(head), None, stream)
        response.on_close(stream.close)
        if self._upload is not None and head.status >= 300:
            # A refusal: the rest of the request's body is not wanted.
            self._upload.stop()
        if head.index.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            # Events come when they come; the upstream's silence is no fault.
            self._moved_at = float("inf")
        else:
            self._watch()
        waiter.set_result(response)
        if decoder is None and first:
            self._read_body(first)
        elif first and stream.put(first):
            self._pause_reading()

    def _note_keep_alive(self, head: ResponseHead) -> None:
        if b"keep-alive" in head.index:
            self.peer_keep_alive = peer_keep_alive(head.index[b"keep-alive"], self._pool.keep_alive)

    def _read_body(self, data: bytes) -> None:
        stream = self._stream
        assert stream is not None
        if self._moved_at != float("inf"):
            self._moved_at = self._loop.time()
        decoder = self._decoder
        clean = True
        if decoder is not None:
            try:
                data = decoder.feed(data)
            except MalformedMessage as error:
                self._fail(INVALID_RESPONSE, error.reason)
                return
            done, clean = decoder.done, not decoder.remainder
        elif self._left >= 0:
            if len(data) > self._left:
                data = data[: self._left]
                clean = False
            self._left -= len(data)
            done = self._left == 0
        else:
            done = False
        if data and stream.put(data) and not done:
            self._pause_reading()
        if done:
            if decoder is not None and decoder.trailers and self._response is not None:
                self._response.trailers = response_trailers(decoder.trailers)
            self._complete(clean and not self.retired, self.now())
            stream.end()

    def _pause_reading(self) -> None:
        self._reading_paused = True
        self._transport.pause_reading()

    # Ends

    def _complete(self, reusable: bool, now: float) -> None:
        """The answer is whole: give the connection back, or close it."""
        self.target.active -= 1
        self._state = _IDLE
        self.used = True
        self._waiter = self._stream = self._response = self._exchange = self._decoder = None
        upload = self._upload
        if upload is not None:
            self._upload = None
            if not upload.sent:
                reusable = False
                upload.stop()
        if not reusable:
            self._shut(abort=False)
            return
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._informational = 0
        if self._bodiless:
            self._pool.rest(self)
        else:
            self._pool.release(self, now)

    def _ended(self, exc: Exception | None) -> None:
        """The upstream closed the connection, or it broke."""
        state = self._state
        if state == _BODY:
            if self._left == UNTIL_CLOSE and self._decoder is None and exc is None:
                stream = self._stream
                self._complete(False, self.now())
                if stream is not None:
                    stream.end()
            else:
                self._fail(RESPONSE_INCOMPLETE, "the connection was closed in mid-body")
        elif state == _HEAD:
            if self._buffer is not None or self._informational:
                self._fail(RESPONSE_INCOMPLETE, "the connection was closed within the header")
            elif self.used:
                self._lose(self._error(UPSTREAM_RESET, "before an answer began", StaleConnection))
            else:
                self._fail(UPSTREAM_RESET, "before an answer began")
        elif state == _IDLE:
            self._shut(abort=False)

    def _error(
        self, kind: ErrorCode, detail: str, make: type[UpstreamError] = UpstreamError
    ) -> UpstreamError:
        label = self.target.label
        return make(kind, f"{label}: {detail}", next_hop=label)

    def _fail(self, kind: ErrorCode, detail: str) -> None:
        self._lose(self._error(kind, detail))

    def _lose(self, error: GatewayError) -> None:
        """Cut the connection and tell whoever waits on it why."""
        waiter, stream = self._waiter, self._stream
        if self._state == _CLOSED:
            return
        self._shut(abort=True)
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        elif stream is not None:
            self.target.failed(error.kind, error.detail, self._pool.clock.wall())
            stream.end(error)

    def _shut(self, abort: bool) -> None:
        """Leave every state for the last one. What was held is given back here, and only once."""
        state = self._state
        if state == _CLOSED:
            return
        self._state = _CLOSED
        if state != _IDLE:
            self.target.active -= 1
        self._waiter = self._stream = self._response = self._exchange = self._decoder = None
        self._buffer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        transport = getattr(self, "_transport", None)
        if transport is not None:
            if abort:
                transport.abort()
            else:
                transport.close()
        self._pool.forget(self)

    # Stalls: one timer, which moves itself on when it fires too early

    def _watch(self) -> None:
        self._moved_at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._pool.body_idle, self._check_stall)

    def _check_stall(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._writing_paused:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._moved_at = now
            self._unsent = unsent
        elif self._state != _BODY:
            return
        elif self._reading_paused:
            # It is the client who is slow, and the server watches over that.
            self._moved_at = now
        left = self._moved_at + self._pool.body_idle - now
        if left > 0:
            if left != float("inf"):
                self._timer = self._loop.call_later(left, self._check_stall)
        elif self._writing_paused:
            self._fail(UPSTREAM_WRITE_TIMEOUT, f"nothing read for {self._pool.body_idle:g} s")
        else:
            self._fail(UPSTREAM_TIMEOUT, f"nothing sent for {self._pool.body_idle:g} s")
