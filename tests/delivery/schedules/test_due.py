"""Which ticks are fired now: on time, late, missed, with jitter, with clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.delivery.schedules.due import MOST, Rule, find
from gateway.delivery.schedules.ticks import Ticks

DAY = 86400.0
MIDNIGHT = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


def rule(missed: str = "one", cron: str = "0 0 * * *", jitter: float = 0.0) -> Rule:
    return Rule("nightly", Ticks(cron, "UTC"), missed, jitter)


@pytest.mark.parametrize("missed", ["skip", "one", "all"])
def test_on_time(missed: str) -> None:
    """A tick is fired when it comes, and up to a minute later, whatever the rule."""
    before = find(rule(missed), MIDNIGHT - 60, MIDNIGHT - 0.001)
    assert (before.fire, before.through, before.next_at) == ((), None, MIDNIGHT)

    for late in (0.0, 59.0):
        due = find(rule(missed), MIDNIGHT - 60, MIDNIGHT + late)
        assert (due.fire, due.passed, due.through) == ((MIDNIGHT,), 0, MIDNIGHT)
        assert due.next_at == MIDNIGHT + DAY


@pytest.mark.parametrize(("missed", "fired"), [("skip", []), ("one", [2]), ("all", [0, 1, 2])])
def test_missed(missed: str, fired: list[int]) -> None:
    """Three nights nobody was there for, found at noon."""
    due = find(rule(missed), MIDNIGHT - 60, MIDNIGHT + 2.5 * DAY)

    assert due.fire == tuple(MIDNIGHT + night * DAY for night in fired)
    assert due.passed == 3 - len(fired)
    assert due.through == MIDNIGHT + 2 * DAY
    assert due.next_at == MIDNIGHT + 3 * DAY


def test_missed_ones_before_one_on_time() -> None:
    """One stands for those before it; they are not fired beside it."""
    assert find(rule("one"), MIDNIGHT - 60, MIDNIGHT + 2 * DAY).fire == (MIDNIGHT + 2 * DAY,)
    assert find(rule("skip"), MIDNIGHT - 60, MIDNIGHT + 2 * DAY).fire == (MIDNIGHT + 2 * DAY,)


def test_what_is_caught_up_is_bounded() -> None:
    """Of a year of minutes the newest thousand, found at once."""
    due = find(rule("all", "* * * * *"), MIDNIGHT - 365 * DAY, MIDNIGHT)

    assert len(due.fire) == MOST
    assert due.fire[-1] == due.through == MIDNIGHT
    assert due.fire[0] == MIDNIGHT - (MOST - 1) * 60


def test_a_clock_that_goes_back() -> None:
    """Nothing is fired twice: it waits until the newest tick is over again."""
    due = find(rule("all"), MIDNIGHT + 3 * DAY, MIDNIGHT)

    assert (due.fire, due.through, due.next_at) == ((), None, MIDNIGHT + 4 * DAY)


def test_a_clock_that_goes_forward() -> None:
    """What it jumped over was missed."""
    assert find(rule("skip"), MIDNIGHT - 10, MIDNIGHT + 1000).passed == 1


def test_jitter_is_the_same_for_everybody() -> None:
    """It is within its bounds, differs from tick to tick and name to name, and never overtakes."""
    spread = rule("all", "* * * * *", jitter=300.0)
    delays = [spread.delay(MIDNIGHT + minute * 60) for minute in range(200)]
    assert delays == [
        rule("one", "0 0 * * *", 300.0).delay(MIDNIGHT + minute * 60) for minute in range(200)
    ]
    assert 0 <= min(delays) < 30 < 270 < max(delays) < 300
    assert Rule("other", spread.ticks, "one", 300.0).delay(MIDNIGHT) != spread.delay(MIDNIGHT)

    # Driven as a process does it: each tick once, in order, and none before its time.
    last = now = MIDNIGHT - 1
    fired: list[float] = []
    while len(fired) < 50:
        due = find(spread, last, now)
        for tick in due.fire:
            assert tick + spread.delay(tick) <= now
            fired.append(tick)
        last = due.through or last
        assert due.next_at is not None
        assert due.next_at > now
        now = due.next_at
    assert fired == [MIDNIGHT + minute * 60 for minute in range(len(fired))]
