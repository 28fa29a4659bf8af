"""HTTP/1.1 on one connection: reads requests off the socket and answers them in order.

One state (`_phase`), one buffer. What a head means is decided in `http1/`, the exchange itself is a
Cycle, timers and closing are in `connection.py`. An idle connection holds no buffer and no objects
of its own beside its timer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.errors import CONNECTION_LIMIT, REQUEST_TIMEOUT, ErrorCode
from gateway.http1.head import MalformedMessage, RequestHead, parse_request_head
from gateway.http1.target import settle_target
from gateway.server import refusal, upgrade
from gateway.server.attendant import Attendant
from gateway.server.body import HIGH_WATER, RequestBody
from gateway.server.connection import (
    BODY,
    BUSY,
    DRAIN,
    HEAD,
    LINGER,
    NEVER,
    Connection,
)
from gateway.server.cycle import Cycle

if TYPE_CHECKING:
    from gateway.server.factory import HttpFactory

# Requests behind the current one: read on up to here, then let the client wait.
_PIPELINE_BYTES: Final = 64 * 1024
# The rest of a body that nobody wants: up to here cheaper to read than to open a new connection.
_DRAIN_BYTES: Final = 64 * 1024


class HttpProtocol(Connection):
    """HTTP/1.1 for one connection; made by HttpFactory."""

    __slots__ = ("_body", "_buffer", "_position", "attendant")

    def __init__(self, shared: HttpFactory) -> None:
        super().__init__(shared)
        # A head that has not ended; or, behind `_position`, requests that wait for their turn.
        self._buffer = b""
        self._position = 0
        self._body: RequestBody | None = None
        self.attendant = Attendant(shared)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away if there are too many."""
        super().connection_made(transport)
        shared = self.shared
        if len(shared.state.connections) > shared.settings.connections:
            self.refuse(CONNECTION_LIMIT, "the gateway has too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        super().connection_lost(exc)
        self.attendant.close()
        self._buffer = b""
        self._body = None

    def shutdown(self) -> None:
        """uvicorn is draining: an exchange under way is the last one, and an idle one closes."""
        self.shared.draining = True
        if self._phase == HEAD and not self._buffer:
            self._close()

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Bytes came. Never raises, whatever they are."""
        phase = self._phase
        if phase == HEAD:
            if self._buffer:
                data = self._buffer + data
            self._read_head(data, 0)
        elif phase in (BODY, DRAIN):
            self._read_body(data)
        elif phase == BUSY:
            self._buffer += data
            if len(self._buffer) - self._position > _PIPELINE_BYTES:
                self._pause_reading()
        elif phase == LINGER:
            self._discard_lingering(len(data))

    def _read_head(self, data: bytes, start: int) -> None:
        """Begin the request at `start`, or keep what there is of it until the rest comes."""
        settings = self.shared.settings
        # One empty line before a request line is ignored (RFC 9112 section 2.2).
        begin = start + 2 if data.startswith(b"\r\n", start) else start
        try:
            end = data.find(b"\r\n\r\n", begin) + 4
            if end == 3:
                self._keep_partial(data, start, begin)
                return
            if end - begin > settings.target_bytes:
                refusal.check_sizes(data, begin, end, settings)
            head = parse_request_head(data[begin:end] if begin or end != len(data) else data)
            if len(head.target) > settings.target_bytes:
                raise MalformedMessage("the request target is too long", 414)
            if len(head.headers) > settings.header_count:
                raise MalformedMessage("the request has too many header fields", 431)
            settle_target(head, self.secure)
            self._begin(head, data, end)
        except MalformedMessage as error:
            self.refuse(refusal.kind_of(error), error.reason, data.startswith(b"HEAD ", begin))
        except Exception as failure:
            self.shared.logger.error("exception in the server protocol", exc_info=failure)
            self.cut(reset=False)

    def _keep_partial(self, data: bytes, start: int, begin: int) -> None:
        seen = len(self._buffer)
        refusal.check_partial(data, begin, seen, self.shared.settings)
        if not seen:
            # The first bytes of this head: from here the whole of it has a deadline.
            self._expire_in(self.shared.settings.headers_timeout)
        self._buffer = data[start:] if start else data

    def _begin(self, head: RequestHead, data: bytes, end: int) -> None:
        shared = self.shared
        if self._answer:
            # That of the request before: nothing of this one may be written in front of it.
            self.flush()
        if head.upgrade is not None and upgrade.is_websocket(head, shared.config):
            self._retire()
            self.attendant.close()
            upgrade.hand_over(self, head, data[end:])
            return
        body = None
        if head.length:
            body = RequestBody(head.length, shared.loop.time())
            data, end = body.feed(data[end:]) if end != len(data) else b"", 0
        if end == len(data):
            self._buffer = b""
        else:
            self._buffer, self._position = data, end
        self._expires = NEVER
        self._phase = BUSY
        self._cycle = cycle = Cycle(self, head, body)
        shared.in_flight += 1
        cycle.start()
        if body is not None and not body.done:
            self._phase = BODY
            self._body = body
            if not cycle.awaits_continue:
                self._expect_body(body)

    def _read_body(self, data: bytes) -> None:
        body, cycle = self._body, self._cycle
        assert body is not None
        try:
            rest = body.feed(data)
        except MalformedMessage as error:
            self.refuse(refusal.kind_of(error), error.reason)
            return
        if cycle is None:
            self._throw_away(body, len(data), rest)
            return
        if body.done:
            self._body = None
            self._phase = BUSY
            self._buffer, self._position = rest, 0
            self._expires = NEVER
            if self.write_paused:
                self._watch_writing()
        else:
            self._expect_body(body)
        cycle.readable()

    def _expect_body(self, body: RequestBody) -> None:
        """Read on with a deadline, or stop reading until the application has caught up."""
        if body.size > HIGH_WATER:
            self._pause_reading()
            self._expires = NEVER
            if self.write_paused:
                self._watch_writing()
        else:
            self._expire_at(body.deadline(self.shared.loop.time(), self.shared.settings))

    def _throw_away(self, body: RequestBody, size: int, rest: bytes) -> None:
        body.take()
        self._amount += size
        if body.done:
            self._body = None
            self._buffer, self._position = rest, 0
            self._next()
        elif self._amount > _DRAIN_BYTES:
            self._linger()
        else:
            self._expire_at(body.deadline(self.shared.loop.time(), self.shared.settings))

    # What the cycle asks for.

    def body_taken(self) -> None:
        """The application has taken what there was of the body."""
        body = self._body
        if body is not None and self._paused_at and self._phase == BODY:
            body.forgive(self._resume_reading())
            self._expect_body(body)

    def body_awaited(self) -> None:
        """A 100 was sent: from now on the client owes the body."""
        body = self._body
        if body is not None and self._phase == BODY:
            body.restart(self.shared.loop.time())
            self._expect_body(body)

    @property
    def is_open_for_more(self) -> bool:
        """Whether nothing stands in the way of a next request: the usual case, told quickly."""
        return self._phase == BUSY and not self.shared.draining

    def may_continue(self) -> bool:
        """Whether the connection can carry another request after the one under way."""
        if self._phase != BODY or self._body is None or self._cycle is None:
            return True
        if self._cycle.awaits_continue:
            return False  # nobody knows whether the client will send the body or the next request
        left = self._body.left
        return left is None or left <= _DRAIN_BYTES

    def answered(self, cycle: Cycle) -> None:
        """The last byte of the answer was written."""
        shared = self.shared
        shared.in_flight -= 1
        shared.state.total_requests += 1
        self._cycle = None
        cycle.readable()
        last = not cycle.keep_alive or shared.draining
        if self._phase == BODY:
            body = self._body
            assert body is not None
            body.take()
            if last:
                self._linger()
                return
            self._phase = DRAIN
            self._amount = 0
            body.forgive(self._resume_reading())
            self._expire_at(body.deadline(shared.loop.time(), shared.settings))
        elif not last:
            self._next()
        elif self._buffer:
            self._buffer = b""
            self._linger()
        else:
            self._close()

    def _next(self) -> None:
        """Turn to the request that waits, or wait for one."""
        if self.write_paused:
            # A client that sends requests and reads no answers must not fill the memory.
            self._phase = BUSY
            self._watch_writing()
            return
        self._phase = HEAD
        shared = self.shared
        if not self._buffer:
            if shared.draining:
                self._close()
                return
            self._expires = expires = shared.loop.time() + shared.settings.keep_alive_timeout
            if self._timer is None or expires < self._timer_at:
                self._expire_at(expires)
            return
        data, start = self._buffer, self._position
        self._buffer, self._position = b"", 0
        self._resume_reading()
        self._read_head(data, start)

    # Flow control and time.

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer is made."""
        self.write_paused = True
        if self._phase == BUSY or self._paused_at:
            self._watch_writing()

    def resume_writing(self) -> None:
        """There is room again in the transport's buffer."""
        self.write_paused = False
        if self._phase == BUSY or self._paused_at:
            self._expires = NEVER
        if self._cycle is not None:
            self._cycle.writable()
        elif self._phase == BUSY:
            self._next()

    def expired(self) -> None:
        """The current deadline has passed: what it was for depends on the phase."""
        phase = self._phase
        if phase == HEAD:
            if self._buffer:
                self.refuse(REQUEST_TIMEOUT, "the request header did not arrive in time")
            else:
                self._close()
        elif phase == BODY and not self._paused_at:
            self.refuse(REQUEST_TIMEOUT, "the request body did not arrive in time")
        elif phase == DRAIN:
            self._linger()
        elif phase == LINGER:
            self._close()
        else:
            self._check_writing()

    def refuse(self, kind: ErrorCode, detail: str, bodiless: bool = False) -> None:
        """Answer with a problem and close, or cut an answer that has begun already."""
        cycle = self._cycle
        self.flush()
        self._leave(kind)
        self.report(kind, detail)
        self._buffer = b""
        if cycle is not None and cycle.started:
            self.cut(reset=cycle.until_close)
            return
        if self._phase == DRAIN:
            self._linger()
            return
        if cycle is not None:
            bodiless = cycle.head.method == "HEAD"
        self.transport.write(refusal.encode(kind, detail, self.shared.date_line(), bodiless))
        self._linger()
