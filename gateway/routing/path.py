"""The one normal form of a request path, on which we match, on which we authorize, which we send.

Owns the reading of paths and nothing else: no routes, no headers, no query.

Why a normal form. A check that reads `/v1//admin`, `/v1/%61dmin` or `/x/../admin` otherwise than
the upstream does is no check. So each path is brought to one spelling before anything looks at it,
and the upstream is sent that spelling, never the client's own. The rules are those of RFC 3986
section 6.2.2 (escapes of unreserved characters decoded, other escapes in upper case) and 5.2.4 (dot
segments removed), with three of our own:
- `//` becomes `/`, because upstreams do that, and a route check must not be passed by for it;
- what RFC 3986 does not allow in a path, controls and backslashes are refused, not repaired;
- escapes must spell UTF-8: overlong forms such as `%C0%AF` are a `/` to some decoders.

Why a shadow. Escapes with a meaning (`%2F`, `%5C`, `%25`) and `;` cannot be normalised away: a
`%2F` in an identifier is data and must arrive as it was sent. But some upstreams decode before they
split, or drop `;parameters`. `shadow` is the path as such an upstream would read it. The table
refuses a request whose shadow belongs to another route; if the shadow belongs to none, or to the
same route with the same parameters, the path may pass as it is. A policy that compares parameters
still has to know that `a;x` is `a` to such an upstream.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.errors import AMBIGUOUS_PATH, MALFORMED_REQUEST, ErrorCode, Rejection

# pchar without the escapes, RFC 3986 section 3.3.
_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_SUB_DELIMS: Final = b"!$&'()*+,;=:@"
_PLAIN: Final = b"/" + _UNRESERVED + _SUB_DELIMS
_LEGAL: Final = re.compile(rb"/(?:[/\-.\w~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# What a sloppy reader may see in a normal path that is not there in so many words.
_HIDDEN: Final = re.compile(r";|%(?:2F|5C|25|3B|3F|23)")
# Past so many layers of encoding nobody honest is writing.
_MAX_DECODING: Final = 4


class PathError(Exception):
    """The path is refused with 400. `reason` is a phrase for the problem's detail and the log."""

    kind: ClassVar[ErrorCode] = MALFORMED_REQUEST

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def rejection(self) -> Rejection:
        """The refusal that the client gets."""
        return Rejection(self.kind, self.reason)


class AmbiguousPath(PathError):
    """The path is legal, but upstreams could read it as another one."""

    kind: ClassVar[ErrorCode] = AMBIGUOUS_PATH


def normalise(raw: bytes) -> str:
    """The normal form of the path `raw`, which is what stood before the `?` of a target.

    The result starts with `/`, is ASCII, holds no `//` and no dot segment, and is its own normal
    form. Raises PathError.
    """
    # Most paths are plain and in normal form already, and end here. Searching the text is ten times
    # faster than searching the bytes, whose `in` first tries the needle as a number.
    if not raw.translate(None, _PLAIN):
        path = raw.decode("ascii")
        if "//" not in path and "/." not in path and path[:1] == "/":
            return path
    if _LEGAL.fullmatch(raw) is None:
        raise PathError(_complaint(raw))
    if b"%" in raw:
        raw = _ESCAPE.sub(_respell, raw)
        _check_utf8(raw)
    return "/" + "/".join(_resolve(raw.decode("ascii").split("/")))


def _respell(match: re.Match[bytes]) -> bytes:
    value = int(match[1], 16)
    if value < 0x20 or value == 0x7F:
        raise PathError("the path holds an encoded control character")
    if value in _UNRESERVED:
        return bytes((value,))
    return match[0].upper()


def _check_utf8(path: bytes) -> None:
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise PathError("the path's escapes are not UTF-8") from None


def _resolve(segments: list[str]) -> list[str]:
    """Drop empty and dot segments (RFC 3986 section 5.2.4); a last "" stands for a final slash."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            if not kept:
                raise PathError("the path climbs above the root")
            kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if segments[-1] in ("", ".", "..") and kept:
        kept.append("")
    return kept


def _complaint(raw: bytes) -> str:
    """Why `raw` is not a path."""
    if raw[:1] != b"/":
        return "the path does not start with a slash"
    if b"\\" in raw:
        return "the path holds a backslash"
    if not raw.isascii():
        return "the path holds characters beyond ASCII that are not percent-encoded"
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        return "the path holds a control character"
    if _BAD_ESCAPE.search(raw):
        return "the path holds a % that starts no escape"
    return "the path holds a character that must be percent-encoded"


def shadow(path: str) -> str | None:
    """How a sloppy upstream could read the normal form `path`, or None if there is one reading.

    Escapes are decoded until none is left, backslash is read as `/`, what follows `?`, `#` or NUL
    is cut off, `;parameters` of segments are dropped, slashes are merged; the result is in normal
    form. Raises AmbiguousPath if that yields dot segments, which could lead anywhere.
    """
    if _HIDDEN.search(path) is None:
        return None
    segments = sloppy(path).split(b"/")
    if b"." in segments or b".." in segments:
        raise AmbiguousPath("the path hides a dot segment")
    kept = [segment for segment in segments if segment]
    if not segments[-1] and kept:
        kept.append(b"")
    return "/" + quote_from_bytes(b"/".join(kept), safe=_PLAIN)


def sloppy(text: str) -> bytes:
    """`text`, a path or a piece of one, decoded as `shadow` says, before slashes are merged.

    Raises AmbiguousPath if it is encoded over and over.
    """
    data = unquote_to_bytes(text)
    for _ in range(_MAX_DECODING):
        decoded = unquote_to_bytes(data)
        if decoded == data:
            break
        data = decoded
    else:
        raise AmbiguousPath("the path is percent-encoded too many times")
    data = re.split(rb"[?#\0]", data, maxsplit=1)[0].replace(b"\\", b"/")
    return b"/".join(segment.partition(b";")[0] for segment in data.split(b"/"))
