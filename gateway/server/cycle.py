"""One request and its answer: gives the application the body and the means to answer.

Reading the socket, timeouts and closing belong to `protocol.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import INTERNAL_ERROR, ErrorCode, RawHeaders, Rejection, problem
from gateway.http1.head import RequestHead
from gateway.server import answer
from gateway.server.answer import UnsafeAnswer
from gateway.server.scope import build_scope

if TYPE_CHECKING:
    from gateway.server.body import RequestBody
    from gateway.server.protocol import HttpProtocol

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# A body piece larger than this is handed to the transport as it is, and not copied into its chunk.
_COPY_LIMIT: Final = 16 * 1024
# How the answer's body is framed.
_BODILESS: Final = frozenset({204, 205, 304})
_NO_BODY: Final = 0
_LENGTH: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3


class Cycle:
    """The exchange under way on a connection, also found at `scope["extensions"]["lockgate"]`.

    `on_disconnect` is called once if the client leaves, or is cut off, before the answer is
    `complete`; `failure` then says why if the server ended it. `keep_alive` is False if the
    connection ends with this answer.
    """

    # Defaults stand on the class, so that making a cycle sets only what every one has.
    started: bool = False
    complete: bool = False
    disconnected: bool = False
    failure: ErrorCode | None = None
    on_disconnect: Callable[[], None] | None = None
    task: asyncio.Task[None] | None = None
    _delivered: bool = False
    _expects_continue: bool = False
    _framing: int = _NO_BODY
    _left: int = 0
    _on_readable: asyncio.Future[None] | None = None
    _on_writable: asyncio.Future[None] | None = None
    _trailers_due: bool = False

    def __init__(self, protocol: HttpProtocol, head: RequestHead, body: RequestBody | None) -> None:
        self.protocol = protocol
        self.head = head
        self.keep_alive = head.keep_alive
        self._body = body

    def start(self) -> None:
        """Run the application on this request, in a task of its own."""
        body = self._body
        if body is not None:
            self._expects_continue = self.head.expect_continue and not (body.size or body.done)
        shared = self.protocol.shared
        if shared.serve is not None:
            self.protocol.attendant.serve(self)
        else:
            self.task = task = shared.loop.create_task(self._run())
            shared.state.tasks.add(task)

    def end(self) -> None:
        """The application is done; what it left unanswered is answered here."""
        if self.task is not None:
            self.protocol.shared.state.tasks.discard(self.task)
            self.task = None
        if not self.complete and not self.disconnected and self.failure is None:
            detail = "the application did not complete its answer"
            self.protocol.shared.logger.error(detail)
            self._fail(detail)

    async def _run(self) -> None:
        """Run a plain ASGI application."""
        shared = self.protocol.shared
        try:
            if not self.disconnected:
                await shared.app(build_scope(self), self.receive, self.send)
        except asyncio.CancelledError:
            self._fail("the application was cancelled")
        except Exception as error:
            if not self.disconnected:
                shared.logger.error("exception in the application", exc_info=error)
            self._fail("the application failed")
        finally:
            self.end()

    def _fail(self, detail: str) -> None:
        """End an answer that the application did not: 500 if nothing left yet, else a cut."""
        if self.complete or self.disconnected:
            return
        self.failure = INTERNAL_ERROR
        self.protocol.report(INTERNAL_ERROR, detail)
        if self.started:
            self.abort()
        else:
            self.keep_alive = False
            self.respond(*problem(Rejection(INTERNAL_ERROR), ""))

    @property
    def body_complete(self) -> bool:
        """Whether the whole request body is here already."""
        return self._body is None or self._body.done

    @property
    def trailers(self) -> RawHeaders:
        """The request's trailer fields, once the body is complete; never part of `headers`."""
        return [] if self._body is None else self._body.trailers

    def take_body(self) -> bytes:
        """What has been received and not taken yet: the whole body if `body_complete`."""
        body = self._body
        if body is None:
            self._delivered = True
            return b""
        self._delivered = body.done
        data = body.take()
        self.protocol.body_taken()
        return data

    async def receive(self) -> dict[str, Any]:
        """ASGI receive: pieces of the body, then `http.disconnect` once the exchange is over."""
        if self._expects_continue:
            self._send_continue()
        while not (self.disconnected or self.complete):
            if not self._delivered:
                body = self._body
                if body is None or body.size or body.done:
                    data = self.take_body()
                    return {"type": "http.request", "body": data, "more_body": not self._delivered}
            if self._on_readable is None or self._on_readable.done():
                self._on_readable = self.protocol.shared.loop.create_future()
            await self._on_readable
        return {"type": "http.disconnect"}

    def _send_continue(self) -> None:
        self._expects_continue = False
        if not (self.started or self.disconnected):
            self.protocol.transport.write(_CONTINUE)
            self.protocol.body_awaited()

    def readable(self) -> None:
        """Wake `receive`: a piece of the body came, or the exchange is over."""
        waiter = self._on_readable
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def writable(self) -> None:
        """Wake `send`: the transport's buffer has room again, or the exchange is over."""
        waiter = self._on_writable
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for a 100 that was not sent."""
        return self._expects_continue

    @property
    def until_close(self) -> bool:
        """Whether the answer has begun, and only the connection's end marks its own."""
        return self.started and self._framing == _UNTIL_CLOSE

    def respond(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Answer with a whole response, in one write. Names must be lower case.

        Nothing is written if the client has left. An answer that would break HTTP (a control
        character in a field, a Content-Length that is not the body's) becomes a 500.
        """
        if self.disconnected:
            return
        if self.started:
            raise RuntimeError("the answer has started already")
        protocol = self.protocol
        try:
            data = self._usual(status, headers, body)
            if data is None:
                data = self._open(status, headers, len(body))
                if body and self._framing != _NO_BODY:
                    data += body
        except UnsafeAnswer as error:
            self._unsafe(error)
            return
        self.complete = True
        protocol.send_soon(data)
        protocol.answered(self)

    def _usual(self, status: int, headers: RawHeaders, body: bytes) -> bytes | None:
        """The whole answer on the wire if nothing about it is special; None if something is."""
        index = dict(headers)
        head, protocol = self.head, self.protocol
        if (
            index.get(b"content-length") != b"%d" % len(body)
            or len(index) != len(headers)
            or not self.keep_alive
            or head.minor == 0
            or head.method == "HEAD"
            or status < 200
            or status in _BODILESS
            or not protocol.is_open_for_more
            or not answer.is_plain(index)
        ):
            return None
        own = b"" if b"date" in index else protocol.shared.date_line()
        data = answer.encode_head(status, headers, own, body)
        self.started = True
        self._expects_continue = False
        return data

    def _unsafe(self, error: UnsafeAnswer) -> None:
        self.protocol.shared.logger.error("an unsafe answer was withheld: %s", error)
        self.started = False
        self._fail(str(error))

    def _open(self, status: int, headers: RawHeaders, size: int | None) -> bytes:
        """The head's bytes; `size` is the body's if it is known. Settles framing and connection."""
        if status < 200:
            raise UnsafeAnswer("an interim status can't be the answer")
        protocol = self.protocol
        index = dict(headers)
        if not answer.is_plain(index):
            headers, options = answer.clean_fields(headers)
            index = dict(headers)
            if b"close" in options:
                self.keep_alive = False
        own = b"" if b"date" in index else protocol.shared.date_line()
        stated = b"content-length" in index
        length = answer.content_length(headers, index) if stated else None
        if length is None or length != size or status in _BODILESS or self.head.method == "HEAD":
            if length is not None and (status == 204 or status == 205):
                headers = [pair for pair in headers if pair[0] != b"content-length"]
            own += self._frame(status, length, size)
        else:
            self._framing = _LENGTH
            self._left = length
        if self.keep_alive and (protocol.shared.draining or not protocol.may_continue()):
            self.keep_alive = False
        if not self.keep_alive or self.head.minor == 0 or b"upgrade" in index:
            own += answer.connection_line(self.keep_alive, self.head.minor, b"upgrade" in index)
        data = answer.encode_head(status, headers, own)
        self.started = True
        self._expects_continue = False
        return data

    def _frame(self, status: int, length: int | None, size: int | None) -> bytes:
        """Choose the framing (RFC 9112 section 6.3) and return its field line, if one is owed.

        `length` is what the application declared, `size` what the body is, where they are known.
        """
        if self.head.method == "HEAD" or status == 304:
            self._framing = _NO_BODY
            return b"content-length: %d\r\n" % size if size and length is None else b""
        if status == 204 or status == 205:
            self._framing = _NO_BODY
            # RFC 9110: no Content-Length on 204 (8.6), and an empty body on 205 (15.3.6).
            return b"" if status == 204 else b"content-length: 0\r\n"
        if length is not None:
            if size is not None and size != length:
                raise UnsafeAnswer("Content-Length is not the body's length")
            self._framing, self._left = _LENGTH, length
            return b""
        if size is not None:
            self._framing, self._left = _LENGTH, size
            return b"content-length: %d\r\n" % size
        if self.head.minor == 1:
            self._framing = _CHUNKED
            return b"transfer-encoding: chunked\r\n"
        self._framing = _UNTIL_CLOSE
        self.keep_alive = False
        return b""

    async def send(self, message: Any) -> None:
        """ASGI send. Waits while the client reads too slowly; does nothing once it has left.

        Raises RuntimeError for messages out of order, or a body that is not its Content-Length.
        """
        if self.disconnected or self.failure is not None:
            await asyncio.sleep(0)  # a stream without end must not keep the loop to itself here
            return
        if self.complete:
            raise RuntimeError("the answer is complete already")
        kind = message["type"]
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            self._send_start(message)
        elif kind == "http.response.trailers":
            self._send_trailers(message)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind}")
        if self.protocol.write_paused:
            await self._drain()

    async def _drain(self) -> None:
        while self.protocol.write_paused and not (self.disconnected or self.complete):
            if self._on_writable is None or self._on_writable.done():
                self._on_writable = self.protocol.shared.loop.create_future()
            await self._on_writable

    def _send_start(self, message: Any) -> None:
        if self.started:
            raise RuntimeError("the answer has started already")
        headers = [
            (bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())
        ]
        try:
            data = self._open(message["status"], headers, None)
        except UnsafeAnswer as error:
            self._unsafe(error)
            return
        self._trailers_due = bool(message.get("trailers"))
        self.protocol.transport.write(data)

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self.started:
            raise RuntimeError("the answer has not started yet")
        transport = self.protocol.transport
        if self._framing == _LENGTH:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self.abort()
                raise RuntimeError("the body is not as long as its Content-Length")
            transport.write(body)
        elif self._framing == _CHUNKED:
            last = not more and not self._trailers_due
            self._write_chunk(body, b"0\r\n\r\n" if last else b"")
        elif self._framing == _UNTIL_CLOSE:
            transport.write(body)
        if not more and not self._trailers_due:
            self.complete = True
            self.protocol.answered(self)

    def _write_chunk(self, body: bytes, end: bytes) -> None:
        transport = self.protocol.transport
        size = len(body)
        if size > _COPY_LIMIT:
            transport.writelines((b"%x\r\n" % size, body, b"\r\n" + end))
        elif size:
            transport.write(b"%x\r\n%b\r\n%b" % (size, body, end))
        elif end:
            transport.write(end)

    def _send_trailers(self, message: Any) -> None:
        if not self._trailers_due:
            raise RuntimeError("trailers were not announced")
        more = message.get("more_trailers", False)
        if self._framing == _CHUNKED:
            takes = answer.takes_trailers(self.head)
            fields = answer.encode_fields(message["headers"]) if takes else b""
            opening = b"0\r\n" if self._left == 0 else b""
            self._left = 1  # the last chunk's size line is out
            self.protocol.transport.write(opening + fields + (b"" if more else b"\r\n"))
        if not more:
            self.complete = True
            self.protocol.answered(self)

    def informational(self, status: int, headers: RawHeaders) -> None:
        """Send an interim answer, 102 to 199, before the answer (RFC 9110 section 15.2).

        Dropped for HTTP/1.0 clients, and once the answer has started. 100 is the server's own.
        """
        if self.started or self.disconnected or self.head.minor == 0 or not 102 <= status <= 199:
            return
        fields = [pair for pair in answer.clean_fields(headers)[0] if pair[0] != b"content-length"]
        self.protocol.transport.write(answer.encode_head(status, fields, b""))

    def abort(self) -> None:
        """Cut the connection, in a way that shows the client that the answer is not whole."""
        if self.complete or self.disconnected:
            return
        self.on_disconnect = None  # the application knows: it asked for this
        self.protocol.cut(reset=self.until_close)

    def reset(self) -> None:
        """Reset the connection instead of answering; for the application the client has left."""
        if not (self.complete or self.disconnected):
            self.protocol.cut(reset=True)

    def disconnect(self, failure: ErrorCode | None = None) -> None:
        """The client is gone, or was cut off for `failure`: tell the application, once."""
        if self.complete or self.disconnected:
            return
        self.disconnected = True
        self.failure = self.failure or failure
        self.readable()
        self.writable()
        if (callback := self.on_disconnect) is not None:
            self.on_disconnect = None
            callback()
