"""Who is used: ejections and their cap, checks, panic, priorities, slow start, reloads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.config.types import TargetAddress
from gateway.upstream.health import Health
from gateway.upstream.outliers import Outlier
from gateway.upstream.roster import Member, Roster, Rules
from gateway.upstream.target import Target


def member(
    port: int, weight: int = 1, priority: int = 0, health: bool = True, outliers: bool = True
) -> Member:
    target = Target(TargetAddress(host="t", port=port), weight, "", priority)
    return Member(
        target, Health(1, 1) if health else None, Outlier(1, 10, 80) if outliers else None
    )


def roster(*members: Member, **rules: Any) -> Roster:
    return Roster(members, Rules(**rules), lambda: 0.0)


def used(of: Roster) -> list[int]:
    return [target.address.port for target in of.used]


def told(of: Roster) -> list[str]:
    """The kinds of events since the last time."""
    events, of.events = of.events, []
    return [f"{event.kind} {event.label}".strip() for event in events]


def test_checks() -> None:
    """A target that fails its checks is left out until it passes them."""
    one, two = member(1), member(2)
    mine = roster(one, two)
    mine.checked(one, "", 0.0)
    mine.checked(one, "answered 500", 0.0)
    assert (used(mine), told(mine)) == ([2], ["unhealthy t:1"])
    mine.checked(one, "", 1.0)
    assert (used(mine), told(mine)) == ([1, 2], ["healthy t:1"])


def test_ejection_and_return() -> None:
    """A target is out for its time, and back by itself."""
    one, two = member(1), member(2)
    mine = roster(one, two)
    mine.failed(one, "500", 100.0)
    assert (used(mine), one.state, one.reason) == ([2], "ejected", "500")
    assert mine.next_at(100.0) == 110.0
    mine.advance(109.0)
    assert used(mine) == [2]
    mine.advance(110.0)
    assert (used(mine), one.state) == ([1, 2], "healthy")
    assert told(mine) == ["ejected t:1", "readmitted t:1"]
    assert mine.next_at(110.0) is None


@pytest.mark.parametrize(
    ("count", "share", "most"),
    [(1, 0.5, 0), (1, 1.0, 1), (2, 0.5, 1), (3, 0.5, 1), (5, 0.1, 1), (10, 0.3, 3), (4, 1.0, 4)],
)
def test_the_cap(count: int, share: float, most: int) -> None:
    """No more are ejected than that; one may be if there are two, and a lone target not."""
    members = [member(port) for port in range(1, count + 1)]
    mine = roster(*members, max_ejected=share)
    for each in members:
        mine.failed(each, "reset", 0.0)
    assert sum(each.ejected for each in members) == most
    assert told(mine).count("suppressed t:1") == (most == 0)


def test_what_checks_took_out_counts_for_the_cap() -> None:
    """Requests must not take the rest away too."""
    members = [member(port) for port in (1, 2, 3, 4)]
    mine = roster(*members)
    for each in members[:2]:
        mine.checked(each, "refused", 0.0)
    mine.failed(members[2], "reset", 0.0)
    assert used(mine) == [3, 4]


def test_panic() -> None:
    """When too little is left all are used; who is still out shows when there is enough again."""
    members = [member(port) for port in (1, 2, 3, 4, 5)]
    mine = roster(*members)
    for each in members[:3]:
        mine.checked(each, "refused", 0.0)
    assert used(mine) == [4, 5]
    told(mine)
    mine.checked(members[3], "refused", 0.0)
    assert (used(mine), mine.panic) == ([1, 2, 3, 4, 5], True)
    assert told(mine) == ["unhealthy t:4", "panic"]
    mine.checked(members[0], "", 1.0)
    assert (used(mine), mine.panic) == ([1, 5], False)
    assert told(mine) == ["healthy t:1", "calm"]


def test_without_panic_nobody_is_left() -> None:
    """At 0 % a target that is out gets nothing, whatever happens to the others."""
    one, two = member(1), member(2)
    mine = roster(one, two, panic=0.0)
    mine.checked(one, "refused", 0.0)
    mine.checked(two, "refused", 0.0)
    assert (used(mine), mine.panic) == ([], False)


def test_failover() -> None:
    """A lower priority is used while too little of the higher one is left, and no longer."""
    main = [member(port) for port in (1, 2, 3, 4, 5)]
    backup, last = member(6, priority=1), member(7, priority=5)
    mine = roster(last, backup, *main)
    assert (used(mine), mine.level) == ([1, 2, 3, 4, 5], 0)
    for each in main[:3]:
        mine.checked(each, "refused", 0.0)
    assert used(mine) == [4, 5]
    mine.checked(main[3], "refused", 0.0)
    assert (used(mine), mine.level) == ([5, 6], 1)
    mine.checked(main[4], "refused", 0.0)
    assert used(mine) == [6]
    mine.checked(backup, "refused", 0.0)
    assert (used(mine), mine.level) == ([7], 5)
    told(mine)
    for each in main[:2]:
        mine.checked(each, "", 1.0)
    assert (used(mine), mine.level) == ([1, 2], 0)
    assert told(mine) == ["healthy t:1", "healthy t:2", "level 0"]


def test_weight_zero_counts_for_nothing() -> None:
    """A target that takes no traffic is no reserve either."""
    one, two = member(1), member(2, weight=0)
    mine = roster(one, two)
    assert used(mine) == [1]
    mine.failed(two, "reset", 0.0)
    mine.checked(one, "refused", 0.0)
    assert (used(mine), mine.panic) == ([1], True)


def test_slow_start() -> None:
    """A target that is back ramps up, unless all came back together."""
    one, two = member(1), member(2)
    mine = roster(one, two, slow_start=10.0, max_ejected=1.0)
    mine.failed(one, "reset", 0.0)
    mine.advance(10.0)
    assert (mine.factors, one.state) == ({one.target: 0.1}, "ramping")
    assert mine.next_at(10.0) == 10.5
    mine.advance(15.0)
    assert mine.factors == {one.target: 0.5}
    mine.advance(20.0)
    assert (mine.factors, one.state, mine.next_at(20.0)) == ({}, "healthy", None)
    mine.failed(one, "reset", 20.0)
    mine.failed(two, "reset", 20.0)
    mine.advance(99.0)
    assert (used(mine), mine.factors) == ([1, 2], {})


def test_checks_end_an_ejection_when_they_bring_a_target_back() -> None:
    """It was restarted: what its requests said before holds no more."""
    one, two = member(1), member(2)
    mine = roster(one, two)
    mine.failed(one, "500", 0.0)
    mine.checked(one, "refused", 1.0)
    mine.checked(one, "", 2.0)
    assert used(mine) == [1, 2]


def test_a_passing_check_alone_ends_no_ejection() -> None:
    """A target whose health page is fine while its requests fail stays out."""
    one, two = member(1), member(2)
    mine = roster(one, two)
    mine.failed(one, "500", 0.0)
    mine.checked(one, "", 1.0)
    assert used(mine) == [2]


def test_a_reload_keeps_what_is_known() -> None:
    """Verdicts, ejections and ramps go on; a target that is new waits for its first check."""
    before = roster(member(1), member(2), member(3), slow_start=100.0)
    before.checked(before.members[0], "refused", 5.0)
    before.checked(before.members[0], "", 6.0)
    before.failed(before.members[1], "500", 10.0)
    after = roster(member(1), member(2), member(3), member(4), slow_start=100.0)
    after.inherit(before, 56.0 - 45.0, same=True)
    states = [each.state for each in after.members]
    assert states == ["ramping", "ejected", "healthy", "unchecked"]
    assert used(after) == [1, 3]
    after.checked(after.members[3], "", 12.0)
    assert used(after) == [1, 3, 4]
    after.advance(20.0)
    assert used(after) == [1, 2, 3, 4]


def test_a_reload_that_replaces_every_target() -> None:
    """Then all of them are new, and used until something is known."""
    before, after = roster(member(1)), roster(member(2), member(3))
    after.inherit(before, 0.0, same=True)
    assert (used(after), after.panic) == ([2, 3], True)


class RosterMachine(RuleBasedStateMachine):
    """Whatever happens: somebody is used, the cap holds, and time alone undoes every ejection."""

    @initialize(
        levels=st.lists(st.integers(0, 2), min_size=1, max_size=6), panic=st.floats(0.01, 1)
    )
    def begin(self, levels: list[int], panic: float) -> None:
        self.now = 0.0
        self.members = [member(port, 1, level) for port, level in enumerate(levels)]
        self.roster = roster(*self.members, panic=panic, slow_start=5.0)

    @rule(index=st.integers(0, 5), passed=st.booleans())
    def check(self, index: int, passed: bool) -> None:
        each = self.members[index % len(self.members)]
        self.roster.checked(each, "" if passed else "bad", self.now)

    @rule(index=st.integers(0, 5), good=st.booleans())
    def request(self, index: int, good: bool) -> None:
        each = self.members[index % len(self.members)]
        if good:
            assert each.outlier is not None
            each.outlier.succeed()
            return
        out = sum(not each.usable for each in self.members)
        was = each.ejected
        self.roster.failed(each, "reset", self.now)
        if each.ejected and not was:
            assert out + 1 <= max(1, len(self.members) // 2)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.roster.advance(self.now)
        for each in self.members:
            assert each.outlier is not None
            assert not each.ejected or each.outlier.until > self.now

    @rule()
    def reload(self) -> None:
        after = roster(
            *[member(index, 1, each.target.priority) for index, each in enumerate(self.members)],
            panic=self.roster._rules.panic, slow_start=5.0,
        )  # fmt: skip
        after.inherit(self.roster, self.now, same=True)
        assert [each.state for each in after.members] == [each.state for each in self.members]
        assert used(after) == used(self.roster)
        self.roster, self.members = after, after.members

    @invariant()
    def somebody_is_used(self) -> None:
        if not hasattr(self, "roster"):
            return
        used_now = set(self.roster.used)
        assert used_now
        if not self.roster.panic:
            assert all(each.usable for each in self.members if each.target in used_now)
        assert self.roster.factors.keys() < used_now or not self.roster.factors


TestRosterMachine = RosterMachine.TestCase
TestRosterMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
