"""Consistent hashing: keys stay, shares follow weights, no load above the bound."""

from __future__ import annotations

import random
from collections import Counter
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Principal
from gateway.upstream.hash_key import make_key
from gateway.upstream.ring import SLACK, Hashed, Ring, position
from gateway.upstream.target import Target
from tests.support.sending import make_exchange
from tests.upstream.test_balancer import targets

KEYS = [position(b"key %d" % number) for number in range(2000)]


def owners(mine: list[Target], factors: dict[Target, float] | None = None) -> list[Target | None]:
    ring = Ring(mine, factors)
    return [ring.find(key) for key in KEYS]


def test_positions_are_the_same_everywhere() -> None:
    """Gateways agree without a word, whatever their version of Python and its hash seed."""
    assert position(b"tenant-7") == 1630209491045354774


@pytest.mark.parametrize("weights", [(1,) * 5, (1, 2, 3), (100, 100), (1000, 1), (0, 1, 1)])
def test_shares(weights: tuple[int, ...]) -> None:
    """Each target gets about its share of the keys."""
    mine = targets(*weights)
    counts = Counter(owners(mine))
    for target in mine:
        share = target.weight / sum(weights)
        assert abs(counts[target] / len(KEYS) - share) < 0.1


@given(st.integers(2, 9), st.data())
def test_only_the_keys_of_a_target_that_leaves_move(count: int, data: Any) -> None:
    """The others keep every key; read backwards, one that joins takes keys and moves no others."""
    mine = targets(*[1] * count)
    gone = mine[data.draw(st.integers(0, count - 1))]
    before = owners(mine)
    after = owners([each for each in mine if each is not gone])
    for old, new in zip(before, after, strict=True):
        assert new is old or old is gone
    assert 0 < before.count(gone) < 3 * len(KEYS) / count


def test_a_ramp_takes_keys_step_by_step() -> None:
    """A target that comes back regains its own keys, more of them with each step, none twice."""
    mine = targets(1, 1, 1)
    whole = owners(mine)
    had: set[int] = set()
    for part in (0.1, 0.3, 0.6, 1.0):
        now = owners(mine, {mine[0]: part})
        has = {index for index, target in enumerate(now) if target is mine[0]}
        assert had <= has
        assert 0 < len(has) < (part + 0.25) * whole.count(mine[0]) + 1
        had = has
    assert had == {index for index, target in enumerate(whole) if target is mine[0]}


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans()), max_size=120),
)
def test_the_load_is_bounded(weights: list[int], steps: list[tuple[int, bool]]) -> None:
    """Whatever is asked for, nobody gets more than 1.25 of its share of what is active."""
    mine = targets(*weights)
    ring = Ring(mine)
    active: list[Target] = []
    for key, ends in steps:
        if ends and active:
            active.pop(key % len(active)).active -= 1
        target = ring.find(key)
        assert target is not None
        target.active += 1
        active.append(target)
        bound = ceil((1 + SLACK) * len(active) * target.weight / sum(weights))
        assert target.active <= max(1, bound)


def test_one_hot_key_is_shared() -> None:
    """A key that everybody asks for overflows to others, always in the same order."""
    mine = targets(1, 1, 1, 1)
    ring = Ring(mine)
    for _ in range(100):
        target = ring.find(7)
        assert target is not None
        target.active += 1
    assert max(each.active for each in mine) <= 32
    assert len([each for each in mine if each.active]) == 4


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any), st.data())
def test_each_target_is_offered_once(weights: list[int], data: Any) -> None:
    """With the tried ones left out each target comes up, whatever the loads; then none."""
    mine = targets(*weights)
    for target in mine:
        target.active = data.draw(st.integers(0, 9))
    ring = Ring(mine)
    tried: list[Target] = []
    while (found := ring.find(data.draw(st.integers(0, 2**64 - 1)), tried)) is not None:
        assert found not in tried
        tried.append(found)
    assert {*tried} == {target for target in mine if target.weight}


def test_huge_sets_have_a_bounded_ring() -> None:
    """Weights of any size and many targets don't make a ring of millions of points."""
    assert len(Ring(targets(*range(1, 1000)))._points) < 40_000


@pytest.mark.parametrize(
    ("balance", "given", "key"),
    [
        ("hash(ip)", {}, b"192.0.2.7"),
        ("hash(ip)", {"client": ""}, b""),
        ("hash(path)", {"path": "/a/b%20c"}, b"/a/b%20c"),
        ("hash(header:X-Tenant)", {"headers": [(b"x-tenant", b"seven")]}, b"seven"),
        ("hash(header:X-Tenant)", {}, b""),
        ("hash(query:user)", {"query": b"a=1&user=a+b%2B&user=2"}, b"a b+"),
        ("hash(query:user)", {"query": b"us%65r=1"}, b"1"),
        ("hash(query:user)", {"query": b"users=1&&user"}, b""),
        ("hash(cookie:sid)", {"headers": [(b"cookie", b'a=1; sid="x=y"')]}, b"x=y"),
        ("hash(cookie:sid)", {"headers": [(b"cookie", b"a=1"), (b"cookie", b"sid=2")]}, b"2"),
        ("hash(cookie:sid)", {"headers": [(b"cookie", b"xsid=1; ;=")]}, b""),
        ("hash(consumer)", {}, b""),
    ],
)  # fmt: skip
def test_keys(balance: str, given: dict[str, Any], key: bytes) -> None:
    """The part of the request that is named, decoded where two ways to write it are one value."""
    query = given.pop("query", b"")
    exchange = make_exchange(**given)
    exchange.request.query = query
    assert make_key(balance)(exchange) == key


def test_the_consumer_is_a_key() -> None:
    """The proved caller, not what a client says about itself."""
    exchange = make_exchange()
    exchange.principal = Principal("billing")
    assert make_key("hash(consumer)")(exchange) == b"billing"


def test_without_a_key_the_load_is_shared() -> None:
    """Requests that lack the key don't all go to one target."""
    mine = targets(1, 1, 1)
    hashed = Hashed(make_key("hash(header:x)"), mine, random.Random(3))
    counts = Counter(hashed.choose_for(make_exchange()) for _ in range(300))
    assert min(counts[target] for target in mine) > 60
    keyed = make_exchange(headers=[(b"x", b"1")])
    assert len({hashed.choose_for(keyed) for _ in range(9)}) == 1
    first = hashed.choose_for(keyed)
    assert first is not None
    assert hashed.choose_for(keyed, [first]) is not first


def test_what_is_remembered_is_bounded() -> None:
    """Keys come from clients: a new one with each request must not fill the memory."""
    hashed = Hashed(make_key("hash(ip)"), targets(1, 1), random.Random(3))
    for number in range(10_000):
        hashed.choose_for(make_exchange(client=f"client {number}"))
    assert len(hashed._positions) <= 4096
