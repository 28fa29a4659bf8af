"""Request line, method and version (RFC 9112 sections 2 and 3)."""

from __future__ import annotations

from tests.conformance.case import Case, accepted, get, refused, request

_TAIL = b"Host: a\r\n\r\n"


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + _TAIL


CASES: list[Case] = [
    accepted("a plain GET", "RFC 9112 3", get()),
    accepted("a method that nobody knows is passed on", "RFC 9110 9.1", request(b"BREW", b"/")),
    accepted("a method with every tchar", "RFC 9110 5.6.2", request(b"A!#$%&'*+-.^_`|~9", b"/")),
    accepted("a lower-case method is another method", "RFC 9110 9.1", request(b"get", b"/")),
    accepted("one empty line before the request line", "RFC 9112 2.2", b"\r\n" + get()),
    accepted("the empty line alone, in a read of its own", "RFC 9112 2.2", b"\r\n", get()),
    accepted("a higher minor version is read as 1.1", "RFC 9110 2.5", _line(b"GET / HTTP/1.9")),
    refused("two empty lines before the request line", "RFC 9112 2.2", b"\r\n\r\n" + get()),
    refused("a space before the request line", "RFC 9112 3", b" " + get()),
    refused("a tab before the request line", "RFC 9112 3", b"\t" + get()),
    refused("two spaces after the method", "RFC 9112 3", _line(b"GET  / HTTP/1.1")),
    refused("two spaces before the version", "RFC 9112 3", _line(b"GET /  HTTP/1.1")),
    refused("a space after the version", "RFC 9112 3", _line(b"GET / HTTP/1.1 ")),
    refused("a tab for a space", "RFC 9112 3", _line(b"GET\t/\tHTTP/1.1")),
    refused("a tab in the target", "RFC 9112 3.2", _line(b"GET /a\tb HTTP/1.1")),
    refused("a space in the target", "RFC 9112 3.2", _line(b"GET /a b HTTP/1.1")),
    refused("a vertical tab for a space", "RFC 9112 3", _line(b"GET\x0b/\x0bHTTP/1.1")),
    refused("a form feed for a space", "RFC 9112 3", _line(b"GET\x0c/\x0cHTTP/1.1")),
    refused("a bare CR in the request line", "RFC 9112 2.2", _line(b"GET /\r HTTP/1.1")),
    refused("a bare LF ends the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("bare LF ends every line", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    refused("no target", "RFC 9112 3", _line(b"GET HTTP/1.1")),
    refused("an empty target", "RFC 9112 3", _line(b"GET  HTTP/1.1")),
    refused("a method alone", "RFC 9112 3", _line(b"GET")),
    refused("a colon in the method", "RFC 9110 9.1", _line(b"GE:T / HTTP/1.1")),
    refused("a comma in the method", "RFC 9110 9.1", _line(b"GET,POST / HTTP/1.1")),
    refused("brackets in the method", "RFC 9110 9.1", _line(b"(GET) / HTTP/1.1")),
    refused("quotes round the method", "RFC 9110 9.1", _line(b'"GET" / HTTP/1.1')),
    refused("obs-text in the method", "RFC 9110 9.1", _line(b"G\xc9T / HTTP/1.1")),
    refused("NUL in the method", "RFC 9110 9.1", _line(b"G\0T / HTTP/1.1")),
    refused("an endless method", "RFC 9112 3", _line(b"G" * 200 + b" / HTTP/1.1"), status=501),
    refused("TRACE echoes credentials", "RFC 9110 9.3.8", request(b"TRACE", b"/"), status=501),
    refused("trace, for a sloppy upstream", "RFC 9110 9.3.8", request(b"trace", b"/"), status=501),
    refused(
        "CONNECT asks for a tunnel",
        "RFC 9110 9.3.6",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        status=501,
    ),
    refused("CONNECT with a path", "RFC 9112 3.2.3", request(b"CONNECT", b"/"), status=501),
    refused("HTTP/0.9 without a version", "RFC 9112 2.3", b"GET /\r\n"),
    refused("HTTP/0.9 said aloud", "RFC 9110 15.6.6", _line(b"GET / HTTP/0.9"), status=505),
    refused("HTTP/2.0 in a request line", "RFC 9110 15.6.6", _line(b"GET / HTTP/2.0"), status=505),
    refused("HTTP/3.0 in a request line", "RFC 9110 15.6.6", _line(b"GET / HTTP/3.0"), status=505),
    refused("the HTTP/2 preface", "RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=505),
    refused("a lower-case http name", "RFC 9112 2.3", _line(b"GET / http/1.1")),
    refused("a version without minor", "RFC 9112 2.3", _line(b"GET / HTTP/1")),
    refused("a version with three parts", "RFC 9112 2.3", _line(b"GET / HTTP/1.1.1")),
    refused("a two-digit minor", "RFC 9112 2.3", _line(b"GET / HTTP/1.10")),
    refused("a two-digit major", "RFC 9112 2.3", _line(b"GET / HTTP/11.1")),
    refused("a leading zero", "RFC 9112 2.3", _line(b"GET / HTTP/01.1")),
    refused("a comma for the dot", "RFC 9112 2.3", _line(b"GET / HTTP/1,1")),
    refused("a space in the version", "RFC 9112 2.3", _line(b"GET / HTTP/ 1.1")),
    refused("another protocol's name", "RFC 9112 2.3", _line(b"GET / HTCPCP/1.1")),
    refused("a superscript digit", "RFC 9112 2.3", _line(b"GET / HTTP/1.\xb9")),
    refused("a TLS hello on a plain port", "RFC 9112 2.2", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"),
    refused("an SSH banner", "RFC 9112 3", b"SSH-2.0-OpenSSH_9.6\r\n"),
    refused("a Redis command", "RFC 9112 3", b"*1\r\n$4\r\nPING\r\n"),
    refused("a target over the limit", "RFC 9110 15.5.15", get(b"/" + b"a" * 9000), status=414),
    refused("a target that never ends", "RFC 9110 15.5.15", b"GET /" + b"a" * 9000, status=414),
    accepted(
        "a target at the limit", "RFC 9112 3", get(b"/" + b"a" * 8191), target=b"/" + b"a" * 8191
    ),
]
