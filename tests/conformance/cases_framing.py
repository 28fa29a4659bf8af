"""How long a message is (RFC 9112 section 6), the ground of request smuggling."""

from __future__ import annotations

from tests.conformance.case import Case, accepted, chunked, get, refused, request

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
_EMPTY = b"0\r\n\r\n"


def _length(name: str, value: bytes, section: str = "RFC 9112 6.3") -> Case:
    return refused(
        name, section, request(b"POST", b"/", b"Content-Length: " + value, body=b"hello")
    )


def _coding(name: str, value: bytes, status: int = 400, section: str = "RFC 9112 6.1") -> Case:
    line = b"Transfer-Encoding: " + value
    body = b"5\r\nhello\r\n0\r\n\r\n"
    return refused(name, section, request(b"POST", b"/", line, body=body), status=status)


LENGTH: list[Case] = [
    accepted(
        "a body by Content-Length",
        "RFC 9112 6.2",
        request(b"POST", b"/", b"Content-Length: 5", body=b"hello"),
        body_received=b"hello",
    ),
    accepted("Content-Length: 0", "RFC 9112 6.2", request(b"POST", b"/", b"Content-Length: 0")),
    accepted(
        "leading zeros",
        "RFC 9110 8.6",
        request(b"POST", b"/", b"Content-Length: 005", body=b"hello"),
        body_received=b"hello",
    ),
    accepted("POST without a length has no body", "RFC 9112 6.3", request(b"POST", b"/")),
    accepted(
        "a GET with a body",
        "RFC 9110 9.3.1",
        request(b"GET", b"/", b"Content-Length: 5", body=b"hello"),
        body_received=b"hello",
    ),
    accepted(
        "a DELETE with a body",
        "RFC 9110 9.3.5",
        request(b"DELETE", b"/", b"Content-Length: 5", body=b"hello"),
        body_received=b"hello",
    ),
    accepted(
        "a body in pieces",
        "RFC 9112 6.2",
        request(b"POST", b"/", b"Content-Length: 5", body=b"h"),
        b"el",
        b"lo",
        body_received=b"hello",
    ),
    accepted(
        "a body that looks like a request",
        "RFC 9112 6.2",
        request(b"POST", b"/", b"Content-Length: %d" % len(_SMUGGLED), body=_SMUGGLED),
        body_received=_SMUGGLED,
    ),
    _length("a sign", b"+5"),
    _length("a minus", b"-5"),
    _length("minus zero", b"-0"),
    _length("hexadecimal", b"0x5"),
    _length("a fraction", b"5.0"),
    _length("an exponent", b"5e0"),
    _length("an underscore", b"1_0"),
    _length("a comma", b"5,"),
    _length("a list of equal lengths", b"5, 5"),
    _length("a list of different lengths", b"5, 6"),
    _length("white space inside", b"5 5"),
    _length("nothing", b""),
    _length("letters", b"five"),
    _length("a superscript digit", b"\xb2"),
    _length("an Arabic digit", b"\xd9\xa5"),
    _length("more than 64 bits", b"18446744073709551621"),
    _length("quotes", b'"5"'),
    refused(
        "two different lengths",
        "RFC 9112 6.3",
        request(b"POST", b"/", b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    ),
    refused(
        "two equal lengths",
        "RFC 9110 8.6",
        request(b"POST", b"/", b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    ),
    refused(
        "two lengths on a GET",
        "RFC 9112 6.3",
        get(b"/", b"Content-Length: 0", b"Content-Length: 40") + _SMUGGLED,
    ),
    refused(
        "a folded length",
        "RFC 9112 5.2",
        request(b"POST", b"/", b"Content-Length:", b" 5", body=b"hello"),
    ),
    refused(
        "a space before the colon of the length",
        "RFC 9112 5.1",
        request(b"POST", b"/", b"Content-Length : 5", body=b"hello"),
    ),
]

CODING: list[Case] = [
    accepted(
        "chunked", "RFC 9112 7.1", chunked(b"5\r\nhello\r\n0\r\n\r\n"), body_received=b"hello"
    ),
    accepted(
        "CHUNKED in capitals",
        "RFC 9112 7",
        request(b"POST", b"/", b"Transfer-Encoding: CHUNKED", body=b"1\r\na\r\n" + _EMPTY),
        body_received=b"a",
    ),
    accepted("a chunked GET", "RFC 9112 6.1", get(b"/", b"Transfer-Encoding: chunked") + _EMPTY),
    refused(
        "a length beside chunked",
        "RFC 9112 6.3",
        chunked(_EMPTY + _SMUGGLED, b"Content-Length: 5"),
    ),
    refused(
        "chunked behind a length",
        "RFC 9112 6.3",
        request(b"POST", b"/", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_EMPTY),
    ),
    refused("a length of 0 beside chunked", "RFC 9112 6.3", chunked(_EMPTY, b"Content-Length: 0")),
    refused(
        "chunked in two fields", "RFC 9112 6.1", chunked(_EMPTY, b"Transfer-Encoding: chunked")
    ),
    refused(
        "identity behind chunked", "RFC 9112 6.1", chunked(_EMPTY, b"Transfer-Encoding: identity")
    ),
    refused(
        "an empty field beside chunked", "RFC 9112 6.1", chunked(_EMPTY, b"Transfer-Encoding:")
    ),
    _coding("chunked twice in a list", b"chunked, chunked"),
    _coding("chunked and then identity", b"chunked, identity"),
    _coding("identity", b"identity"),
    _coding("gzip before chunked", b"gzip, chunked", status=501),
    _coding("gzip alone", b"gzip"),
    _coding("chunked before gzip", b"chunked, gzip"),
    _coding("nothing", b""),
    _coding("a comma before it", b", chunked"),
    _coding("a comma after it", b"chunked,"),
    _coding("a semicolon after it", b"chunked;"),
    _coding("a parameter", b"chunked;q=1"),
    _coding("quotes", b'"chunked"'),
    _coding("a prefix", b"xchunked"),
    _coding("a suffix", b"chunkedx"),
    _coding("a vertical tab before it", b"\x0bchunked"),
    _coding("a form feed after it", b"chunked\x0c"),
    _coding("NUL after it", b"chunked\0"),
    _coding("a no-break space", b"\xa0chunked"),
    _coding("a Kelvin sign for the k", "chun\u212aed".encode()),
    refused(
        "a folded coding",
        "RFC 9112 5.2",
        request(b"POST", b"/", b"Transfer-Encoding:", b" chunked", body=_EMPTY),
    ),
    refused(
        "a space before the colon of the coding",
        "RFC 9112 5.1",
        request(b"POST", b"/", b"Transfer-Encoding : chunked", body=_EMPTY),
    ),
    refused(
        "chunked on HTTP/1.0",
        "RFC 9112 6.1",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + _EMPTY,
    ),
]
