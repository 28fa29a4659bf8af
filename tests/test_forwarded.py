"""Trusted proxies: who the client is, and what the upstream is told."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarded import (
    FORWARDING_FIELDS,
    ClientAddress,
    TrustedProxies,
    forwarding_fields,
    node_address,
)
from gateway.message import Headers, Request

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PEER = "10.0.0.1"


def headers(*fields: tuple[str, str]) -> Headers:
    """Headers of pairs of text."""
    return Headers([(name.encode(), value.encode("latin-1")) for name, value in fields])


def client(*fields: tuple[str, str], peer: str = PEER) -> str:
    """The client's address as told by these fields."""
    return PROXIES.resolve(peer, headers(*fields)).ip


def sent(request: Request) -> dict[str, str]:
    """What the upstream is told, as text."""
    return {name.decode(): value.decode("latin-1") for name, value in forwarding_fields(request)}


def request(
    *fields: tuple[str, str],
    peer: str = "192.0.2.7",
    trusted: bool = False,
    scheme: str = "http",
    port: int = 8080,
) -> Request:
    """A request with these fields."""
    made = Request("GET", "/", b"", headers(*fields))
    made.peer, made.scheme, made.port, made.trusted = peer, scheme, port, trusted
    return made


def test_nobody_is_trusted_by_default() -> None:
    """Without trusted networks the fields are not looked at."""
    fields = headers(("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https"))

    assert TrustedProxies([]).resolve("10.0.0.1", fields) == ClientAddress("10.0.0.1")


def test_an_untrusted_peer_speaks_for_itself() -> None:
    """What a stranger says about forwarding is not believed."""
    fields = headers(("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1"))

    assert PROXIES.resolve("192.0.2.7", fields) == ClientAddress("192.0.2.7")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["203.0.113.9", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        (["10.9.9.9, 10.0.0.2"], "10.9.9.9"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:DB8::1]:4711"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1,,  ,"], "198.51.100.1"),
        (["garbage, 198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, garbage"], ""),
        (["198.51.100.1, unknown"], ""),
        (["198.51.100.1, 10.0.0.2, _hidden"], ""),
        (["198.51.100.1, 300.1.1.1"], ""),
        (["198.51.100.1:x"], ""),
        (["[198.51.100.1]"], ""),
        (["[2001:db8::1"], ""),
        (["[2001:db8::1]x"], ""),
        (['"198.51.100.1"'], ""),
        (["\xff\xfe"], ""),
        ([","], PEER),
        ([""], PEER),
        ([], PEER),
    ],
)
def test_x_forwarded_for(lines: list[str], expected: str) -> None:
    """The client is the rightmost untrusted hop, all lines joined; no address is no client."""
    assert client(*(("x-forwarded-for", line) for line in lines)) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=198.51.100.1"], "198.51.100.1"),
        (["For=198.51.100.1;proto=https;by=10.0.0.1"], "198.51.100.1"),
        (["for=198.51.100.1, for=10.0.0.2"], "198.51.100.1"),
        (["for=203.0.113.9", "for=198.51.100.1"], "198.51.100.1"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (['for="198.51.100.1:80" ; by=_gw'], "198.51.100.1"),
        (['for="198\\.51.100.1"'], "198.51.100.1"),
        (['for="_x, for=198.51.100.1'], "198.51.100.1"),
        (["for=unknown"], ""),
        (["for=_hidden"], ""),
        (["for=198.51.100.1, for=unknown"], ""),
        (["by=10.0.0.1"], ""),
        (["for=[2001:db8::1]"], ""),
        (["for=198.51.100.1;for=203.0.113.9"], ""),
        (["for = 198.51.100.1"], ""),
        (['for=198.51.100.1;host="a,for=203.0.113.9"'], ""),
        (["198.51.100.1"], ""),
    ],
)
def test_forwarded(lines: list[str], expected: str) -> None:
    """RFC 7239 is read as it is written, and nothing is guessed."""
    assert client(*(("forwarded", line) for line in lines)) == expected


def test_x_forwarded_for_goes_before_forwarded() -> None:
    """A Forwarded beside X-Forwarded-For may be the client's own, and is not believed."""
    fields = (("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.1"))

    assert client(*fields) == "198.51.100.1"


def test_scheme_and_host() -> None:
    """The scheme and host that the client used come from the hop that saw the client."""
    resolve = PROXIES.resolve
    one = headers(
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-host", "shop.example:8443"),
    )
    listed = headers(
        ("x-forwarded-for", "203.0.113.9, 198.51.100.1, 10.0.0.2"),
        ("x-forwarded-proto", "gopher, https, http"),
    )
    standard = headers(("forwarded", "for=198.51.100.1;proto=https;host=a.example, for=10.0.0.2"))

    assert resolve(PEER, one) == ("198.51.100.1", "https", "shop.example:8443", True)
    assert resolve(PEER, listed) == ("198.51.100.1", "https", None, True)
    assert resolve(PEER, standard) == ("198.51.100.1", "https", "a.example", True)


@pytest.mark.parametrize(
    ("scheme", "host"), [("ftp", "a b"), ("", ""), ("https;", 'a"b'), ("wss", "a/b"), ("h", "a@b")]
)
def test_garbage_about_scheme_and_host(scheme: str, host: str) -> None:
    """What is no scheme or host is not passed on, even from a trusted proxy."""
    fields = headers(("x-forwarded-proto", scheme), ("x-forwarded-host", host))

    assert PROXIES.resolve(PEER, fields) == (PEER, None, None, True)


def test_peers_as_the_system_writes_them() -> None:
    """IPv4 peers on an IPv6 socket are trusted like others; a unix socket's peer is not."""
    fields = (("x-forwarded-for", "198.51.100.1"),)

    assert client(*fields, peer="::ffff:10.0.0.1") == "198.51.100.1"
    assert client(*fields, peer="fd00::5") == "198.51.100.1"
    assert client(*fields, peer="") == ""


def test_a_very_long_chain() -> None:
    """An endless chain of trusted hops is cut off, quickly."""
    chain = ", ".join(["10.0.0.2"] * 3000)

    assert client(("x-forwarded-for", chain)) == "10.0.0.2"
    assert client(("x-forwarded-for", "," * 30_000)) == PEER
    told = sent(request(("x-forwarded-for", chain), peer=PEER, trusted=True))
    assert told["x-forwarded-for"].count(",") == 32
    assert told["forwarded"].count("for=") == 33


def test_memory_is_bounded() -> None:
    """Endless different chains don't fill the memory."""
    proxies = TrustedProxies([ip_network("10.0.0.0/8")])
    for number in range(5000):
        proxies.resolve(
            PEER, headers(("x-forwarded-for", f"198.51.{number // 250}.{number % 250}"))
        )

    proxies.resolve(PEER, headers(("x-forwarded-for", "198.51.100.1, " * 100)))

    assert len(proxies._memo) <= 4096
    assert max(sum(map(len, key)) for key in proxies._memo) <= 512


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FORWARDING_FIELDS)),
            st.binary(max_size=40)
            | st.lists(
                st.sampled_from([b"for=", b'"', b"[", b"]", b":", b"10.0.0.1", b",", b";", b"::1"])
            ).map(b"".join),
        ),
        max_size=6,
    )
)
def test_never_raises(raw: list[tuple[bytes, bytes]]) -> None:
    """Whatever a trusted proxy passes on, there is an answer, and its address is one or empty."""
    seen = PROXIES.resolve(PEER, Headers(raw))
    made = Request("GET", "/", b"", Headers(raw))
    made.peer, made.trusted = PEER, True

    assert seen.ip == "" or node_address(seen.ip) == seen.ip
    for _, value in forwarding_fields(made):
        assert b"\r" not in value or any(b"\r" in given for _, given in raw)


def test_a_strangers_fields_are_overwritten() -> None:
    """For an untrusted peer the upstream is told of the peer alone."""
    fields = sent(
        request(
            ("host", "api.internal:8080"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/evil"),
            ("x-real-ip", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
        )
    )

    assert fields == {
        "x-forwarded-for": "192.0.2.7",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "api.internal:8080",
        "x-forwarded-port": "8080",
        "forwarded": 'for=192.0.2.7;host="api.internal:8080";proto=http',
    }


def test_a_trusted_proxys_chain_is_continued() -> None:
    """For a trusted peer, it is appended to the chain, and what it said of the client stays."""
    fields = sent(
        request(
            ("host", "gateway.internal"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-prefix", "/shop"),
            ("forwarded", "for=203.0.113.9"),
            peer=PEER,
            trusted=True,
            scheme="https",
        )
    )

    assert fields == {
        "x-forwarded-prefix": "/shop",
        "x-forwarded-for": "198.51.100.1, 10.0.0.2, 10.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "shop.example",
        "x-forwarded-port": "443",
        "forwarded": "for=198.51.100.1;host=shop.example;proto=https, for=10.0.0.2, for=10.0.0.1",
    }


def test_a_chain_in_forwarded_is_continued() -> None:
    """A trusted peer that speaks RFC 7239 alone is understood; both fields tell one story."""
    fields = sent(
        request(
            ("host", "gw"),
            ("forwarded", 'for="[2001:db8::1]:99", for=unknown'),
            ("x-forwarded-port", "8443"),
            peer=PEER,
            trusted=True,
        )
    )

    assert fields["x-forwarded-for"] == "2001:db8::1, unknown, 10.0.0.1"
    assert fields["x-forwarded-port"] == "8443"
    assert fields["forwarded"] == (
        'for="[2001:db8::1]";host=gw;proto=http, for=unknown, for=10.0.0.1'
    )


def test_a_peer_without_an_address() -> None:
    """A client on a unix socket is unknown, not left out: its place in the chain stays."""
    fields = sent(request(("host", "a"), peer="", port=0, scheme="https"))

    assert fields["x-forwarded-for"] == "unknown"
    assert fields["forwarded"] == "for=unknown;host=a;proto=https"
    assert fields["x-forwarded-port"] == "443"


def test_hosts_that_are_none() -> None:
    """A Host that could break out of the field is not passed on in it."""
    fields = sent(request(("host", 'a";for="1.2.3.4'), peer="192.0.2.8"))

    assert "x-forwarded-host" not in fields
    assert fields["forwarded"] == "for=192.0.2.8;proto=http"


def test_peers_on_an_ipv6_socket() -> None:
    """Peers are written in their plain form."""
    assert sent(request(peer="::ffff:192.0.2.9"))["x-forwarded-for"] == "192.0.2.9"
    assert sent(request(peer="fe80::1%eth0"))["forwarded"] == 'for="[fe80::1]";proto=http'
