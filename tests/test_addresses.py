"""Addresses as text, and sets of networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import Networks, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
    ],
)
def test_parse(text: str, expected: str) -> None:
    """Addresses have one form; IPv4 in IPv6 is IPv4."""
    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "192.0.2", "192.0.2.256", "010.0.0.1", "fe80::1%eth0", "1" * 5000, "::1::",
     "192.0.2.1 ", "٣.0.0.1", "localhost"],
)  # fmt: skip
def test_no_address(text: str) -> None:
    """What is no address is None, whatever it is."""
    assert parse_address(text) is None


def test_networks() -> None:
    """An address is in a set if it is in one of its networks."""
    networks = Networks(
        [ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("fd00::/8")]
    )
    inside = ["10.255.0.1", "192.0.2.1", "fd12::1", "::ffff:10.1.2.3"]
    outside = ["11.0.0.1", "192.0.2.2", "fe80::1", "", "unknown", "::a00:1", "::1"]

    assert [text for text in inside + outside if networks.contains(text)] == inside
    # Once more, from memory.
    assert [text for text in inside + outside if networks.contains(text)] == inside


def test_link_local_peer() -> None:
    """A peer's zone is no part of its address."""
    assert Networks([ip_network("fe80::/10")]).contains("fe80::1%eth0")


def test_mapped_networks() -> None:
    """A network of IPv4-mapped addresses is one of IPv4 addresses, which they are read as."""
    networks = Networks([ip_network("::ffff:10.0.0.0/104")])

    assert networks.contains("10.1.2.3")
    assert networks.contains("::ffff:10.1.2.3")
    assert not networks.contains("192.0.2.1")


def test_everything_and_nothing() -> None:
    """A /0 holds every address of its version; the empty set holds none and is false."""
    assert Networks([ip_network("0.0.0.0/0")]).contains("203.0.113.9")
    assert not Networks([ip_network("0.0.0.0/0")]).contains("::1")
    assert not Networks([]).contains("10.0.0.1")
    assert not Networks([])


def test_memory_is_bounded() -> None:
    """Endless different addresses don't fill the memory."""
    networks = Networks([ip_network("10.0.0.0/8")])

    for number in range(5000):
        assert networks.contains(f"10.0.{number // 250}.{number % 250}")
    assert len(networks._memo) <= 4096


@given(
    st.ip_addresses(),
    st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), max_size=6),
)
def test_agrees_with_ipaddress(address: object, spans: list[tuple[object, int]]) -> None:
    """The look-up says what comparing with each network says."""
    networks = [
        ip_network(f"{start}/{min(length, ip_address(str(start)).max_prefixlen)}", strict=False)
        for start, length in spans
    ]
    parsed = parse_address(str(address))
    spellings = [parsed]
    if isinstance(parsed, IPv4Address):
        spellings.append(IPv6Address(f"::ffff:{parsed}"))
    # A mapped address counts in networks of mapped addresses, and not in all that hold those too.
    expected = any(
        each in network and (each is parsed or network.prefixlen >= 96)
        for each in spellings
        for network in networks
    )

    assert Networks(networks).contains(str(address)) is expected
