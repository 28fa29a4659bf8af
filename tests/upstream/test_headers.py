"""The rules for fields that pass through the gateway (RFC 9110 sections 7.6 and 7.7)."""

from __future__ import annotations

import pytest

from gateway.errors import LOOP_DETECTED, GatewayError
from gateway.http1.head import parse_response_head
from gateway.message import Headers, Request
from gateway.upstream.headers import (
    RequestFields,
    peer_keep_alive,
    response_headers,
    response_trailers,
)

Pairs = list[tuple[bytes, bytes]]
RULES = RequestFields("lockgate-ab12", frozenset({b"x-tenant-id"}))


def made(*fields: tuple[bytes, bytes], host: str = "preserve", method: str = "GET") -> Pairs:
    """The upstream's fields for a client's fields, without Host and the forwarding fields."""
    request = Request(
        method, "/", b"", Headers([(b"host", b"api.test"), *fields]), client="192.0.2.7",
        peer="192.0.2.7",
    )  # fmt: skip
    return [
        pair
        for pair in RULES.make(request, host)
        if pair[0] not in (b"host", b"forwarded") and not pair[0].startswith(b"x-forwarded-")
    ]


VIA = (b"via", b"1.1 lockgate-ab12")


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"content-length",
        b"http2-settings",
    ],
)
def test_fields_of_this_hop_are_dropped(name: bytes) -> None:
    """What belongs to the client's connection does not reach the upstream."""
    assert made((name, b"x"), (b"accept", b"*/*")) == [(b"accept", b"*/*"), VIA]


def test_fields_that_connection_names_are_dropped() -> None:
    """Several lines, any case, blanks and empty members."""
    fields = [
        (b"connection", b"X-One,  x-two"),
        (b"x-one", b"1"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"x-four", b"4"),
        (b"connection", b", X-THREE ,close"),
    ]
    assert made(*fields) == [(b"x-four", b"4"), VIA]


@pytest.mark.parametrize(
    "name",
    [b"x-correlation-id", b"traceparent", b"x-tenant-id", b"authorization", b"content-type"],
)
def test_connection_cannot_remove_what_the_gateway_vouches_for(name: bytes) -> None:
    """A client can't strip fields that policies wrote, or that say how the content is read."""
    assert made((b"connection", name), (name, b"1")) == [(name, b"1"), VIA]


def test_connection_cannot_remove_forwarding_fields() -> None:
    """`Connection: X-Forwarded-For, Via` changes nothing about what the gateway writes."""
    headers = Headers(
        [
            (b"host", b"a"),
            (b"connection", b"x-forwarded-for, forwarded, via, host, x-forwarded-proto"),
        ]
    )
    request = Request("GET", "/", b"", headers, client="192.0.2.7", peer="192.0.2.7")
    fields = dict(RULES.make(request, "preserve"))
    assert fields[b"x-forwarded-for"] == b"192.0.2.7"
    assert fields[b"x-forwarded-proto"] == b"http"
    assert b"192.0.2.7" in fields[b"forwarded"]
    assert fields[b"via"] == VIA[1]
    assert fields[b"host"] == b"a"


@pytest.mark.parametrize(
    "name",
    [
        b"x_forwarded_for",
        b"x-forwarded_for",
        b"x_forwarded-for",
        b"x_real_ip",
        b"x_correlation_id",
        b"x_user_id",
        b"x-user_id",
        b"x_tenant_id",
        b"content_length",
        b"transfer_encoding",
        b"proxy_authorization",
    ],
)
def test_other_spellings_of_the_gateways_fields_are_dropped(name: bytes) -> None:
    """Servers that read "-" and "_" as the same must not see a client's word for ours."""
    assert made((name, b"evil"), (b"x_other", b"1")) == [(b"x_other", b"1"), VIA]


def test_forwarding_fields_of_strangers_are_replaced() -> None:
    """What a client says about itself is overwritten, each field once."""
    headers = Headers(
        [
            (b"host", b"api.test"),
            (b"x-forwarded-for", b"6.6.6.6"),
            (b"x-real-ip", b"6.6.6.6"),
            (b"forwarded", b"for=6.6.6.6"),
        ]
    )
    request = Request("GET", "/", b"", headers, client="192.0.2.7", peer="192.0.2.7")
    fields = RULES.make(request, "preserve")
    assert not [pair for pair in fields if b"6.6.6.6" in pair[1]]
    assert [value for name, value in fields if name == b"x-forwarded-for"] == [b"192.0.2.7"]


@pytest.mark.parametrize(
    ("te", "kept"),
    [(b"trailers", True), (b"gzip;q=0.5, Trailers", True), (b"gzip", False), (b"", False)],
)
def test_te(te: bytes, kept: bool) -> None:
    """Of TE only `trailers` passes, and Connection then names it (RFC 9110 section 10.1.4)."""
    expected = [(b"te", b"trailers"), (b"connection", b"TE")] if kept else []
    assert made((b"te", te), (b"connection", b"te")) == [VIA, *expected]


def test_via_is_appended() -> None:
    """Our entry stands behind those of the hops before us, with the version that we received."""
    assert made((b"via", b"1.0 fred")) == [(b"via", b"1.0 fred"), VIA]
    request = Request("GET", "/", b"", Headers([]), http_version="1.0", peer="192.0.2.7")
    assert (b"via", b"1.0 lockgate-ab12") in RULES.make(request, "preserve")


@pytest.mark.parametrize(
    ("via", "loop"),
    [
        (b"1.1 lockgate-ab12", True),
        (b"1.1 a, 1.1 lockgate-ab12 (comment), 1.1 b", True),
        (b"HTTP/1.1 lockgate-ab12", True),
        (b"1.1 lockgate-ab123", False),
        (b"1.1 other (lockgate-ab12)", False),
        (b"lockgate-ab12", False),
    ],
)
def test_loops(via: bytes, loop: bool) -> None:
    """Our own pseudonym in Via, and nothing that only looks like it, is a loop."""
    if loop:
        with pytest.raises(GatewayError) as caught:
            made((b"via", b"1.1 x"), (b"via", via))
        assert caught.value.kind is LOOP_DETECTED
    else:
        assert VIA in made((b"via", via))


def test_host_comes_first() -> None:
    """Host is the first field, or absent where the target's own is to be used."""
    request = Request("GET", "/", b"", Headers([(b"a", b"1"), (b"host", b"api.test")]))
    assert RULES.make(request, "preserve")[0] == (b"host", b"api.test")
    assert RULES.make(request, "fixed.test")[0] == (b"host", b"fixed.test")
    assert b"host" not in dict(RULES.make(request, "upstream"))


def answered(*lines: bytes, status: bytes = b"200 OK", method: str = "GET") -> Pairs:
    head = b"\r\n".join([b"HTTP/1.1 " + status, *lines]) + b"\r\n\r\n"
    return response_headers(parse_response_head(head, method))


def test_response_fields() -> None:
    """Hop-by-hop fields stay here; Via, Server and Proxy-Status pass; Content-Length once."""
    assert answered(
        b"Via: 1.1 inner",
        b"Connection: X-Hop, Content-Length",
        b"X-Hop: 1",
        b"Proxy-Authenticate: Basic",
        b"Content-Length: 2",
        b"Server: demo",
        b"Content-Length: 2",
        b"Trailer: X-Sum",
    ) == [
        (b"via", b"1.1 inner"),
        (b"server", b"demo"),
        (b"trailer", b"X-Sum"),
        (b"content-length", b"2"),
    ]


def test_no_length_beside_204() -> None:
    """A 204 has no Content-Length (RFC 9110 section 8.6); a 304 and an answer to HEAD may."""
    assert answered(b"Content-Length: 5", status=b"204 No Content") == []
    assert answered(b"Content-Length: 5", status=b"304 Not Modified") != []
    assert answered(b"Content-Length: 5", method="HEAD") != []


def test_trailers() -> None:
    """Only what may stand in a trailer passes (RFC 9110 section 6.5.1)."""
    raw = [(b"x-sum", b"1"), (b"host", b"evil"), (b"set-cookie", b"a=b"), (b"grpc-status", b"0")]
    assert response_trailers(raw) == [(b"x-sum", b"1"), (b"grpc-status", b"0")]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 4.0),
        (b"max=3, timeout=20", 19.0),
        (b"Timeout=1", 0.5),
        (b"timeout=0", 0.0),
        (b"timeout=900", 60.0),
        (b"timeout=x", 60.0),
        (b"", 60.0),
        (b'timeout="5"', 4.0),
    ],
)
def test_keep_alive(value: bytes, seconds: float) -> None:
    """The upstream's promise, a little shortened, and never more than our own bound."""
    assert peer_keep_alive(value, 60.0) == seconds
