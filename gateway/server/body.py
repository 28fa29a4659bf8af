"""The request body on its way from the socket to the application.

Holds what the application has not taken yet, decodes the framing, and knows how long the client may
take. It reads no socket and sets no timer.
"""

from __future__ import annotations

from typing import Final

from gateway.http1.chunked import ChunkedDecoder
from gateway.http1.head import CHUNKED, RawHeaders
from gateway.server.settings import ServerSettings

# Unread bytes at which the connection stops reading: more than one read of the event loop would be
# pointless, less would make uploads stutter.
HIGH_WATER: Final = 128 * 1024


class RequestBody:
    """A body that is being received. `size` bytes wait to be taken; `done` once all was received.

    `trailers` are the trailer fields of a chunked body, kept apart from the header fields.
    """

    __slots__ = ("_decoder", "_left", "_pieces", "_received", "_since", "done", "size")

    def __init__(self, length: int, now: float) -> None:
        self._decoder = ChunkedDecoder() if length == CHUNKED else None
        self._left = length
        self._pieces: list[bytes] = []
        self._received = 0
        self._since = now
        self.size = 0
        self.done = False

    @property
    def left(self) -> int | None:
        """Bytes still to come, or None if the client did not say."""
        return self._left if self._decoder is None else None

    @property
    def trailers(self) -> RawHeaders:
        """The trailer fields; empty until `done`, and for bodies that have none."""
        return [] if self._decoder is None else self._decoder.trailers

    def feed(self, data: bytes) -> bytes:
        """Take bytes off the wire and return those behind the end of the message.

        Raises MalformedMessage when the chunked coding is broken.
        """
        self._received += len(data)
        decoder = self._decoder
        rest = b""
        if decoder is not None:
            data = decoder.feed(data)
            if decoder.done:
                self.done = True
                rest, decoder.remainder = decoder.remainder, b""
        else:
            if len(data) > self._left:
                data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            self.done = self._left == 0
        if data:
            self._pieces.append(data)
            self.size += len(data)
        return rest

    def take(self) -> bytes:
        """Everything that has come and was not taken yet."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self.size = 0
        return data

    def deadline(self, now: float, settings: ServerSettings) -> float:
        """When the client has been too slow, if nothing more comes until then.

        The nearer of two bounds: silence, and an average rate that a drip can't hold.
        """
        idle = now + settings.body_idle_timeout
        if not settings.body_min_rate:
            return idle
        earned = self._received / settings.body_min_rate
        return min(idle, self._since + settings.body_grace + earned)

    def restart(self, now: float) -> None:
        """Count the average from now: the client has only now been asked for the body."""
        self._since = now

    def forgive(self, seconds: float) -> None:
        """Leave a pause that was ours, not the client's, out of the average."""
        self._since += seconds
