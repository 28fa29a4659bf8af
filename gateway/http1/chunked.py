"""The chunked transfer coding, read strictly (RFC 9112 section 7.1).

Chunk sizes are hexadecimal digits and nothing else; every line ends with CRLF; an extension
follows its grammar and holds no control characters. Tolerance here is how request smuggling
works, so there is none.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http1.head import MalformedMessage, RawHeaders, check_unfinished, parse_fields

# 15 hexadecimal digits stay below 2**60: no 64-bit parser behind us can overflow on what we accept.
# Possessive quantifiers keep a hostile extension from costing more than its length.
_TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# No possessive quantifiers: CPython 3.11.2 and its neighbours match groups with them wrongly. Each
# alternative here begins differently, so that a failing match backtracks in linear time.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"((?:[ \t]*;[ \t]*%b+(?:[ \t]*=[ \t]*(?:%b+|%b))?)*)\r\n" % (_TCHAR, _TCHAR, _QUOTED)
)
# What an unfinished line may look like, so that a broken one is refused without waiting for more.
_SIZE_START: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?)?\r?")
_MAX_LINE: Final = 4096
_LINE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkedDecoder:
    """Feed bytes, get payload; `done` once the last chunk and its trailer section were read.

    `remainder` then holds the bytes behind the message. `trailers` holds the trailer fields, which
    the caller keeps apart from the header fields or drops (RFC 9110 section 6.5.1).
    """

    __slots__ = ("_buffer", "_extensions", "_left", "_state", "_trailer_limit", "done",
                 "remainder", "trailers")  # fmt: skip

    def __init__(self, trailer_limit: int = 8192) -> None:
        self._buffer = b""
        self._state = _LINE
        self._left = 0
        self._extensions = 0
        self._trailer_limit = trailer_limit
        self.done = False
        self.remainder = b""
        self.trailers: RawHeaders = []

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes off the wire and return the payload in them, possibly empty.

        Raises MalformedMessage (400) when the coding is broken; the decoder is then unusable.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        out: list[bytes] = []
        position = 0
        end = len(data)
        while position < end:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                out.append(piece)
                read = len(piece)
                self._left -= read
                if self._left == 0:
                    self._state = _DATA_END
            else:
                read = self._between(data, position)
                if read == 0:
                    break
            position += read
            if self.done:
                self.remainder = data[position:]
                position = end
        if position < end:
            self._buffer = data[position:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _between(self, data: bytes, position: int) -> int:
        """Read what stands between payloads; returns its length, or 0 if it is not here whole."""
        if self._state == _LINE:
            return self._size_line(data, position)
        if self._state == _DATA_END:
            return self._data_end(data, position)
        if self._state == _DONE:
            raise MalformedMessage("bytes behind the last chunk")
        read = self._trailer_section(data, position)
        if read:
            self.done = True
            self._state = _DONE
        return read

    def _data_end(self, data: bytes, position: int) -> int:
        end = data[position : position + 2]
        if end == b"\r\n":
            self._state = _LINE
            return 2
        if end != b"\r":
            raise MalformedMessage("a chunk does not end with CRLF")
        return 0

    def _size_line(self, data: bytes, position: int) -> int:
        line = _SIZE_LINE.match(data, position)
        if line is None:
            if _SIZE_START.fullmatch(data, position) is None or len(data) - position > _MAX_LINE:
                raise MalformedMessage("a chunk size is malformed")
            return 0
        # Extensions carry nothing for us; a client that sends kilobytes of them is an attacker.
        self._extensions += len(line[2])
        if self._extensions > 4 * _MAX_LINE or len(line[0]) > _MAX_LINE:
            raise MalformedMessage("too many chunk extensions")
        self._left = int(line[1], 16)
        self._state = _DATA if self._left else _TRAILERS
        return len(line[0])

    def _trailer_section(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            return 2
        stop = data.find(b"\r\n\r\n", position)
        if stop < 0:
            if len(data) - position > self._trailer_limit:
                raise MalformedMessage("the trailer section is too large", 431)
            check_unfinished(data[position:])
            return 0
        if stop + 4 - position > self._trailer_limit:
            raise MalformedMessage("the trailer section is too large", 431)
        self.trailers = parse_fields(data[position : stop + 2])
        return stop + 4 - position


def encode_chunk(data: bytes) -> bytes:
    """One chunk with its size line; `data` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
