"""When a mirror is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.mirror.decide import FAILURES, PAUSE_S, Patience

STEPS = st.lists(st.tuples(st.floats(0.0, 0.7), st.booleans()), max_size=60)


@given(STEPS)
def test_a_dead_mirror_is_left_alone(steps: list[tuple[float, bool]]) -> None:
    """After failures in a row at most one copy in a pause; after an answer all; never none."""
    patience, now, in_a_row, last = Patience(), 0.0, 0, 0.0
    for waited, answers in steps:
        now += waited
        waits = patience.waits(now)
        allowed = patience.allows(now)
        assert allowed is not waits
        if in_a_row < FAILURES:
            assert allowed
        elif allowed:
            assert now - last >= PAUSE_S
        else:
            assert now - last < PAUSE_S
        if allowed:
            last = now
            in_a_row = 0 if answers else in_a_row + 1
            patience.ended(answers, now)
