"""Which target is chosen: shares by weight, no bursts, ties in turn, none twice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.types import TargetAddress
from gateway.upstream.balancer import (
    LeastRequests,
    Nobody,
    PowerOfTwo,
    RoundRobin,
    make_balancer,
    smooth_cycle,
)
from gateway.upstream.target import Target


def targets(*weights: int) -> list[Target]:
    return [
        Target(TargetAddress(host="10.0.0.1", port=port + 1), weight)
        for port, weight in enumerate(weights)
    ]


def test_smooth_cycle() -> None:
    """A heavy target's turns are spread over the round."""
    assert smooth_cycle([5, 1, 1]) == [0, 0, 1, 0, 2, 0, 0]
    assert smooth_cycle([100, 100]) == [0, 1]
    assert smooth_cycle([0, 3]) == [1]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any))
def test_cycles_hold_every_share(weights: list[int]) -> None:
    """Whatever the weights, everyone above 0 has turns, near its share, in a bounded round."""
    cycle = smooth_cycle(weights)
    turns = Counter(cycle)
    assert len(cycle) <= 10_012
    for index, weight in enumerate(weights):
        assert (turns[index] > 0) == (weight > 0)
        share = weight / sum(weights)
        assert abs(turns[index] / len(cycle) - share) < 0.01


@pytest.mark.parametrize("kind", ["round_robin", "least_requests", "p2c"])
@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (2, 1), (0, 1, 3)])
def test_every_target_is_offered_once(kind: str, weights: tuple[int, ...]) -> None:
    """With the tried ones left out, each target with a weight comes up, and then none."""
    mine = targets(*weights)
    balancer = make_balancer(kind, mine, random.Random(3))
    for _ in range(5):
        tried: list[Target] = []
        while (target := balancer.choose(tried)) is not None:
            assert target not in tried
            tried.append(target)
        assert {*tried} == {target for target in mine if target.weight}


def test_round_robin_shares() -> None:
    """Over whole rounds every target gets its weight, wherever the round begins."""
    mine = targets(1, 2, 3)
    balancer = RoundRobin(mine, random.Random(5))
    counts = Counter(balancer.choose() for _ in range(60))
    assert [counts[target] for target in mine] == [10, 20, 30]


def test_a_dead_target_is_not_asked_more_often() -> None:
    """Stand-ins do not use up the turns of the rotation."""
    mine = targets(1, 1)
    balancer = RoundRobin(mine, random.Random(5))
    asked: Counter[Target] = Counter()
    for _ in range(20):
        target = balancer.choose()
        assert target is not None
        asked[target] += 1
        if target is mine[0]:
            assert balancer.choose([target]) is mine[1]
    assert asked[mine[0]] == 10


def test_least_requests() -> None:
    """The target with the fewest active exchanges for its weight is next; ties take turns."""
    mine = targets(1, 1, 2)
    balancer = LeastRequests(mine, random.Random(5))
    assert balancer.choose() is mine[2]
    mine[2].active = 3
    assert {balancer.choose() for _ in range(4)} == {mine[0], mine[1]}
    mine[0].active = 2
    assert {balancer.choose() for _ in range(4)} == {mine[1]}
    mine[1].active = 5
    assert {balancer.choose() for _ in range(4)} == {mine[2]}


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (3, 1), (1, 2, 5), (0, 1, 1)])
def test_p2c_shares(weights: tuple[int, ...]) -> None:
    """Among idle targets the shares are the weights."""
    mine = targets(*weights)
    balancer = PowerOfTwo(mine, random.Random(11))
    counts = Counter(balancer.choose() for _ in range(6000))
    for target in mine:
        assert counts[target] / 6000 == pytest.approx(target.weight / sum(weights), abs=0.03)


@given(st.integers(2, 8), st.integers(0, 2**32), st.data())
def test_p2c_never_takes_the_busiest(count: int, seed: int, data: st.DataObject) -> None:
    """Whichever two are drawn, the busiest of all loses."""
    mine = targets(*[1] * count)
    for target in mine:
        target.active = data.draw(st.integers(0, 5))
    mine[0].active = 6
    balancer = PowerOfTwo(mine, random.Random(seed))
    assert mine[0] not in {balancer.choose() for _ in range(20)}


def test_p2c_keeps_the_load_even() -> None:
    """With exchanges that end by chance, no target is far from the others."""
    mine, rng = targets(1, 1, 1, 1), random.Random(2)
    balancer = PowerOfTwo(mine, rng)
    highest = 0
    for _ in range(4000):
        target = balancer.choose()
        assert target is not None
        target.active += 1
        if sum(each.active for each in mine) > 40:
            rng.choice([each for each in mine if each.active]).active -= 1
        loads = [each.active for each in mine]
        highest = max(highest, max(loads) - min(loads))
    assert highest <= 12


def test_nobody() -> None:
    """Without a target that takes traffic there is none to choose."""
    assert make_balancer("p2c", targets(0), random.Random(1)).choose() is None
    assert Nobody().choose() is None
