"""Requests that the protocol itself refuses: which error it is, and how soon it can be known."""

from __future__ import annotations

from typing import Final

from gateway import errors
from gateway.errors import ErrorCode, Rejection, problem
from gateway.http1.head import TOKEN, MalformedMessage, check_unfinished, parse_request_line
from gateway.server.answer import encode_head
from gateway.server.settings import ServerSettings

_KINDS: Final = {
    414: errors.TARGET_TOO_LONG,
    417: errors.EXPECTATION_FAILED,
    431: errors.HEADERS_TOO_LARGE,
    501: errors.NOT_IMPLEMENTED,
    505: errors.HTTP_VERSION,
}
# What a request line holds beside its target: a method, two spaces, the version.
_LINE_OVERHEAD: Final = 64


def kind_of(error: MalformedMessage) -> ErrorCode:
    """The place of a malformed message in the taxonomy."""
    return _KINDS.get(error.status, errors.MALFORMED_REQUEST)


def encode(kind: ErrorCode, detail: str, date_line: bytes, bodiless: bool) -> bytes:
    """The whole answer to a refused request, which is the last one on its connection."""
    status, headers, body = problem(Rejection(kind, detail), "")
    head = encode_head(status, headers, date_line + b"connection: close\r\n")
    return head if bodiless else head + body


def check_partial(data: bytes, start: int, seen: int, settings: ServerSettings) -> None:
    """Refuse a head that has not ended, as soon as no further byte can make it good.

    The head starts at `start`; the bytes before `seen` were checked before. Raises
    MalformedMessage.
    """
    check_unfinished(data, max(start, seen - 1))
    if start < len(data) and TOKEN.match(data, start) is None and data != b"\r":
        raise MalformedMessage("the request line is malformed")
    check_sizes(data, start, len(data), settings)
    line_end = data.find(b"\r\n", start)
    if line_end >= 0:
        parse_request_line(data[start:line_end])


def check_sizes(data: bytes, start: int, end: int, settings: ServerSettings) -> None:
    """Raise MalformedMessage if the head in `data[start:end]` is too large: 414 or 431."""
    line_end = data.find(b"\r\n", start, end)
    line = (end if line_end < 0 else line_end) - start
    if line > settings.target_bytes + _LINE_OVERHEAD:
        raise MalformedMessage("the request target is too long", 414)
    if end - start > settings.head_bytes:
        raise MalformedMessage("the request header is too large", 431)
