"""Whose bucket a request takes from; nothing a client sends breaks or splits that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Exchange, Headers, Principal, Request
from gateway.observability.families import RATE_LIMIT_DECISIONS, Counts
from gateway.policies.rate_limit.config import LimitConfig
from gateway.policies.rate_limit.keys import ABSENT, value_of
from gateway.policies.rate_limit.plan import NO_TIER, RouteFacts, make_plans

Make = Callable[..., Exchange]


def keys(exchange: Exchange, *limits: dict[str, Any]) -> tuple[bytes, ...]:
    """The keys of this request under these limits."""
    configs = [LimitConfig.model_validate(limit) for limit in limits]
    route = RouteFacts("orders.read", b"lg", Counts(RATE_LIMIT_DECISIONS))
    return make_plans(configs, route, 1)[NO_TIER].keys(exchange)


def tag(key: bytes) -> bytes:
    """What a cluster hashes: between the first brace and the first that closes it."""
    begin = key.index(b"{") + 1
    return key[begin : key.index(b"}", begin)]


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("consumer", b"cbilling"),
        ("ip", b"i10.0.0.7"),
        ("route", b"r"),
        ("header:X-Tenant", b"hacme"),
        ("header:X-Other", ABSENT),
        ("claim:tenant", b"lt1"),
        ("claim:https://x/org", b"l7"),
        ("claim:groups", b'l["a"]'),
        ("claim:none", ABSENT),
        ("claim:other", ABSENT),
    ],
)
def test_values(make_exchange: Make, per: str, expected: bytes) -> None:
    """Each kind of caller has a letter of its own; absent is one value for all."""
    exchange = make_exchange("GET", ("x-tenant", "acme"), client="10.0.0.7")
    claims = {"tenant": "t1", "https://x/org": 7, "groups": ["a"], "none": None}
    exchange.principal = Principal("billing", claims)

    assert value_of(per)(exchange) == expected


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("10.0.0.7", b"i10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", b"i20010db800010002/64"),
        ("2001:db8:1:2::ffff", b"i20010db800010002/64"),
        ("::ffff:10.0.0.7", b"i10.0.0.7"),
        ("fe80::1%eth0", b"ife80000000000000/64"),
        ("", b"i"),
    ],
)
def test_addresses(make_exchange: Make, client: str, expected: bytes) -> None:
    """An IPv6 caller is its network: it can change the rest of its address at will."""
    assert value_of("ip")(make_exchange(client=client)) == expected


def test_nobody_was_proved(make_exchange: Make) -> None:
    """Per consumer without a consumer is per address; per claim is one bucket for all of them."""
    exchange = make_exchange(client="10.0.0.7")

    assert value_of("consumer")(exchange) == b"i10.0.0.7"
    assert value_of("claim:tenant")(exchange) == ABSENT


def test_a_consumer_named_like_an_address(make_exchange: Make) -> None:
    """It does not share the address's bucket."""
    named, anonymous = make_exchange(client="10.0.0.8"), make_exchange(client="10.0.0.7")
    named.principal = Principal("10.0.0.7")

    assert keys(named, {"rate": "1/s"}) != keys(anonymous, {"rate": "1/s"})


@given(st.text(), st.dictionaries(st.just("t"), st.text() | st.integers() | st.none()))
def test_any_name(consumer: str, claims: dict[str, Any]) -> None:
    """No name breaks a key or makes a long one; lone surrogates come with JSON's escapes."""
    request = Request("GET", "/", b"", Headers([]))
    exchange = Exchange(request, 0.0)
    exchange.principal = Principal(consumer, claims)
    for per in ("consumer", "claim:t"):
        assert len(value_of(per)(exchange)) <= 65


def test_lone_surrogate() -> None:
    """JSON can hold half of a surrogate pair, and so can a token."""
    request = Request("GET", "/", b"", Headers([]))
    exchange = Exchange(request, 0.0)
    exchange.principal = Principal("\ud800", {"t": "\ud800"})

    assert value_of("consumer")(exchange) == b"c\xed\xa0\x80"
    assert value_of("claim:t")(exchange) == b"l\xed\xa0\x80"


@given(st.lists(st.binary(max_size=80), min_size=2, max_size=2, unique=True))
def test_different_callers_have_different_keys(values: list[bytes]) -> None:
    """Whatever stands in a value, braces and colons too."""
    found: list[tuple[bytes, ...]] = []
    for value in values:
        request = Request("GET", "/", b"", Headers([]))
        exchange = Exchange(request, 0.0)
        exchange.principal = Principal(value.decode("latin-1"))
        one = {"rate": "1/s"}
        found.append(keys(exchange, one, one | {"rate": "9/day"}))
        found.append(keys(exchange, one, {"rate": "9/s", "per": "route"})[:1])
    everything = [key for some in found for key in some]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("consumer", ["plain", "a}b", "{a}", "}", "{", ""])
def test_one_slot(make_exchange: Make, consumer: str) -> None:
    """All keys of a request share a hash tag, whether the limits are per one thing or several."""
    exchange = make_exchange(client="10.0.0.7")
    exchange.principal = Principal(consumer)
    alike = keys(exchange, {"rate": "1/s"}, {"rate": "100/day"})
    mixed = keys(exchange, {"rate": "1/s"}, {"rate": "5/s", "per": "ip"}, {"rate": "100/day"})

    assert len({tag(key) for key in alike}) == 1
    assert {tag(key) for key in mixed} == {b"orders.read"}
    assert len(set(mixed)) == 3


def test_callers_are_spread_over_a_cluster(make_exchange: Make) -> None:
    """Limits that are per one thing have a tag for each caller."""
    found = set()
    for number in range(10):
        exchange = make_exchange()
        exchange.principal = Principal(f"c{number}")
        found.add(tag(keys(exchange, {"rate": "1/s"}, {"rate": "100/day"})[0]))
    assert len(found) == 10
