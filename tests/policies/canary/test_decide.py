"""Which side answers: rules first, then the caller's place; and what a stable share promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.groups import point
from gateway.policies.canary.decide import Facts, Side, decide

SHARES = st.floats(0.0, 1.0)
KEYS = st.binary(max_size=40)


@given(SHARES, SHARES, KEYS)
def test_a_growing_weight_moves_people_one_way(one: float, other: float, key: bytes) -> None:
    """Nobody who meets the canary at some weight leaves it at a higher one."""
    low, high = sorted((one, other))
    facts = Facts(excepted=False, chosen=False, point=point("route", key))
    if decide(low, facts) is Side.CANARY:
        assert decide(high, facts) is Side.CANARY


@given(SHARES, SHARES, st.booleans())
def test_rules_come_before_the_weight(weight: float, place: float, chosen: bool) -> None:
    """`unless` wins over all, `when` over the weight."""
    assert decide(weight, Facts(True, chosen, place)) is Side.STABLE
    assert decide(weight, Facts(False, True, place)) is Side.CANARY


@given(st.text(max_size=20), KEYS)
def test_everybody_has_one_point(name: str, key: bytes) -> None:
    """In [0, 1), the same one each time: none meets it at 0 %, all do at 100 %."""
    place = point(name, key)
    assert place == point(name, key)
    assert 0.0 <= place < 1.0
    facts = Facts(excepted=False, chosen=False, point=place)
    assert decide(0.0, facts) is Side.STABLE
    assert decide(1.0, facts) is Side.CANARY


def test_shares_are_even_and_independent() -> None:
    """Of many callers, a share takes as many as it says, and other ones for each route."""
    keys = [b"%d" % number for number in range(20_000)]
    one = {key for key in keys if point("one", key) < 0.05}
    other = {key for key in keys if point("other", key) < 0.05}
    assert 900 < len(one) < 1100
    assert len(one & other) < 100
