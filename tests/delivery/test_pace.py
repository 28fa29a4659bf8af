"""How many deliveries at once: what grows, what comes down, and within which bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.pace import CROWDED_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, STEP_ASIDE_S, Pace


def test_failures_halve_and_successes_double_up_to_there() -> None:
    """Then one by one."""
    pace = Pace(16)
    pace.failed()
    pace.failed()
    assert pace.allowed == 4
    seen = []
    for _ in range(4):
        pace.succeeded(0.0)
        seen.append(pace.allowed)
    assert seen == [5, 6, 7, 8]
    for _ in range(20):
        pace.succeeded(0.0)
    assert pace.allowed == 16


def test_a_target_that_is_spared() -> None:
    """Nobody asks until then; one asks then; those who find out late wait for the same moment."""
    pace = Pace(8)
    assert pace.paused(10.0, 2.0, 0.5) == 2.0
    assert pace.paused(11.0, 9.0, 0.5) == 1.0
    assert pace.room(0, 11.9) == 0
    assert pace.room(0, 12.0) == 1
    assert pace.room(1, 12.0) == 0
    grown = []
    for _ in range(4):
        pace.succeeded(12.0)
        grown.append(pace.allowed)
    assert grown == [2, 4, 5, 6]


def test_pauses_grow_while_nothing_is_known() -> None:
    """Up to a longest, and begin anew after a success."""
    pace, now, waits = Pace(8), 0.0, []
    for _ in range(10):
        waits.append(pace.paused(now, 0.0, 0.999))
        now = pace.until
    assert waits == sorted(waits)
    assert waits[0] <= FIRST_PAUSE_S
    assert waits[-1] <= LONGEST_PAUSE_S
    pace.succeeded(now)
    assert pace.paused(now, 0.0, 0.0) == FIRST_PAUSE_S / 2


def test_no_room_is_no_trouble() -> None:
    """One less for each that found none; nobody waits long; it does not grow for a while."""
    pace = Pace(20)
    for _ in range(10):
        assert STEP_ASIDE_S <= pace.crowded(1.0, 0.5) <= 2 * STEP_ASIDE_S
    assert pace.allowed == 10
    assert pace.room(4, 1.0) == 6
    pace.succeeded(1.0)
    assert pace.allowed == 10
    pace.succeeded(1.0 + CROWDED_S)
    assert pace.allowed == 11


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.sampled_from(["ok", "bad", "spared", "crowded"]), st.floats(0, 5))),
)
def test_always_within_bounds(limit: int, steps: list[tuple[str, float]]) -> None:
    """Never less than one, never more than configured, and every pause ends."""
    pace, now = Pace(limit), 0.0
    for what, number in steps:
        now += number
        if what == "ok":
            pace.succeeded(now)
        elif what == "bad":
            pace.failed()
        elif what == "crowded":
            pace.crowded(now, number / 5.01)
        else:
            wait = pace.paused(now, number if number > 1 else 0.0, number / 5.01)
            assert 0 < wait <= LONGEST_PAUSE_S
        assert 1 <= pace.allowed <= limit
        assert pace.until <= now + LONGEST_PAUSE_S
        assert pace.room(0, max(now, pace.until)) >= 1
