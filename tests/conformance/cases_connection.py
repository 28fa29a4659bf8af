"""Persistence, pipelining, expectations and upgrades (RFC 9112 section 9, RFC 9110 7.8, 10.1.1)."""

from __future__ import annotations

from tests.conformance.case import Case, accepted, chunked, get, refused, request

_OLD = b"GET / HTTP/1.0\r\nHost: a\r\n"
_POST = request(b"POST", b"/b", b"Content-Length: 5", body=b"hello")
_H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
)


def _one(name: str, section: str, send: bytes, *, closes: bool) -> Case:
    return Case(name, section, (send,), (200,), closes=closes, reached=(b"/",))


CASES: list[Case] = [
    _one("Connection: close ends it", "RFC 9112 9.6", get(b"/", b"Connection: close"), closes=True),
    _one("close in a list", "RFC 9112 9.6", get(b"/", b"Connection: x, Close ,y"), closes=True),
    _one(
        "close in a second field", "RFC 9112 9.6",
        get(b"/", b"Connection: x", b"Connection: close"), closes=True,
    ),
    _one("keep-alive is the rule in 1.1", "RFC 9112 9.3", get(), closes=False),
    _one(
        "close outweighs keep-alive", "RFC 9112 9.3",
        get(b"/", b"Connection: keep-alive, close"), closes=True,
    ),
    _one("HTTP/1.0 ends", "RFC 9112 9.3", _OLD + b"\r\n", closes=True),
    _one(
        "HTTP/1.0 stays if asked", "RFC 9112 9.3",
        _OLD + b"Connection: Keep-Alive\r\n\r\n", closes=False,
    ),
    Case(
        "HTTP/1.0 is told that it stays", "RFC 9112 9.3",
        (_OLD + b"Connection: keep-alive\r\n\r\n",), (200,), reached=(b"/",),
        answered={b"connection": b"keep-alive"},
    ),
    Case(
        "three requests in one write", "RFC 9112 9.3.2", (get(b"/a") + _POST + get(b"/c"),),
        (200, 200, 200), reached=(b"/a", b"/b", b"/c"), bodies=(b"", b"hello", b""),
    ),
    Case(
        "a request cut in two behind another", "RFC 9112 9.3.2",
        (get(b"/a") + _POST[:20], _POST[20:]),
        (200, 200), reached=(b"/a", b"/b"),
    ),
    Case(
        "a hundred requests in one write", "RFC 9112 9.3.2", (get(b"/a") * 100,), (200,) * 100,
        reached=(b"/a",) * 100,
    ),
    Case(
        "chunked, then another", "RFC 9112 9.3.2", (chunked(b"1\r\na\r\n0\r\n\r\n") + get(b"/b"),),
        (200, 200), reached=(b"/", b"/b"),
    ),
    Case(
        "nothing is read behind close", "RFC 9112 9.6",
        (get(b"/a", b"Connection: close") + get(b"/b"),), (200,), closes=True, reached=(b"/a",),
    ),
    Case(
        "a good one, then garbage", "RFC 9112 9.3.2", (get(b"/a") + b"\x00\x01\x02",), (200, 400),
        closes=True, reached=(b"/a",),
    ),
    Case(
        "a good one, then a refused one", "RFC 9112 9.3.2",
        (get(b"/a") + get(b"/b", host=b"") + get(b"/c"),), (200, 400), closes=True,
        reached=(b"/a",),
    ),
    Case(
        "an empty line between requests", "RFC 9112 2.2", (get(b"/a") + b"\r\n" + get(b"/b"),),
        (200, 200), reached=(b"/a", b"/b"),
    ),
    Case(
        "bytes behind a body are the next request", "RFC 9112 6.2",
        (request(b"POST", b"/a", b"Content-Length: 4", body=b"hell: o\r\n\r\n"),), (200, 400),
        closes=True, reached=(b"/a",),
    ),
    Case(
        "100 comes when the body is wanted", "RFC 9110 10.1.1",
        (request(b"POST", b"/", b"Expect: 100-continue", b"Content-Length: 5"), b"hello"),
        (200,), reached=(b"/",), body_received=b"hello",
    ),
    accepted(
        "100-Continue in any case", "RFC 9110 10.1.1",
        request(b"POST", b"/", b"Expect: 100-CONTINUE", b"Content-Length: 1", body=b"a"),
    ),
    accepted("Expect without a body", "RFC 9110 10.1.1", get(b"/", b"Expect: 100-continue")),
    accepted(
        "Expect from HTTP/1.0 is ignored", "RFC 9110 10.1.1",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: the-unexpected\r\n\r\n",
    ),
    refused("an unknown expectation", "RFC 9110 15.5.18", get(b"/", b"Expect: 200-ok"), status=417),
    refused(
        "a list of expectations", "RFC 9110 10.1.1", get(b"/", b"Expect: 100-continue, x"),
        status=417,
    ),
    refused(
        "two expectations", "RFC 9110 10.1.1",
        get(b"/", b"Expect: 100-continue", b"Expect: 100-continue"),
    ),
    accepted("h2c is not taken up", "RFC 9113 3.1", get(b"/", *_H2C), answered={b"upgrade": None}),
    accepted(
        "another Upgrade is not taken up", "RFC 9110 7.8",
        get(b"/", b"Connection: upgrade", b"Upgrade: TLS/1.0"), answered={b"upgrade": None},
    ),
    accepted(
        "Upgrade that Connection does not name", "RFC 9110 7.8", get(b"/", b"Upgrade: websocket")
    ),
    accepted(
        "WebSocket by POST", "RFC 6455 4.1",
        request(b"POST", b"/", b"Connection: upgrade", b"Upgrade: websocket"),
    ),
    accepted(
        "WebSocket with a body", "RFC 6455 4.1",
        request(b"GET", b"/", b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 1",
                body=b"a"),
    ),
    accepted(
        "WebSocket over HTTP/1.0", "RFC 6455 4.1",
        _OLD + b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    Case("HEAD has no body", "RFC 9110 9.3.2", (request(b"HEAD", b"/"),), (200,), reached=(b"/",),
         methods=("HEAD",)),
    Case(
        "HEAD, then another", "RFC 9110 9.3.2", (request(b"HEAD", b"/a") + get(b"/b"),), (200, 200),
        reached=(b"/a", b"/b"), methods=("HEAD", "GET"),
    ),
    Case("a refused HEAD has no body", "RFC 9110 9.3.2",
         (request(b"HEAD", b"/", host=b""),), (400,),
         closes=True, methods=("HEAD",)),
]  # fmt: skip
