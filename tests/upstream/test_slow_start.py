"""Slow start: a target that is back gets part of its share, however much the balancer likes it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancer import make_balancer
from gateway.upstream.slow_start import Ramp, factor
from tests.upstream.test_balancer import targets


def test_the_ramp() -> None:
    """A tenth at first, then linearly up to all of it."""
    assert [factor(elapsed, 10) for elapsed in (0, 0.5, 2.5, 9, 10, 99)] == [
        0.1, 0.1, 0.25, 0.9, 1.0, 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["round_robin", "least_requests", "p2c"])
@pytest.mark.parametrize("part", [0.1, 0.5])
def test_a_share_of_the_share(kind: str, part: float) -> None:
    """Also where the balancer prefers it for being idle, which every target that is back is."""
    mine = targets(1, 1, 2)
    mine[0].active = mine[1].active = 50
    ramp = Ramp(make_balancer(kind, mine, random.Random(4)), mine, {mine[2]: part})
    counts = Counter(ramp.choose() for _ in range(4000))
    assert counts[mine[2]] / 4000 <= 0.5 * part + 0.01
    if kind == "least_requests":
        assert counts[mine[2]] / 4000 >= 0.5 * part - 0.01


def test_it_gets_its_first_request_at_once() -> None:
    """So that a probation ends soon, for good or for bad."""
    mine = targets(1, 1)
    mine[0].active = 9
    ramp = Ramp(make_balancer("least_requests", mine, random.Random(4)), mine, {mine[1]: 0.1})
    assert ramp.choose() is mine[1]
    assert {ramp.choose() for _ in range(18)} == {mine[0]}


def test_there_may_be_nobody_else() -> None:
    """If all others were tried, a ramping target is better than none."""
    mine = targets(1, 1)
    ramp = Ramp(make_balancer("round_robin", mine, random.Random(4)), mine, {mine[1]: 0.1})
    assert {ramp.choose([mine[0]]) for _ in range(9)} == {mine[1]}
    assert ramp.choose(mine) is None


@given(
    st.sampled_from(["round_robin", "least_requests", "p2c"]),
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.floats(0.1, 0.9),
    st.integers(0, 2**32),
)
def test_no_bursts(kind: str, weights: list[int], part: float, seed: int) -> None:
    """In any stretch of choices it gets its part, and two more at most."""
    mine = targets(*weights)
    ramp = Ramp(make_balancer(kind, mine, random.Random(seed)), mine, {mine[0]: part})
    got = [ramp.choose() is mine[0] for _ in range(150)]
    limit = weights[0] / sum(weights) * part
    for begin in range(0, 150, 10):
        for end in range(begin + 1, 151, 10):
            assert sum(got[begin:end]) <= limit * (end - begin) + 3
