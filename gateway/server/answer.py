"""Answers as bytes: status lines, header fields made safe, and how the body is framed.

Pure functions. Fields come from an application that may be wrong, and from upstreams through it:
nothing here lets a value end its line (RFC 9110 section 5.5).
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from gateway.http1.head import TOKEN, RequestHead
from gateway.http1.lines import add_field_lines

RawHeaders = list[tuple[bytes, bytes]]

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
# The server writes these itself; what an application says in them is a wish or a mistake.
_OWNED: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_MEMO_SIZE: Final = 2048
_MEMO_KEY: Final = 64
# Names found to be tokens in lower case and not owned by the server.
_plain_names: set[bytes] = {b"content-type", b"content-length", b"date"}


class UnsafeAnswer(Exception):
    """An application's answer that can't be put on the wire as it meant it."""


def is_plain(index: dict[bytes, bytes]) -> bool:
    """Whether every name is known to be fine, so that `clean_fields` has nothing to do."""
    return _plain_names.issuperset(index)


def clean_fields(headers: Iterable[tuple[bytes, bytes]]) -> tuple[RawHeaders, frozenset[bytes]]:
    """Fields with lower-case names and without those the server owns, and the Connection tokens.

    `Upgrade` stays, since 426 needs it. Raises UnsafeAnswer if a name is not a token.
    """
    kept: RawHeaders = []
    options: set[bytes] = set()
    for given, value in headers:
        name = given.lower()
        if name == b"connection":
            options.update(option.strip(b" \t").lower() for option in value.split(b","))
        elif name == b"upgrade" or name not in _OWNED:
            _check_name(name)
            kept.append((name, value))
    return kept, frozenset(options)


def _check_name(name: bytes) -> None:
    if name in _plain_names:
        return
    if TOKEN.fullmatch(name) is None:
        raise UnsafeAnswer("a header name is not a token")
    if name not in _OWNED and len(_plain_names) < _MEMO_SIZE and len(name) < _MEMO_KEY:
        _plain_names.add(name)


def encode_head(status: int, headers: RawHeaders, own: bytes, body: bytes = b"") -> bytes:
    """The head's bytes, and the body's; `own` holds the server's own lines, each with its CRLF.

    Raises UnsafeAnswer for a status out of range, or CR, LF or NUL in a value.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        if not 100 <= status <= 599:
            raise UnsafeAnswer(f"{status} is not an HTTP status")
        line = b"HTTP/1.1 %d " % status
    lines = [line]
    if not add_field_lines(lines, headers):
        raise UnsafeAnswer("a line end or NUL in a field")
    lines.append(own)
    lines.append(body)
    return b"\r\n".join(lines)


def encode_fields(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Trailer fields, each with its CRLF. Raises UnsafeAnswer like `encode_head`."""
    fields, _ = clean_fields(headers)
    lines: list[bytes] = []
    if not add_field_lines(lines, fields):
        raise UnsafeAnswer("a line end or NUL in a field")
    lines.append(b"")
    return b"\r\n".join(lines)


def content_length(headers: RawHeaders, index: dict[bytes, bytes]) -> int:
    """The length that the application declared. Raises UnsafeAnswer if it is unusable."""
    value = index[b"content-length"]
    if not value.isdigit() or len(value) > 18:
        raise UnsafeAnswer("Content-Length is not a number")
    if len(index) != len(headers) and sum(name == b"content-length" for name, _ in headers) > 1:
        raise UnsafeAnswer("Content-Length is given more than once")
    return int(value)


def connection_line(keep_alive: bool, minor: int, upgrade: bool) -> bytes:
    """The Connection field of an answer (RFC 9112 section 9.3, RFC 9110 section 7.8)."""
    options = [] if keep_alive else [b"close"]
    if keep_alive and minor == 0:
        options.append(b"keep-alive")
    if upgrade:
        options.append(b"upgrade")
    return b"connection: %b\r\n" % b", ".join(options)


def takes_trailers(head: RequestHead) -> bool:
    """Whether the client said `TE: trailers` (RFC 9110 section 6.5.1)."""
    listed = head.index.get(b"te", b"").split(b",")
    return any(each.partition(b";")[0].strip(b" \t").lower() == b"trailers" for each in listed)
