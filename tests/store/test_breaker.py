"""When the store is left alone, and how long before it is tried again: the pure part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, THRESHOLD, Breaker, backoff


@given(st.lists(st.one_of(st.integers(0, 10), st.just("recover"))))
def test_breaker(events: list[int | str]) -> None:
    """It opens at the threshold and not before, says so once, and closes when told."""
    breaker, closed = Breaker(), True
    for event in events:
        if isinstance(event, int):
            opens = closed and event >= THRESHOLD
            assert breaker.judge(event) is opens
            closed = closed and not opens
        else:
            assert breaker.recover() is not closed
            closed = True
        assert breaker.closed is closed


def test_pauses_grow_and_start_again() -> None:
    """Probes come at growing intervals up to a bound, and at short ones after each opening."""
    breaker = Breaker()
    for _ in range(2):
        breaker.judge(THRESHOLD)
        pauses = [breaker.next_pause(1.0) for _ in range(6)]
        assert pauses[0] == FIRST_PAUSE_S
        assert pauses == sorted(pauses)
        assert pauses[-1] == LONGEST_PAUSE_S
        assert breaker.next_pause(0.0) == LONGEST_PAUSE_S / 2
        breaker.recover()


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff(attempt: int, share: float) -> None:
    """Full jitter between nothing and a bound that doubles up to two seconds."""
    assert 0 <= backoff(attempt, share) <= min(2.0, 0.05 * 2.0 ** min(attempt, 16))
