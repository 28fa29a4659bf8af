"""The request target's forms, and Host."""

from __future__ import annotations

import pytest

from gateway.http1.head import MalformedMessage, check_host, parse_request_head
from gateway.http1.target import settle_target


def settled(line: bytes, host: bytes = b"a", secure: bool = False) -> tuple[bytes, bytes]:
    head = parse_request_head(b"%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (line, host))
    settle_target(head, secure)
    assert head.headers.count((b"host", head.index[b"host"])) == 1
    return head.target, head.index[b"host"]


@pytest.mark.parametrize(
    ("line", "host", "secure", "expected"),
    [
        (b"GET /a?b", b"a", False, (b"/a?b", b"a")),
        (b"GET http://a/b", b"a", False, (b"/b", b"a")),
        (b"GET https://a/b", b"a", True, (b"/b", b"a")),
        (b"GET http://A:80/b", b"a", False, (b"/b", b"A:80")),
        (b"GET https://a:443", b"a", True, (b"/", b"a:443")),
        (b"OPTIONS *", b"a", False, (b"*", b"a")),
        (b"OPTIONS http://a", b"a", False, (b"*", b"a")),
        (b"OPTIONS http://a/", b"a", False, (b"/", b"a")),
    ],
)
def test_targets_become_origin_form(
    line: bytes, host: bytes, secure: bool, expected: tuple[bytes, bytes]
) -> None:
    """RFC 9112 3.2: path and authority, however they were said."""
    assert settled(line, host, secure) == expected


@pytest.mark.parametrize("line", [b"GET https://a:80/", b"GET http://a:443/", b"GET http://a@a/"])
def test_an_authority_of_another_kind_is_refused(line: bytes) -> None:
    """RFC 9112 3.2.2: the port of the other scheme is another authority."""
    with pytest.raises(MalformedMessage):
        settled(line, secure=True)


@pytest.mark.parametrize("host", [b"a", b"a.b:1", b"[::1]", b"[::1]:80", b"1.2.3.4", b"a_b-c~d."])
def test_hosts(host: bytes) -> None:
    """RFC 9110 7.2."""
    check_host(host)
    check_host(host)


@pytest.mark.parametrize(
    "host", [b"", b":1", b"a:x", b"[::g]", b"[1.2.3.4]", b"a b", b"a:99999", b"[v1.a]"]
)
def test_bad_hosts(host: bytes) -> None:
    """RFC 9110 7.2, RFC 3986 3.2.2."""
    with pytest.raises(MalformedMessage):
        check_host(host)
