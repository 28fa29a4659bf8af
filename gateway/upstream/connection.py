"""One HTTP/1.1 connection to a target, which carries one exchange at a time.

Rules of this file: every callback leaves the connection in one of four states; whatever ends an
exchange goes through `_complete` or `close`, once, so that slots and counters always come back. An
answer that arrives whole in one read resolves one future and makes no stream. Where messages begin
and end is decided by `reading` and `gateway.http1`, which connection is used by the pool, whether
to try again by the client.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    ATTEMPT_TIMEOUT,
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
from gateway.http1.head import MalformedMessage, ResponseHead, parse_response_head
from gateway.message import Exchange, Response
from gateway.upstream.body import ResponseBody
from gateway.upstream.headers import peer_keep_alive, response_headers, response_trailers
from gateway.upstream.link import Link
from gateway.upstream.reading import (
    MAX_FIELDS,
    MAX_HEAD,
    BodyReader,
    HeadTooLarge,
    PartialHead,
    check_interim,
)
from gateway.upstream.repeat import StaleConnection

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool
    from gateway.upstream.upload import Upload

# A request body above this size is written beside its head instead of being copied behind it.
_COPY: Final = 64 * 1024

_IDLE: Final = 0
_HEAD: Final = 1
_BODY: Final = 2
_CLOSED: Final = 3


class UpstreamConnection(Link):
    """A connection in a pool. `expires` is when an idle one is too old, on the pool's clock.

    `used` tells a connection that carried an exchange from a new one. `retired` marks one that must
    not be used again. `keep_alive` is how long it may idle, in seconds.
    """

    __slots__ = ("_bodiless", "_body", "_exchange", "_informational", "_method", "_partial",
                 "_pool", "_response", "_since", "_state", "_stream", "_upload", "_waiter",
                 "_watched", "expires", "keep_alive", "now", "retired", "target",
                 "used")  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.body_idle, pool.batch)
        self._pool = pool
        self.target = pool.target
        self.now = pool.clock.monotonic
        self.expires = 0.0
        self.used = self.retired = False
        self.keep_alive = pool.keep_alive
        self._state = _IDLE
        self._method = ""
        self._exchange: Exchange | None = None
        self._since = 0.0
        self._informational = 0
        self._partial: PartialHead | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._body: BodyReader | None = None
        self._response: Response | None = None
        self._stream: ResponseBody | None = None
        self._bodiless = False
        self._watched = False
        self._upload: Upload | None = None

    # What the pool uses

    @property
    def is_idle(self) -> bool:
        """Whether it is open and carries no exchange."""
        return self._state == _IDLE

    # What the client uses

    def begin(
        self, exchange: Exchange, method: str, head: bytes, body: bytes | None, since: float
    ) -> asyncio.Future[Response]:
        """Send a request on an idle connection; the future is the answer to it.

        `body` is None if it follows from an upload. `since` is when the exchange began to wait for
        this upstream, and its attempt timeout counts from there. The future fails with
        UpstreamError; whoever stops awaiting it calls `abandon`.
        """
        self._state = _HEAD
        self.target.active += 1
        self._exchange = exchange
        self._method = method
        self._since = since
        timeout = exchange.attempt_timeout
        if timeout is not None or self._limit is not None:
            self._bound(inf if timeout is None else since + timeout, self.now)
        self._waiter = waiter = self._loop.create_future()
        transport = self._transport
        assert transport is not None
        if transport.is_closing() or (body and len(body) > _COPY and self.has_input()):
            # It broke after it was handed over; connection_lost is on its way.
            self._lose_unanswered(UPSTREAM_RESET, sent=False)
        elif body is None:
            transport.write(head)
        elif len(body) > _COPY:
            transport.writelines((head, body))
        else:
            self._write_soon(head + body if body else head)
        return waiter

    def _late(self) -> None:
        exchange = self._exchange
        if self._state == _HEAD and exchange is not None:
            self.fail(ATTEMPT_TIMEOUT, f"no answer within {exchange.attempt_timeout:g} s")

    def attach(self, upload: Upload) -> None:
        """Tie the sending of the request's body to this exchange."""
        self._upload = upload

    def abandon(self, waiter: asyncio.Future[Response]) -> bool:
        """The answer is not awaited any more: cut the connection unless it is another's by now.

        True if no answer had begun.
        """
        if self._waiter is waiter:
            self.close(abort=True)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().close()
            return False
        return True

    # What the two bodies use

    def drop(self, stream: ResponseBody) -> None:
        """The rest of this body is not wanted."""
        if self._stream is stream:
            self.close(abort=True)

    def resume(self, stream: ResponseBody) -> None:
        """The reader of this body has caught up."""
        if self._stream is stream:
            self._resume_reading()

    def fail_upload(self, upload: Upload, error: GatewayError) -> None:
        """The request's body broke off. The connection is cut, so that it can't look whole."""
        if self._upload is upload:
            self._lose(error)

    # Callbacks of the transport

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            if self._unwritten:
                # It can't be the answer to what was not sent.
                self._lose_unanswered(INVALID_RESPONSE, sent=False)
            else:
                self._read_head(data)
        elif state == _BODY:
            self._read_body(data)
        else:
            # It must never be read as the answer to the next request.
            self.close(abort=True)

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    # Reading

    def _read_head(self, data: bytes) -> None:
        try:
            stop = data.find(b"\r\n\r\n") + 4
            if self._partial is not None or stop == 3:
                self._partial = self._partial or PartialHead()
                if not (data := self._partial.add(data)):
                    return
                self._partial = None
                stop = data.find(b"\r\n\r\n") + 4
            if stop > MAX_HEAD:
                raise HeadTooLarge
            head = parse_response_head(data[:stop], self._method)
            if len(head.headers) > MAX_FIELDS:
                raise HeadTooLarge
            if head.status < 200:
                self._read_informational(head, data[stop:])
            else:
                self._answer(head, data, stop)
        except MalformedMessage as error:
            self.fail(INVALID_RESPONSE, error.reason)
        except HeadTooLarge:
            detail = f"more than {MAX_HEAD} bytes or {MAX_FIELDS} fields"
            self.fail(RESPONSE_HEADERS_TOO_LARGE, detail)

    def _read_informational(self, head: ResponseHead, rest: bytes) -> None:
        self._informational += 1
        check_interim(head.status, self._informational)
        exchange = self._exchange
        if head.status != 100 and exchange is not None and exchange.client_informational:
            exchange.client_informational(head.status, response_headers(head))
        if rest and self._state == _HEAD:
            self._read_head(rest)

    def _answer(self, head: ResponseHead, data: bytes, stop: int) -> None:
        """The final head is here: resolve the future, with the whole body if that is here too."""
        waiter, exchange = self._waiter, self._exchange
        assert waiter is not None
        assert exchange is not None
        if waiter.done():
            # Cancelled, and the task that awaited it has not run yet.
            self.close(abort=True)
            return
        length = head.length
        size = len(data) - stop
        body: BodyReader | None = None
        if 0 <= length <= size:
            payload = data[stop:] if length == size else data[stop : stop + length]
        else:
            body = BodyReader(length)
            payload = body.feed(data[stop:])
        now = self.now()
        exchange.upstream_seconds += now - self._since
        exchange.upstream_status = status = head.status
        if b"keep-alive" in head.index:
            self.keep_alive = peer_keep_alive(head.index[b"keep-alive"], self._pool.keep_alive)
        response = Response(status, response_headers(head), payload)
        if body is None:
            if not length:
                self._bodiless = self._method == "HEAD" or status in (204, 304)
            self._complete(head.keep_alive and length == size, now)
        elif body.done:
            response.trailers = response_trailers(body.trailers) or None
            self._complete(head.keep_alive and body.clean, now)
        else:
            self._stream_answer(head, body, response, exchange)
        waiter.set_result(response)

    def _stream_answer(
        self, head: ResponseHead, body: BodyReader, response: Response, exchange: Exchange
    ) -> None:
        """The body goes on: what is here of it becomes the first piece of a stream."""
        self._state = _BODY
        self._waiter = None
        self._body = body
        self._response = response
        self.retired = self.retired or not head.keep_alive
        stream = self._stream = ResponseBody(self, exchange)
        first, response.body, response.stream = response.body, None, stream
        response.on_close(stream.close)
        if self._upload is not None and head.status >= 300:
            # A refusal: the rest of the request's body is not wanted.
            self._upload.stop()
        # Events come when they come: the silence of an event stream is no fault.
        kind = head.index.get(b"content-type", b"")
        self._watched = not kind.lower().startswith(b"text/event-stream")
        if self._watched:
            self._start_watch()
        if first and stream.put(first):
            self._pause_reading()

    def _read_body(self, data: bytes) -> None:
        stream, body, response = self._stream, self._body, self._response
        if stream is None or body is None or response is None:
            return
        self._moved()
        try:
            piece = body.feed(data)
        except MalformedMessage as error:
            self.fail(INVALID_RESPONSE, error.reason)
            return
        if piece and stream.put(piece):
            self._pause_reading()
        if body.done:
            if body.trailers:
                response.trailers = response_trailers(body.trailers)
            self._complete(body.clean and not self.retired, self.now())
            stream.end()

    # Ends

    def _complete(self, reusable: bool, now: float) -> None:
        """The answer is whole: give the connection back, or close it."""
        self.target.ended(self._exchange)
        self._state = _IDLE
        self.used = True
        self._waiter = self._exchange = None
        if self._stream is not None:
            self._stream = self._response = self._body = None
        upload = self._upload
        if upload is not None:
            self._upload = None
            if not upload.sent:
                reusable = False
                upload.stop()
        if not reusable:
            self.close(abort=upload is not None)
            return
        if self._reading_paused:
            self._resume_reading()
        self._informational = 0
        if self._bodiless:
            self._bodiless = False
            self._pool.rest(self)
        else:
            self._pool.release(self, now)

    def _ended(self, exc: Exception | None) -> None:
        """The upstream closed the connection, or it broke."""
        state = self._state
        if state == _BODY:
            stream, body = self._stream, self._body
            if stream is not None and body is not None and body.until_close and exc is None:
                self._complete(False, self.now())
                stream.end()
            else:
                self.fail(RESPONSE_INCOMPLETE, "the connection was closed in mid-body")
        elif state == _HEAD:
            if self._partial is not None or self._informational:
                self.fail(RESPONSE_INCOMPLETE, "the connection was closed within the header")
            else:
                self._lose_unanswered(UPSTREAM_RESET, sent=not self._unwritten)
        elif state == _IDLE:
            self.close()

    def fail(self, kind: ErrorCode, detail: str) -> None:
        """Cut the connection because of this; the exchange on it fails with UpstreamError."""
        self._lose(self.target.error(kind, detail))

    def _lose_unanswered(self, kind: ErrorCode, *, sent: bool) -> None:
        detail = "before an answer began" if sent else "before anything was sent"
        make = StaleConnection if self.used or not sent else UpstreamError
        self._lose(self.target.error(kind, detail, make, sent=sent))

    def _lose(self, error: GatewayError) -> None:
        """Cut the connection and tell whoever waits on it why."""
        waiter, stream = self._waiter, self._stream
        if self._state == _CLOSED:
            return
        self.close(abort=True)
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        elif stream is not None:
            if isinstance(error, UpstreamError):
                self.target.failed(error.kind, error.detail, self._pool.clock.wall())
            stream.end(error)

    def close(self, abort: bool = False) -> None:
        """Leave every state for the last one. What was held is given back here, and only once.

        With `abort`, what was not sent yet is dropped. Nobody who waits is told; see `_lose`.
        """
        state = self._state
        if state == _CLOSED:
            return
        self._state = _CLOSED
        if state != _IDLE:
            self.target.active -= 1
        self._waiter = self._stream = self._response = self._exchange = self._body = None
        self._partial = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        self._disconnect(abort)
        self._pool.forget(self)

    def _stalled(self) -> bool:
        still = f"for {self._body_idle:g} s"
        if self._writing_paused:
            if self._write_moved():
                return True
            self.fail(UPSTREAM_WRITE_TIMEOUT, f"nothing was read {still}")
        elif self._state == _BODY and self._watched:
            if self._reading_paused:
                # It is the client who is slow, and the server watches over that.
                return True
            self.fail(UPSTREAM_TIMEOUT, f"nothing was sent {still}")
        return False
