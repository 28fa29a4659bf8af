"""The chunked coding and its trailers (RFC 9112 section 7.1).

A broken chunk shows after the head was good: the application may have been asked already, so what
counts is that no whole request came through, and that the connection ends.
"""

from __future__ import annotations

from tests.conformance.case import Case, accepted, chunked, refused

_END = b"0\r\n\r\n"


def _good(name: str, body: bytes, received: bytes, section: str = "RFC 9112 7.1") -> Case:
    return accepted(name, section, chunked(body), body_received=received)


def _bad(name: str, body: bytes, section: str = "RFC 9112 7.1", status: int = 400) -> Case:
    return refused(name, section, chunked(body), status=status)


CASES: list[Case] = [
    _good("two chunks", b"3\r\nhel\r\n2\r\nlo\r\n" + _END, b"hello"),
    _good("an empty body", _END, b""),
    _good(
        "sizes in both cases", b"A\r\n0123456789\r\na\r\n0123456789\r\n" + _END, b"0123456789" * 2
    ),
    _good("leading zeros", b"0005\r\nhello\r\n" + _END, b"hello"),
    _good("a last chunk of many zeros", b"1\r\na\r\n000\r\n\r\n", b"a"),
    _good("an extension", b"5;a=b\r\nhello\r\n" + _END, b"hello", "RFC 9112 7.1.1"),
    _good(
        "an extension without a value", b"5;a\r\nhello\r\n0;b\r\n\r\n", b"hello", "RFC 9112 7.1.1"
    ),
    _good("a quoted extension", b'5;a="b;\\" c"\r\nhello\r\n' + _END, b"hello", "RFC 9112 7.1.1"),
    _good(
        "white space before an extension", b"5 ;a\r\nhello\r\n" + _END, b"hello", "RFC 9112 7.1.1"
    ),
    accepted(
        "chunks cut anywhere",
        "RFC 9112 7.1",
        chunked(b"5"),
        b"\r",
        b"\nhel",
        b"lo\r",
        b"\n0\r\n",
        b"\r\n",
        body_received=b"hello",
    ),
    accepted(
        "a trailer is not a header",
        "RFC 9110 6.5.1",
        chunked(b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nX-A: b\r\n\r\n"),
        body_received=b"a",
        received={b"authorization": None, b"x-a": None},
    ),
    accepted(
        "Host in a trailer changes nothing",
        "RFC 9110 6.5.1",
        chunked(b"0\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
    ),
    accepted(
        "framing in a trailer changes nothing",
        "RFC 9110 6.5.1",
        chunked(b"0\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ),
    _bad("no size", b"\r\nhello\r\n" + _END),
    _bad("a sign", b"+5\r\nhello\r\n" + _END),
    _bad("a minus", b"-5\r\nhello\r\n" + _END),
    _bad("minus zero", b"-0\r\n\r\n"),
    _bad("a 0x prefix", b"0x5\r\nhello\r\n" + _END),
    _bad("an underscore", b"1_0\r\nhello\r\n" + _END),
    _bad("a letter that is no digit", b"g\r\nhello\r\n" + _END),
    _bad("a space before the size", b" 5\r\nhello\r\n" + _END),
    _bad("a space after the size", b"5 \r\nhello\r\n" + _END),
    _bad("a tab after the size", b"5\t\r\nhello\r\n" + _END),
    _bad("a comma for the semicolon", b"5,a\r\nhello\r\n" + _END),
    _bad("64 bits that overflow", b"10000000000000005\r\nhello\r\n" + _END),
    _bad("32 bits that overflow, in zeros", b"0" * 20 + b"5\r\nhello\r\n" + _END),
    _bad("a negative 64-bit size", b"ffffffffffffffff\r\nhello\r\n" + _END),
    _bad("a bare LF after the size", b"5\nhello\r\n" + _END),
    _bad("a bare CR after the size", b"5\rhello\r\n" + _END),
    _bad("a bare LF after the data", b"5\r\nhello\n" + _END),
    _bad("a bare CR after the data", b"5\r\nhello\r" + _END),
    _bad("nothing after the data", b"5\r\nhello" + _END),
    _bad("data longer than its size", b"4\r\nhello\r\n" + _END),
    _bad("LF CR after the data", b"5\r\nhello\n\r" + _END),
    _bad("an extension without a name", b"5;\r\nhello\r\n" + _END, "RFC 9112 7.1.1"),
    _bad("NUL in an extension", b"5;a\0b\r\nhello\r\n" + _END, "RFC 9112 7.1.1"),
    _bad("a bare CR in an extension", b"5;a\rb\r\nhello\r\n" + _END, "RFC 9112 7.1.1"),
    _bad("a bare LF in an extension", b"5;a\nb\r\nhello\r\n" + _END, "RFC 9112 7.1.1"),
    _bad("quotes left open", b'5;a="b\r\nhello\r\n' + _END, "RFC 9112 7.1.1"),
    _bad("an endless extension", b"5;a=" + b"b" * 5000, "RFC 9112 7.1.1"),
    _bad(
        "a kilobyte of extension for each byte", (b"1;a=" + b"b" * 1000 + b"\r\na\r\n") * 20 + _END
    ),
    _bad("a trailer without a colon", b"0\r\nX-A\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("a trailer with an empty name", b"0\r\n: b\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("a space before a trailer's colon", b"0\r\nX-A : b\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("a folded trailer", b"0\r\nX-A: b\r\n c\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("NUL in a trailer", b"0\r\nX-A: b\0\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("a bare LF in a trailer", b"0\r\nX-A: b\nX-B: c\r\n\r\n", "RFC 9112 7.1.2"),
    _bad("a bare LF ends the trailers", b"0\r\nX-A: b\r\n\n", "RFC 9112 7.1.2"),
    _bad("trailers without end", b"0\r\n" + b"X-A: b\r\n" * 2000, "RFC 6585 5", status=431),
    _bad(
        "too large a trailer", b"0\r\nX-A: " + b"b" * 9000 + b"\r\n\r\n", "RFC 6585 5", status=431
    ),
]
