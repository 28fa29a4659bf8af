"""Host and the field lines (RFC 9110 sections 5 and 7.2, RFC 9112 sections 3.2 and 5)."""

from __future__ import annotations

from tests.conformance.case import Case, accepted, get, refused


def _host(name: str, value: bytes, section: str = "RFC 9112 3.2") -> Case:
    return refused(name, section, get(host=b"Host: " + value))


HOST: list[Case] = [
    accepted("Host with a port", "RFC 9110 7.2", get(host=b"Host: a:8080")),
    accepted("Host with an empty port", "RFC 3986 3.2.3", get(host=b"Host: a:")),
    accepted("an IPv4 Host", "RFC 9110 7.2", get(host=b"Host: 127.0.0.1:80")),
    accepted("an IPv6 Host", "RFC 3986 3.2.2", get(host=b"Host: [::1]:8080")),
    accepted("an underscore in Host", "RFC 3986 3.2.2", get(host=b"Host: orders_api:80")),
    accepted("Host in any case", "RFC 9110 5.1", get(host=b"hOsT: a")),
    accepted("Host without a space", "RFC 9112 5", get(host=b"Host:a")),
    accepted("Host behind another field", "RFC 9110 5.3", get(b"/", b"Host: a", host=b"X: y")),
    accepted(
        "HTTP/1.0 without Host", "RFC 9112 3.2", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    ),
    refused("no Host", "RFC 9112 3.2", get(host=b"")),
    refused("two Hosts", "RFC 9112 3.2", get(b"/", b"Host: b")),
    refused("the same Host twice", "RFC 9112 3.2", get(b"/", b"Host: a")),
    refused("Host and hOST", "RFC 9112 3.2", get(b"/", b"hOST: b")),
    refused("an empty Host", "RFC 9110 4.2.1", get(host=b"Host:")),
    refused("a Host of spaces", "RFC 9110 4.2.1", get(host=b"Host:   ")),
    refused(
        "two Hosts on HTTP/1.0", "RFC 9112 3.2", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"
    ),
    _host("a space in Host", b"a b"),
    _host("a list of Hosts", b"a, b"),
    _host("a list of Hosts without a space", b"a,b"),
    _host("user information in Host", b"u@a"),
    _host("a path in Host", b"a/b"),
    _host("a scheme in Host", b"http://a"),
    _host("a backslash in Host", b"a\\b"),
    _host("a query in Host", b"a?b"),
    _host("a fragment in Host", b"a#b"),
    _host("an escape in Host", b"a%00b"),
    _host("a port that is no number", b"a:b"),
    _host("a negative port", b"a:-1"),
    _host("a port over 65535", b"a:65536"),
    _host("a port of six digits", b"a:000080"),
    _host("two ports", b"a:1:2"),
    _host("a port alone", b":80"),
    _host("IPv6 without brackets", b"::1"),
    _host("IPv6 that is none", b"[::1::2]"),
    _host("brackets left open", b"[::1"),
    _host("a zone in IPv6", b"[fe80::1%25eth0]"),
    _host("obs-text in Host", b"\xc3\xa4.example"),
    _host("quotes round Host", b'"a"'),
]

FIELDS: list[Case] = [
    accepted(
        "white space round a value is not part of it",
        "RFC 9110 5.5",
        get(b"/", b"X-A: \t b \t "),
        received={b"x-a": b"b"},
    ),
    accepted(
        "no white space before a value", "RFC 9112 5", get(b"/", b"X-A:b"), received={b"x-a": b"b"}
    ),
    accepted("an empty value", "RFC 9110 5.5", get(b"/", b"X-A:"), received={b"x-a": b""}),
    accepted("colons in a value", "RFC 9112 5", get(b"/", b"X-A: b:c"), received={b"x-a": b"b:c"}),
    accepted(
        "a tab in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\tc"), received={b"x-a": b"b\tc"}
    ),
    accepted(
        "obs-text in a value", "RFC 9110 5.5", get(b"/", b"X-A: \xe4"), received={b"x-a": b"\xe4"}
    ),
    accepted(
        "repeated fields stay in order",
        "RFC 9110 5.3",
        get(b"/", b"X-A: b", b"X-A: c"),
        received={b"x-a": b"b, c"},
    ),
    accepted("a name with every tchar", "RFC 9110 5.6.2", get(b"/", b"!#$%&'*+-.^_`|~9a: b")),
    refused("a space before the colon", "RFC 9112 5.1", get(b"/", b"X-A : b")),
    refused("a tab before the colon", "RFC 9112 5.1", get(b"/", b"X-A\t: b")),
    refused("a space before the colon of Host", "RFC 9112 5.1", get(host=b"Host : a")),
    refused("an obs-fold", "RFC 9112 5.2", get(b"/", b"X-A: b", b" c")),
    refused("an obs-fold with a tab", "RFC 9112 5.2", get(b"/", b"X-A: b", b"\tc")),
    refused("an obs-fold before the first field", "RFC 9112 2.2", get(host=b" Host: a")),
    refused("white space alone on a line", "RFC 9112 2.2", get(b"/", b" ")),
    refused("a line without a colon", "RFC 9112 5", get(b"/", b"X-A")),
    refused("an empty name", "RFC 9110 5.1", get(b"/", b": b")),
    refused("a space in a name", "RFC 9110 5.1", get(b"/", b"X A: b")),
    refused("a bracket in a name", "RFC 9110 5.1", get(b"/", b"X(A): b")),
    refused("a quote in a name", "RFC 9110 5.1", get(b"/", b'X"A: b')),
    refused("a slash in a name", "RFC 9110 5.1", get(b"/", b"X/A: b")),
    refused("obs-text in a name", "RFC 9110 5.1", get(b"/", b"X-\xc4: b")),
    refused("NUL in a name", "RFC 9110 5.1", get(b"/", b"X\0A: b")),
    refused("NUL in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\0c")),
    refused("an escape character in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\x1bc")),
    refused("DEL in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\x7fc")),
    refused("a vertical tab in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\x0bc")),
    refused("a form feed in a value", "RFC 9110 5.5", get(b"/", b"X-A: b\x0cc")),
    refused("a bare CR in a value", "RFC 9112 2.2", get(b"/", b"X-A: b\rX-B: c")),
    refused("a bare LF in a value", "RFC 9112 2.2", get(b"/", b"X-A: b\nX-B: c")),
    refused("CR CR LF ends a line", "RFC 9112 2.2", get(b"/", b"X-A: b\r")),
    refused("LF CR ends a line", "RFC 9112 2.2", get(b"/", b"X-A: b\n\rX-B: c")),
    refused("a bare LF ends the head", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("a name over the limit", "RFC 6585 5", get(b"/", b"X" * 33000 + b": b"), status=431),
    refused("a value over the limit", "RFC 6585 5", get(b"/", b"X: " + b"b" * 33000), status=431),
    refused(
        "a head that never ends",
        "RFC 6585 5",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Fill: 0123456789\r\n" * 2000,
        status=431,
    ),
    refused(
        "too many fields",
        "RFC 6585 5",
        get(b"/", *[b"X-%d: b" % each for each in range(128)]),
        status=431,
    ),
    accepted(
        "as many fields as are allowed",
        "RFC 6585 5",
        get(b"/", *[b"X-%d: b" % each for each in range(127)]),
    ),
]
