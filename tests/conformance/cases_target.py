"""The four forms of the request target (RFC 9112 section 3.2)."""

from __future__ import annotations

from tests.conformance.case import Case, accepted, get, refused, request

CASES: list[Case] = [
    accepted(
        "a query goes through as it is", "RFC 9112 3.2.1", get(b"/a?b=c&d"), target=b"/a?b=c&d"
    ),
    accepted(
        "absolute-form is read as origin-form",
        "RFC 9112 3.2.2",
        get(b"http://a/b?c"),
        target=b"/b?c",
        received={b"host": b"a"},
    ),
    accepted("absolute-form without a path", "RFC 9112 3.2.2", get(b"http://a"), target=b"/"),
    accepted("absolute-form, query alone", "RFC 9112 3.2.2", get(b"http://a?b"), target=b"/?b"),
    accepted("the scheme in capitals", "RFC 9110 4.2.3", get(b"HTTP://a/b"), target=b"/b"),
    accepted(
        "the authority in another case is the same",
        "RFC 9110 4.2.3",
        get(b"http://EXAMPLE.com/", host=b"Host: example.COM"),
    ),
    accepted(
        "the default port is the same authority",
        "RFC 9110 4.2.3",
        get(b"http://a:80/", host=b"Host: a"),
    ),
    refused("another authority than Host", "RFC 9112 3.2.2", get(b"http://b/")),
    refused("another port than Host", "RFC 9112 3.2.2", get(b"http://a:81/")),
    refused("absolute-form without Host", "RFC 9112 3.2", get(b"http://a/", host=b"")),
    refused("absolute-form, no authority", "RFC 9110 4.2.1", get(b"http:///b", host=b"Host: a")),
    refused("one slash only", "RFC 9110 4.2.1", get(b"http:/b")),
    refused("user information", "RFC 9110 4.2.4", get(b"http://u:p@a/")),
    refused("another scheme", "RFC 9110 7.4", get(b"ftp://a/b")),
    refused("a file", "RFC 9110 7.4", get(b"file:///etc/passwd")),
    refused("a scheme without //", "RFC 9112 3.2", get(b"javascript:alert(1)")),
    refused("https without TLS", "RFC 9110 7.4", get(b"https://a/")),
    refused("a backslash for the path's slash", "RFC 9112 3.2", get(b"http:\\\\a\\b")),
    refused("a path without a slash", "RFC 9112 3.2.1", get(b"a/b")),
    refused("a relative path", "RFC 9112 3.2.1", get(b"../a")),
    refused("a query alone", "RFC 9112 3.2.1", get(b"?a=b")),
    refused("authority-form outside CONNECT", "RFC 9112 3.2.3", get(b"a:80")),
    refused("a fragment", "RFC 9112 3.2", get(b"/a#b")),
    refused("a fragment alone", "RFC 9112 3.2", get(b"#a")),
    refused("a fragment in absolute-form", "RFC 9112 3.2", get(b"http://a/#b")),
    refused("obs-text in the target", "RFC 9112 3.2", get(b"/\xc3\xa4")),
    refused("NUL in the target", "RFC 9112 3.2", get(b"/a\0b")),
    refused("DEL in the target", "RFC 9112 3.2", get(b"/a\x7fb")),
    refused("* outside OPTIONS", "RFC 9112 3.2.4", get(b"*")),
    refused("two stars", "RFC 9112 3.2.4", request(b"OPTIONS", b"**")),
    refused("* with a query", "RFC 9112 3.2.4", request(b"OPTIONS", b"*?a")),
]

# The full gateway answers these itself: they name no path that a route could match.
OPTIONS_CASES: list[Case] = [
    accepted("OPTIONS *", "RFC 9112 3.2.4", request(b"OPTIONS", b"*"), target=b"*"),
    accepted(
        "OPTIONS with an authority alone is OPTIONS *",
        "RFC 9112 3.2.4",
        request(b"OPTIONS", b"http://a"),
        target=b"*",
    ),
]
