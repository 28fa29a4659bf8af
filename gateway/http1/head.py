"""Message heads: request line or status line, then the field lines (RFC 9112, sections 2 to 5).

A head is checked and split with the few bytes methods that run at C speed over a whole block; one
regular expression over it measured slower, and a callback parser costs the same while saying less
about what it tolerates. Nothing is skipped or repaired in silence.

Names, Host values and status lines repeat endlessly in real traffic, so the verdict on each is
remembered: memos of pure functions, bounded, so that a hostile peer gains nothing by varying them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, TypeVar

RawHeaders = list[tuple[bytes, bytes]]

# tchar, RFC 9110 section 5.6.2.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# HTAB, SP, VCHAR and obs-text: all that a head may hold beside its line ends (RFC 9110 5.5).
LEGAL: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_VISIBLE: Final = bytes(range(0x20, 0x7F))
_BROKEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
# A registered name could also hold sub-delims and escapes (RFC 3986 section 3.2.2). No host that is
# in use does, and each of them is a way for two parsers to see two hosts.
_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9\-._~]+)(?::([0-9]{0,5}))?")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_MAX_DIGITS: Final = 18
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_MEMO_SIZE: Final = 2048
_MEMO_KEY: Final = 128
_names: dict[bytes, bytes] = {}
_hosts: dict[bytes, bool] = {}
# Whole lines, of the fields that say the same thing a thousand times over.
_MEMO_LINE: Final = 256
_STEADY: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language access-control-allow-origin "
    b"cache-control connection content-encoding content-length content-type date expires host "
    b"keep-alive origin pragma sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest "
    b"sec-fetch-mode sec-fetch-site sec-gpc server strict-transport-security te transfer-encoding "
    b"upgrade-insecure-requests user-agent vary via x-content-type-options x-forwarded-host "
    b"x-forwarded-port x-forwarded-proto x-frame-options x-powered-by".split()
)
_Verdict = TypeVar("_Verdict")
_lines: dict[bytes, tuple[bytes, bytes]] = {}
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_status_lines: dict[bytes, tuple[int, int]] = {}


class MalformedMessage(Exception):
    """The bytes are not one message with one meaning.

    `reason` is a short English phrase for logs and problem details; `status` is the answer that a
    server owes for it (400 unless the RFC names another).
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def parse_fields(block: bytes) -> RawHeaders:
    """Field lines, each ended by CRLF, to `(lower-case name, value)` pairs in order.

    Raises MalformedMessage for obs-fold, a bare CR or LF, space before the colon, an empty or
    illegal name, a control character in a value (RFC 9112 sections 2.2, 5.1, 5.2).
    """
    lines = block.split(b"\r\n")
    if lines.pop():
        raise MalformedMessage("a header line is malformed")
    return _fields(lines, _new_name)


def check_unfinished(block: bytes | bytearray, start: int = 0) -> None:
    """Refuse a part of a head that no further byte can mend, looking at `block[start:]` only.

    Raises MalformedMessage for a bare CR or LF or a control character (RFC 9112 section 2.2).
    """
    if _BROKEN.search(block, start) is not None:
        raise MalformedMessage("a bare CR or LF, or a control character")


def _fields(lines: list[bytes], new_name: Callable[[bytes], bytes]) -> RawHeaders:
    # Most lines of most messages were seen before, whole; the rest is split one by one.
    known = list(map(_lines.get, lines))
    if None not in known:
        return known  # type: ignore[return-value]
    return [pair or _split(line, new_name) for pair, line in zip(known, lines, strict=True)]


def _split(line: bytes, new_name: Callable[[bytes], bytes]) -> tuple[bytes, bytes]:
    if line.translate(None, LEGAL):
        # Lines were split at CRLF, so a CR or LF in one of them is a bare one.
        raise MalformedMessage("a bare CR or LF, or a control character")
    name, colon, value = line.partition(b":")
    if not colon:
        raise MalformedMessage("a header line is malformed")
    pair = _names.get(name) or new_name(name), value.strip(b" \t")
    # Only a line that reads the same in requests and responses, and that holds no secret.
    if pair[0] in _STEADY and name in _names and len(line) <= _MEMO_LINE:
        _remember(_lines, line, pair)
    return pair


def _remember(memo: dict[bytes, _Verdict], key: bytes, verdict: _Verdict) -> None:
    # A full memo starts anew: honest traffic is back in it at once, whatever an attacker put there.
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = verdict


def _new_name(name: bytes) -> bytes:
    if TOKEN.fullmatch(name) is None:
        raise MalformedMessage("a header name is malformed")
    lower = name.lower()
    if len(name) < _MEMO_KEY:
        _remember(_names, name, lower)
    return lower


def _new_name_in_response(name: bytes) -> bytes:
    # RFC 9112 section 5.1: a proxy removes space before the colon from a response.
    return _new_name(name.rstrip(b" \t"))


def check_host(host: bytes) -> None:
    """Check a Host value or an authority without user information (RFC 9110 section 7.2).

    An empty one is refused: no http URI has an empty host (RFC 9110 section 4.2.1). Raises
    MalformedMessage (400).
    """
    if host not in _hosts:
        _new_host(host)


def _new_host(host: bytes) -> None:
    match = _HOST.fullmatch(host)
    if match is None or int(match[2] or 0) > 65535:
        raise MalformedMessage("the host is malformed")
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1].decode("ascii"))
        except ValueError:
            raise MalformedMessage("the host is malformed") from None
    if len(host) < _MEMO_KEY:
        _remember(_hosts, host, True)


class RequestHead:
    """A request's line and fields, checked, with what they say about the message itself.

    `length` is the body's size in bytes, CHUNKED, or 0 for none. `index` maps a lower-case name to
    its last value. `keep_alive` is the client's wish (RFC 9112 section 9.3). `upgrade` is the
    Upgrade field's value if Connection names it.
    """

    # Defaults stand on the class, so that making a head sets only what every one has.
    length: int = 0
    expect_continue: bool = False
    upgrade: bytes | None = None

    def __init__(
        self,
        method: str,
        target: bytes,
        minor: int,
        headers: RawHeaders,
        index: dict[bytes, bytes],
    ) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.index = index
        self.keep_alive = minor == 1


def parse_request_head(head: bytes) -> RequestHead:
    """Read a request head; `head` ends with the empty line, CRLF CRLF included.

    Raises MalformedMessage: 400 for anything ambiguous, 501 for a transfer coding other than
    chunked, 505 for a major version other than 1, 417 for an unknown expectation.
    """
    # The last two are the empty line, and nothing behind it.
    line, *lines, _, _ = head.split(b"\r\n")
    method, target, minor = parse_request_line(line)
    headers = _fields(lines, _new_name)
    index = dict(headers)
    request = RequestHead(method, target, minor, headers, index)
    if len(index) != len(headers):
        _check_repeats(headers)
    host = index.get(b"host")
    if host is None:
        if minor == 1:
            raise MalformedMessage("the Host header is missing")
    elif host not in _hosts:
        _new_host(host)
    if b"transfer-encoding" in index or b"content-length" in index:
        request.length = _request_length(request)
    if b"connection" in index:
        _read_connection(request)
    if b"expect" in index and minor == 1:
        if index[b"expect"].lower() != b"100-continue":
            raise MalformedMessage("the expectation is not known", 417)
        request.expect_continue = request.length != 0
    return request


def parse_request_line(line: bytes) -> tuple[str, bytes, int]:
    """Method, target and minor version of a request line, given without its CRLF (RFC 9112 3).

    Raises MalformedMessage: 400, or 505 for a major version other than 1.
    """
    parts = line.split(b" ")
    if len(parts) != 3 or line.translate(None, _VISIBLE):
        raise MalformedMessage("the request line is malformed")
    method, target, version = parts
    name = _METHODS.get(method)
    if name is not None and version == b"HTTP/1.1" and target:
        return name, target, 1
    if name is None:
        if TOKEN.fullmatch(method) is None:
            raise MalformedMessage("the method is malformed")
        name = method.decode("ascii")
    if not target:
        raise MalformedMessage("the request target is empty")
    if version == b"HTTP/1.1":
        return name, target, 1
    if version == b"HTTP/1.0":
        return name, target, 0
    if _VERSION.fullmatch(version) is None:
        raise MalformedMessage("the HTTP version is malformed")
    if version[5] == 0x31:
        # A higher minor version is read as the highest one known (RFC 9110 section 2.5).
        return name, target, 1
    raise MalformedMessage("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)


# Two of any of these is two meanings. Content-Length may legally repeat with one value (RFC 9110
# 8.6), but no honest client does it, and parsers disagree.
_SINGLE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


def _check_repeats(headers: RawHeaders) -> None:
    seen = set()
    for name, _ in headers:
        if name in _SINGLE:
            if name in seen:
                raise MalformedMessage(f"{name.decode()} is given more than once")
            seen.add(name)


def _request_length(request: RequestHead) -> int:
    """The body's length by RFC 9112 section 6.3, refusing each combination that parsers dispute."""
    coding = request.index.get(b"transfer-encoding")
    length = request.index.get(b"content-length")
    if coding is None:
        if length is None or _LENGTH.fullmatch(length) is None:
            raise MalformedMessage("Content-Length is not a number")
        return int(length)
    if length is not None:
        raise MalformedMessage("Content-Length stands beside Transfer-Encoding")
    if request.minor == 0:
        raise MalformedMessage("Transfer-Encoding is not part of HTTP/1.0")
    if coding.lower() == b"chunked":
        return CHUNKED
    # 501 only for what is a list of codings ended by chunked; anything else is ambiguous (6.1).
    codings = [part.strip(b" \t").lower() for part in coding.split(b",")]
    known = codings[-1] == b"chunked" and codings.count(b"chunked") == 1
    status = 501 if known and all(TOKEN.fullmatch(part) for part in codings) else 400
    raise MalformedMessage("only the transfer coding chunked is read here", status)


def connection_tokens(headers: RawHeaders) -> frozenset[bytes]:
    """The lower-case names that all Connection fields together list (RFC 9110 section 7.6.1)."""
    return frozenset(
        token.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )


def _read_connection(request: RequestHead) -> None:
    tokens = connection_tokens(request.headers)
    if b"close" in tokens:
        request.keep_alive = False
    elif request.minor == 0 and b"keep-alive" in tokens:
        request.keep_alive = True
    if b"upgrade" in tokens and request.minor == 1:
        request.upgrade = request.index.get(b"upgrade")


class ResponseHead:
    """A response's status line and fields.

    `length` is the body's size in bytes, CHUNKED, UNTIL_CLOSE, or 0 for none. `keep_alive` says
    whether the connection may carry another exchange after this one.
    """

    # The default stands on the class, so that making a head sets only what every one has.
    length: int = 0

    def __init__(
        self, status: int, minor: int, headers: RawHeaders, index: dict[bytes, bytes]
    ) -> None:
        self.status = status
        self.minor = minor
        self.headers = headers
        self.index = index
        self.keep_alive = minor == 1


def parse_response_head(head: bytes, method: str) -> ResponseHead:
    """Read a response head (`head` ends with the empty line) to a request made with `method`.

    Raises MalformedMessage for whatever could be read as two different responses: Content-Length
    beside Transfer-Encoding, differing lengths, codings other than chunked, obs-fold.
    """
    # The last two are the empty line, and nothing behind it.
    line, *lines, _, _ = head.split(b"\r\n")
    status, minor = _status_lines.get(line) or _new_status_line(line)
    headers = _fields(lines, _new_name_in_response)
    index = dict(headers)
    response = ResponseHead(status, minor, headers, index)
    connection = index.get(b"connection")
    if connection is not None and connection != b"keep-alive":
        tokens = connection_tokens(headers)
        response.keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
    elif connection is not None:
        response.keep_alive = True
    value = index.get(b"content-length", b"")
    if (
        value.isdigit()
        and len(value) <= _MAX_DIGITS
        and len(index) == len(headers)
        and b"transfer-encoding" not in index
    ):
        length = int(value)
    else:
        length = _response_length(response)
    if method == "HEAD" or status == 304 or status == 204 or status < 200:
        return response
    response.length = length
    if length == UNTIL_CLOSE:
        response.keep_alive = False
    return response


def _new_status_line(line: bytes) -> tuple[int, int]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or line.translate(None, LEGAL):
        raise MalformedMessage("the status line is malformed")
    verdict = int(match[2]), match[1][0] - 48
    if len(line) < _MEMO_KEY:
        _remember(_status_lines, line, verdict)
    return verdict


def _response_length(response: ResponseHead) -> int:
    index = response.index
    length = index.get(b"content-length")
    if b"transfer-encoding" in index:
        if length is not None:
            raise MalformedMessage("Content-Length stands beside Transfer-Encoding")
        if response.minor == 0 or index[b"transfer-encoding"].lower() != b"chunked":
            raise MalformedMessage("the transfer coding is not chunked")
        if sum(name == b"transfer-encoding" for name, _ in response.headers) > 1:
            raise MalformedMessage("Transfer-Encoding is given more than once")
        return CHUNKED
    if length is None:
        return UNTIL_CLOSE
    if _LENGTH.fullmatch(length) is None:
        raise MalformedMessage("Content-Length is not a number")
    if len(index) != len(response.headers) and any(
        name == b"content-length" and value != length for name, value in response.headers
    ):
        raise MalformedMessage("two different Content-Length values")
    return int(length)
