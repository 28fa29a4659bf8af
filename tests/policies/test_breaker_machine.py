"""The circuit breaker's machine: every path through its states, and hypothesis to find others."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policies.circuit_breaker.machine import REFUSED, Breaker, Settings, State

QUICK = Settings(min_requests=4, window=10.0, open_for=15.0, probes=2, ramp=10.0)


def call(breaker: Breaker, now: float, *, failed: bool = False, slow: bool = False) -> None:
    permit = breaker.admit(now, 0.0)
    assert permit != REFUSED
    breaker.record(permit, now, failed, slow)


def opened(settings: Settings = QUICK, now: float = 100.0) -> Breaker:
    breaker = Breaker(settings, now)
    for _ in range(settings.min_requests):
        call(breaker, now, failed=True)
    assert breaker.state is State.OPEN
    return breaker


def test_it_opens_at_the_ratio_and_not_below_the_volume() -> None:
    """Two of four is half; three of three is too few to mean anything."""
    breaker = Breaker(QUICK, 0.0)
    for _ in range(3):
        call(breaker, 1.0, failed=True)
    assert breaker.state is State.CLOSED
    call(breaker, 1.0)
    assert (breaker.state, breaker.reason) == (State.OPEN, "failure_ratio")


def test_old_calls_leave_the_window() -> None:
    """Failures of eleven seconds ago count no more; those of nine seconds ago do."""
    breaker = Breaker(QUICK, 0.0)
    for _ in range(3):
        call(breaker, 0.5, failed=True)
    call(breaker, 11.5, failed=True)
    assert (breaker.calls, breaker.failures, breaker.state) == (1, 1, State.CLOSED)
    call(breaker, 20.0, failed=True)
    assert breaker.calls == 2
    call(breaker, 1000.0)
    assert (breaker.calls, breaker.failures) == (1, 0)


def test_slow_calls_open_it() -> None:
    """By a ratio of their own."""
    breaker = Breaker(QUICK, 0.0)
    for _ in range(3):
        call(breaker, 1.0, slow=True)
    call(breaker, 1.0)
    assert breaker.state is State.CLOSED
    call(breaker, 1.0, slow=True)
    assert (breaker.state, breaker.reason) == (State.OPEN, "slow_ratio")


def test_open_refuses_until_its_time_is_over() -> None:
    """And says how long that is."""
    breaker = opened()
    assert breaker.admit(100.1, 0.0) == REFUSED
    assert breaker.retry_after(105.0) == 10.0
    assert breaker.admit(114.9, 0.0) == REFUSED
    assert breaker.admit(115.0, 0.0) != REFUSED
    assert breaker.state is State.HALF_OPEN


def test_probes_are_limited_and_must_all_be_good() -> None:
    """Two at once here; both good, and traffic comes back by and by."""
    breaker = opened()
    one, two = breaker.admit(115.0, 0.9), breaker.admit(115.0, 0.9)
    assert REFUSED not in (one, two)
    assert breaker.admit(115.0, 0.0) == REFUSED
    breaker.record(one, 115.1, False, False)
    assert breaker.admit(115.1, 0.0) == REFUSED
    breaker.record(two, 115.2, False, False)
    assert (breaker.state, breaker.reason) == (State.RAMPING, "probes")


@pytest.mark.parametrize(("failed", "slow", "reason"), [(True, False, "probe_failed"),
                                                        (False, True, "probe_slow")])  # fmt: skip
def test_a_bad_probe_opens_it_again(failed: bool, slow: bool, reason: str) -> None:
    """For as long as before; probes still under way mean nothing then."""
    breaker = opened()
    one, two = breaker.admit(115.0, 0.0), breaker.admit(115.0, 0.0)
    breaker.record(one, 116.0, failed, slow)
    assert (breaker.state, breaker.reason) == (State.OPEN, reason)
    breaker.record(two, 116.5, False, False)
    breaker.cancel(two)
    assert breaker.admit(130.9, 0.0) == REFUSED
    assert breaker.admit(131.0, 0.0) != REFUSED


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    """Its client left: the permit comes back, once, whoever gives it back twice."""
    breaker = opened()
    one, two = breaker.admit(115.0, 0.0), breaker.admit(115.0, 0.0)
    breaker.cancel(one)
    assert breaker.admit(115.1, 0.0) != REFUSED
    assert breaker.admit(115.1, 0.0) == REFUSED
    breaker.record(two, 115.2, False, False)
    assert breaker.state is State.HALF_OPEN


def test_probes_that_never_come_back_do_not_hold_it() -> None:
    """After open_for without any word it opens again, and new probes follow."""
    breaker = opened()
    lost = [breaker.admit(115.0, 0.0) for _ in range(2)]
    assert REFUSED not in lost
    assert breaker.admit(129.0, 0.0) == REFUSED
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit(130.0, 0.0) == REFUSED
    assert (breaker.state, breaker.reason) == (State.OPEN, "probe_lost")
    assert breaker.admit(145.0, 0.0) != REFUSED


def ramping() -> Breaker:
    breaker = opened()
    for permit in [breaker.admit(115.0, 0.0) for _ in range(2)]:
        breaker.record(permit, 115.0, False, False)
    assert breaker.state is State.RAMPING
    return breaker


def test_the_ramp_is_linear() -> None:
    """From a tenth to all of it, by the random number that comes with each call."""
    breaker = ramping()
    assert breaker.admit(115.0, 0.09) != REFUSED
    assert breaker.admit(115.0, 0.11) == REFUSED
    assert breaker.admit(120.0, 0.54) != REFUSED
    assert breaker.admit(120.0, 0.56) == REFUSED
    assert not breaker.is_open_to_all
    assert breaker.admit(125.0, 0.999) != REFUSED
    assert (breaker.state, breaker.reason) == (State.CLOSED, "ramp")
    assert breaker.is_open_to_all


def test_failures_on_the_ramp_open_it() -> None:
    """By the same ratio and volume."""
    breaker = ramping()
    for _ in range(4):
        call(breaker, 116.0, failed=True)
    assert breaker.state is State.OPEN


def test_no_ramp() -> None:
    """Zero means all at once."""
    breaker = opened(Settings(min_requests=4, probes=1, ramp=0.0))
    call(breaker, 115.0)
    assert breaker.state is State.CLOSED
    assert breaker.is_open_to_all


def test_what_began_before_a_change_decides_nothing_after_it() -> None:
    """A call of the closed state that fails late is no probe."""
    breaker = Breaker(QUICK, 100.0)
    late = breaker.admit(100.0, 0.0)
    for _ in range(4):
        call(breaker, 100.0, failed=True)
    probe = breaker.admit(115.0, 0.0)
    breaker.record(late, 115.1, True, False)
    assert breaker.state is State.HALF_OPEN
    breaker.cancel(late)
    breaker.record(probe, 115.2, False, False)
    assert breaker.state is State.HALF_OPEN


def test_by_hand() -> None:
    """Open and closed hold until they are taken back, whatever happens."""
    breaker = Breaker(QUICK, 0.0)
    breaker.force(State.OPEN, 1.0)
    assert breaker.admit(1_000.0, 0.0) == REFUSED
    breaker.force(State.CLOSED, 2.0)
    for _ in range(10):
        call(breaker, 3.0, failed=True)
    assert breaker.state is State.CLOSED
    breaker.force(None, 4.0)
    for _ in range(4):
        call(breaker, 5.0, failed=True)
    assert breaker.state.value == "open"


def test_every_change_is_told() -> None:
    """With the new state and its reason."""
    told: list[tuple[str, str]] = []
    breaker = Breaker(QUICK, 100.0)
    breaker.on_change = lambda each: told.append((each.state.value, each.reason))
    for _ in range(4):
        call(breaker, 100.0, failed=True)
    for permit in [breaker.admit(115.0, 0.0) for _ in range(2)]:
        breaker.record(permit, 115.0, False, False)
    call(breaker, 130.0)

    assert told == [("open", "failure_ratio"), ("half_open", "open_for"), ("ramping", "probes"),
                    ("closed", "ramp")]  # fmt: skip


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end in every way, or never, while time passes and people give orders."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.breaker = Breaker(QUICK, self.now)
        self.permits: list[int] = []
        self.returned: list[int] = []

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(random=st.floats(0, 1, exclude_max=True))
    def begin(self, random: float) -> None:
        before = self.breaker.state
        permit = self.breaker.admit(self.now, random)
        if permit != REFUSED:
            self.permits.append(permit)
        elif self.breaker.manual is None:
            assert before is not State.CLOSED

    @rule(at=st.integers(0, 1000), failed=st.booleans(), slow=st.booleans())
    def end(self, at: int, failed: bool, slow: bool) -> None:
        if self.permits:
            permit = self.permits.pop(at % len(self.permits))
            self.breaker.record(permit, self.now, failed, slow)
            self.returned.append(permit)

    @rule(at=st.integers(0, 1000))
    def leave(self, at: int) -> None:
        if self.permits:
            self.breaker.cancel(self.permits.pop(at % len(self.permits)))

    @rule(at=st.integers(0, 1000))
    def storm(self, at: int) -> None:
        for permit in self.permits:
            self.breaker.cancel(permit)
        self.permits.clear()

    @rule(state=st.sampled_from([State.OPEN, State.CLOSED, None]))
    def order(self, state: State | None) -> None:
        self.breaker.force(state, self.now)

    @invariant()
    def sums_are_right(self) -> None:
        breaker = self.breaker
        assert breaker.calls == sum(breaker._calls) >= breaker.failures + breaker.slow
        assert breaker.failures == sum(breaker._failures) >= 0
        assert breaker.slow == sum(breaker._slow) >= 0

    @invariant()
    def probes_are_bounded_and_all_accounted_for(self) -> None:
        breaker = self.breaker
        own = sum(permit == breaker.epoch for permit in self.permits)
        if breaker.state is State.HALF_OPEN:
            assert breaker._probing == own
            assert breaker._probing + breaker._passed <= QUICK.probes
        else:
            assert breaker._probing == 0

    @invariant()
    def the_short_way_is_only_for_closed(self) -> None:
        assert self.breaker.is_open_to_all == (self.breaker.state is State.CLOSED)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
