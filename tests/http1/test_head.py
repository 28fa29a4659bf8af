"""Message heads: what they say, and what is refused. The raw cases are in `tests/conformance`."""

from __future__ import annotations

import pytest

from gateway.http1 import head as heads
from gateway.http1.head import (
    CHUNKED,
    UNTIL_CLOSE,
    MalformedMessage,
    check_unfinished,
    parse_fields,
    parse_request_head,
    parse_response_head,
)


def request(*lines: bytes, first: bytes = b"GET /a?b HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


def response(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


def test_a_request_is_read() -> None:
    """RFC 9112 3 and 5: line, fields in order, the index with the last value."""
    head = parse_request_head(request(b"Host: a", b"X-A: 1", b"x-a:2\t"))
    assert (head.method, head.target, head.minor) == ("GET", b"/a?b", 1)
    assert head.headers == [(b"host", b"a"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert head.index[b"x-a"] == b"2"
    assert (head.length, head.keep_alive, head.expect_continue, head.upgrade) == (
        0,
        True,
        False,
        None,
    )


def test_heads_do_not_share_their_fields() -> None:
    """A remembered line is a value: changing one request's list leaves the next alone."""
    data = request(b"Host: a", b"Accept: */*")
    first = parse_request_head(data)
    first.headers.clear()
    assert parse_request_head(data).headers == [(b"host", b"a"), (b"accept", b"*/*")]


def test_memos_stay_bounded() -> None:
    """A peer that varies names, values and hosts gains no memory."""
    for number in range(5000):
        parse_request_head(
            request(b"Host: h%d" % number, b"X-%d: 1" % number, b"Accept: %d" % number)
        )
        parse_response_head(response(first=b"HTTP/1.1 200 %d" % number), "GET")
    for memo in (heads._names, heads._hosts, heads._lines, heads._status_lines):
        assert len(memo) <= 2048


def test_secrets_are_not_remembered() -> None:
    """Lines that may hold credentials are never kept."""
    secret = b"0123456789-secret"
    lines = [b"Host: a", b"Authorization: " + secret, b"Cookie: " + secret, b"X-Api-Key: " + secret]
    parse_request_head(request(*lines))
    assert not any(secret in line for line in heads._lines)


def test_a_response_name_with_a_space_stays_refused_in_requests() -> None:
    """RFC 9112 5.1: what is repaired in a response is refused in a request, in either order."""
    line = b"Server : nginx"
    assert (
        parse_response_head(response(line, b"Content-Length: 0"), "GET").index[b"server"]
        == b"nginx"
    )
    with pytest.raises(MalformedMessage):
        parse_request_head(request(b"Host: a", line))


@pytest.mark.parametrize(
    ("lines", "minor", "keep"),
    [
        ([], 1, True),
        ([b"Connection: close"], 1, False),
        ([b"Connection: Keep-Alive"], 0, True),
        ([], 0, False),
        ([b"Connection: keep-alive", b"Connection: close"], 0, False),
    ],
)
def test_keep_alive(lines: list[bytes], minor: int, keep: bool) -> None:
    """RFC 9112 9.3."""
    head = parse_request_head(request(b"Host: a", *lines, first=b"GET / HTTP/1.%d" % minor))
    assert head.keep_alive is keep


def test_upgrade_needs_connection() -> None:
    """RFC 9110 7.8: Upgrade counts only if Connection names it, and from HTTP/1.1."""
    line = b"Upgrade: websocket"
    assert parse_request_head(request(b"Host: a", line)).upgrade is None
    head = parse_request_head(request(b"Host: a", line, b"Connection: x, Upgrade"))
    assert head.upgrade == b"websocket"


@pytest.mark.parametrize(
    ("lines", "method", "length", "keep"),
    [
        ([b"Content-Length: 5"], "GET", 5, True),
        ([b"Content-Length: 5"], "HEAD", 0, True),
        ([b"Content-Length: 5", b"Content-Length: 5"], "GET", 5, True),
        ([b"Transfer-Encoding: chunked"], "GET", CHUNKED, True),
        ([], "GET", UNTIL_CLOSE, False),
        ([], "HEAD", 0, True),
        ([b"Content-Length: 5", b"Connection: close"], "GET", 5, False),
    ],
)
def test_response_length(lines: list[bytes], method: str, length: int, keep: bool) -> None:
    """RFC 9112 6.3."""
    head = parse_response_head(response(*lines), method)
    assert (head.length, head.keep_alive) == (length, keep)


@pytest.mark.parametrize("status", [b"101", b"204", b"304"])
def test_statuses_without_a_body(status: bytes) -> None:
    """RFC 9112 6.3: no body, whatever the fields say."""
    head = parse_response_head(
        response(b"Content-Length: 5", first=b"HTTP/1.1 %b X" % status), "GET"
    )
    assert head.length == 0


@pytest.mark.parametrize(
    "data",
    [
        response(b"Content-Length: 5", b"Content-Length: 6"),
        response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        response(b"Transfer-Encoding: gzip, chunked"),
        response(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        response(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK"),
        response(b"Content-Length: -1"),
        response(first=b"HTTP/1.1 99 X"),
        response(first=b"HTTP/1.1 600 X"),
        response(first=b"HTTP/1.1 2000"),
        response(first=b"HTTP/2 200"),
        response(first=b"HTTP/1.1  200"),
        response(first=b"ICY 200 OK"),
        response(b"X-A: b", b" c"),
        response(b"X-A: b\0"),
        response(b"X-A: b\n"),
        response(b"X-A"),
    ],
)
def test_bad_responses(data: bytes) -> None:
    """RFC 9112 4 to 6: what could be read as two answers is none."""
    with pytest.raises(MalformedMessage):
        parse_response_head(data, "GET")


def test_an_unfinished_head_is_refused_early() -> None:
    """RFC 9112 2.2: a bare CR or LF can't be mended by what follows; half a CRLF can."""
    for good in (b"GET / HT", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nX: \xff\ty\r\n\r"):
        check_unfinished(good)
    for bad in (b"GET /\n", b"GET /\rx", b"\r\r", b"X\0", b"\x16\x03", b"a\x7f"):
        with pytest.raises(MalformedMessage):
            check_unfinished(bad)
    check_unfinished(b"\0ok\r\n", 1)
    check_unfinished(b"ok\r\n", 3)


def test_a_field_block_ends_with_a_line_end() -> None:
    """The block is whole lines, or it is refused."""
    assert parse_fields(b"") == []
    assert parse_fields(b"A: b\r\n") == [(b"a", b"b")]
    for bad in (b"A: b", b"A: b\r\n c\r\n", b"A: b\r\n\r\n"):
        with pytest.raises(MalformedMessage):
            parse_fields(bad)
