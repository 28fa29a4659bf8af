"""Ejection by consecutive failures: lengths, forgiveness, probation; as a state machine too."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.upstream.outliers import Outlier


def test_failures_in_a_row() -> None:
    """A good answer in between starts anew."""
    outlier = Outlier(3, 30, 300)
    assert [outlier.fail(), outlier.fail()] == [False, False]
    outlier.succeed()
    assert [outlier.fail(), outlier.fail(), outlier.fail()] == [False, False, True]


def test_ejections_get_longer() -> None:
    """Each lasts twice as long, up to the bound; up to a tenth of it is left to chance."""
    outlier = Outlier(1, 30, 300)
    now, lengths = 0.0, []
    for _ in range(6):
        lengths.append(outlier.eject(now, 0.0))
        now = outlier.until
        outlier.readmit(now)
    assert lengths == [30, 60, 120, 240, 300, 300]
    assert Outlier(1, 30, 300).eject(0.0, 0.999) == pytest.approx(27, abs=0.01)


def test_good_behaviour_is_rewarded() -> None:
    """Each stretch of `eject_for` without an ejection takes one away."""
    outlier = Outlier(1, 30, 300)
    for _ in range(3):
        outlier.eject(0.0, 0.0)
        outlier.readmit(0.0)
    assert outlier.eject(60.0, 0.0) == 60  # the second one again
    outlier.readmit(100.0)
    assert outlier.eject(10_000.0, 0.0) == 30


def test_probation() -> None:
    """Back from an ejection one failure is enough, until one answer was good."""
    outlier = Outlier(5, 30, 300)
    outlier.eject(0.0, 0.0)
    outlier.readmit(30.0)
    assert outlier.fail()
    outlier.eject(31.0, 0.0)
    outlier.readmit(91.0)
    outlier.succeed()
    assert not outlier.fail()


def test_late_news_of_an_ejected_target() -> None:
    """What began before the ejection neither prolongs it nor ends it."""
    outlier = Outlier(1, 30, 300)
    until = outlier.eject(0.0, 0.0)
    outlier.succeed()
    assert not outlier.fail()
    assert outlier.until == until


def test_a_reload_with_a_shorter_bound() -> None:
    """An ejection goes on over a reload, but not for longer than any may now."""
    before, after = Outlier(1, 100, 1000), Outlier(1, 5, 10)
    before.eject(0.0, 0.0)
    after.inherit(before, 20.0)
    assert after.until == 30.0


class OutlierMachine(RuleBasedStateMachine):
    """Whatever happens, a target is out for a bounded time, and only after enough failures."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.outlier = Outlier(3, 10, 80)
        self.row = 0

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.outlier.until and self.outlier.until <= self.now:
            self.outlier.readmit(self.now)
            self.row = 0

    @rule()
    def succeed(self) -> None:
        self.outlier.succeed()
        self.row = 0

    @rule(random=st.floats(0, 1, exclude_max=True), allowed=st.booleans())
    def fail(self, random: float, allowed: bool) -> None:
        was_out, on_probation = bool(self.outlier.until), self.outlier.probation
        wants = self.outlier.fail()
        if was_out:
            assert not wants
            return
        self.row += 1
        assert wants == (on_probation or self.row >= 3)
        if wants and allowed:
            seconds = self.outlier.eject(self.now, random)
            assert 9 <= seconds <= 80
            self.row = 0

    @precondition(lambda self: self.outlier.until)
    @rule()
    def restart(self) -> None:
        self.outlier.readmit(self.now, probation=False)
        self.row = 0

    @invariant()
    def bounded(self) -> None:
        assert self.outlier.until <= self.now + 80
        assert self.outlier.ejections >= 0


TestOutlierMachine = OutlierMachine.TestCase
