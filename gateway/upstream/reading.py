"""An upstream's answer as bytes in, values out: where its head ends and where its body ends.

Pure state machines without sockets. What a head means is decided by `gateway.http1`; what follows
from a broken one is the connection's business.
"""

from __future__ import annotations

from typing import Final

from gateway.http1.chunked import ChunkedDecoder
from gateway.http1.head import CHUNKED, MalformedMessage, RawHeaders, check_unfinished

MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 256
# Interim answers to one request (103 and the like); more is a flood.
MAX_INFORMATIONAL: Final = 16


class HeadTooLarge(Exception):
    """An answer's header section is longer than MAX_HEAD, or has too many fields."""


def check_interim(status: int, count: int) -> None:
    """Raise MalformedMessage if an interim answer, the `count`-th to one request, is not to be."""
    if status == 101:
        raise MalformedMessage("an upgrade that nobody asked for")
    if count > MAX_INFORMATIONAL:
        raise MalformedMessage(f"more than {MAX_INFORMATIONAL} interim answers")


class PartialHead:
    """A head that comes in several pieces.

    What can't become a head any more is refused at once, instead of waiting for the rest of it.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> bytes:
        """Everything so far, once the end of the head is in it; nothing before.

        Raises MalformedMessage or HeadTooLarge.
        """
        buffer = self._buffer
        # The end may straddle two pieces; what was searched before is not searched again.
        start = max(0, len(buffer) - 3)
        buffer += data
        stop = buffer.find(b"\r\n\r\n", start)
        if max(stop, 0) > MAX_HEAD or (stop < 0 and len(buffer) > MAX_HEAD):
            raise HeadTooLarge
        if stop >= 0:
            return bytes(buffer)
        if not buffer.startswith(b"HTTP/1."[: len(buffer)]):
            raise MalformedMessage("the status line is malformed")
        check_unfinished(buffer, start)
        return b""


class BodyReader:
    """The body of one answer; `length` is as in `ResponseHead`.

    `done` once its last byte was fed; never for a body that lasts until the connection closes.
    `clean` turns False if bytes came behind it.
    """

    __slots__ = ("_decoder", "_left", "clean", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self._decoder = ChunkedDecoder() if length == CHUNKED else None
        self.done = length == 0
        self.clean = True

    @property
    def until_close(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        return self._left < 0 and self._decoder is None

    @property
    def trailers(self) -> RawHeaders:
        """The trailer fields, once `done`."""
        return self._decoder.trailers if self._decoder is not None else []

    def feed(self, data: bytes) -> bytes:
        """The payload in the next bytes off the wire. Raises MalformedMessage."""
        decoder = self._decoder
        if decoder is not None:
            data = decoder.feed(data)
            if decoder.done:
                self.done = True
                self.clean = not decoder.remainder
        elif self._left >= 0:
            if len(data) > self._left:
                data = data[: self._left]
                self.clean = False
            self._left -= len(data)
            self.done = self._left == 0
        return data
