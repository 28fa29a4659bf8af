"""When cron expressions come: what cronsim says, and what clocks do when they are put forward."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery.schedules.ticks import Ticks

MADRID = "Europe/Madrid"
# Clocks go forward on 29 March 2026 at 2 and back on 25 October at 3.
FORWARD = datetime(2026, 3, 28, 22, tzinfo=UTC).timestamp()
BACK = datetime(2026, 10, 24, 21, tzinfo=UTC).timestamp()


def shown(cron: str, begin: float, count: int, zone: str = MADRID) -> list[str]:
    """The next ticks, as day, time and offset."""
    ticks = Ticks(cron, zone)
    return [
        ticks.shown(tick)[8:].replace(":00+", "+") for tick in islice(ticks.after(begin), count)
    ]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", ["29T03:00+02:00", "30T02:00+02:00"]),
        ("30 2 * * *", ["29T03:00+02:00", "30T02:30+02:00"]),
        ("0,30 2,3 * * *", ["29T03:00+02:00", "29T03:30+02:00", "30T02:00+02:00"]),
        ("30 1 * * *", ["29T01:30+01:00", "30T01:30+02:00"]),
        ("30 * * * *", ["28T23:30+01:00", "29T00:30+01:00", "29T01:30+01:00", "29T03:30+02:00"]),
        ("*/30 2 * * *", ["30T02:00+02:00", "30T02:30+02:00"]),
    ],
)
def test_clocks_go_forward(cron: str, expected: list[str]) -> None:
    """What falls into the gap comes at its end, once; what goes by the clock is not shown there."""
    assert shown(cron, FORWARD, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", ["25T02:00+02:00", "26T02:00+01:00"]),
        ("30 2 * * *", ["25T02:30+02:00", "26T02:30+01:00"]),
        ("0 3 * * *", ["25T03:00+01:00", "26T03:00+01:00"]),
        ("0 2-3 * * *", ["25T02:00+02:00", "25T03:00+01:00", "26T02:00+01:00"]),
        (
            "30 * * * *",
            [
                "24T23:30+02:00",
                "25T00:30+02:00",
                "25T01:30+02:00",
                "25T02:30+02:00",
                "25T02:30+01:00",
            ],
        ),
        (
            "*/30 2 * * *",
            [
                "25T02:00+02:00",
                "25T02:30+02:00",
                "25T02:00+01:00",
                "25T02:30+01:00",
                "26T02:00+01:00",
            ],
        ),
    ],
)
def test_clocks_go_back(cron: str, expected: list[str]) -> None:
    """A fixed time comes once, in the first of the two hours; what goes by the clock, in both."""
    assert shown(cron, BACK, len(expected)) == expected


def test_counting_from_within_the_hour_that_is_there_twice() -> None:
    """A fixed time that came in the first hour does not come again in the second."""
    ticks = Ticks("45 2 * * *", MADRID)
    within = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo(MADRID)).timestamp()

    assert ticks.shown(next(ticks.after(within))) == "2026-10-26T02:45:00+01:00"
    assert ticks.shown(next(ticks.before(within))) == "2026-10-25T02:45:00+02:00"


def test_clocks_that_are_put_by_half_an_hour_and_at_midnight() -> None:
    """Rare, and there all the same: Lord Howe Island, Havana, and a day that Samoa left out."""
    howe = datetime(2026, 4, 4, 14, tzinfo=UTC).timestamp()
    assert shown("*/15 2 * * *", howe, 2, "Australia/Lord_Howe") == [
        "05T02:00+10:30",
        "05T02:15+10:30",
    ]
    havana = datetime(2026, 3, 7, 12, tzinfo=UTC).timestamp()
    found = [Ticks("0 0 * * *", "America/Havana").shown(tick) for tick in
             islice(Ticks("0 0 * * *", "America/Havana").after(havana), 2)]  # fmt: skip
    assert found == ["2026-03-08T01:00:00-04:00", "2026-03-09T00:00:00-04:00"]
    samoa = Ticks("0 12 * * *", "Pacific/Apia")
    before = datetime(2011, 12, 28, 12, tzinfo=UTC).timestamp()
    days = [samoa.shown(tick)[:10] for tick in islice(samoa.after(before), 3)]
    assert days == ["2011-12-28", "2011-12-29", "2011-12-31"]


@pytest.mark.parametrize("zone", ["UTC", MADRID, "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "cron",
    [
        "*/5 * * * *",
        "0 2 * * *",
        "15,45 */3 * * MON-FRI",
        "0 0 L * *",
        "30 6 1,15 * FRI",
        "0 1 * * 7#1",
    ],
)
def test_the_same_as_cronsim(cron: str, zone: str) -> None:
    """Which keeps to Debian's cron; over a year, changes of the clock included, at some places."""
    for month in (1, 3, 10, 11):
        begin = datetime(2026, month, 20, 5, 7, tzinfo=UTC)
        simulated: list[float] = []
        for moment in CronSim(cron, begin.astimezone(ZoneInfo(zone))):
            if moment > begin + timedelta(days=14) or len(simulated) > 300:
                break
            if not simulated or moment.timestamp() > simulated[-1]:
                simulated.append(moment.timestamp())

        found = list(islice(Ticks(cron, zone).after(begin.timestamp()), len(simulated)))

        assert found == simulated


FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/20", "5,50", "*"]),
    st.sampled_from(["*", "2", "0,3", "*/6", "1-3"]),
    st.sampled_from(["*", "L", "1-7"]),
    st.just("*"),
    st.sampled_from(["*", "SUN", "1-5"]),
)
ZONES = st.sampled_from([MADRID, "Australia/Lord_Howe", "America/Havana", "Africa/Cairo"])


@settings(max_examples=40, deadline=None)
@given(FIELDS, ZONES, st.integers(0, 366 * 24 * 60), st.integers(1, 10_000))
def test_the_same_ticks_wherever_one_counts_from(
    fields: tuple[str, ...], zone: str, minute: int, later: int
) -> None:
    """Forwards from two places, and backwards, the same ones are found."""
    ticks = Ticks(" ".join(fields), zone)
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + minute * 60
    until = begin + 20 * 86400

    forwards = _until(ticks.after(begin), until)
    middle = begin + later * 60

    assert forwards == sorted(set(forwards))
    assert _until(ticks.after(middle), until) == [tick for tick in forwards if tick > middle]
    assert list(islice(ticks.before(until), len(forwards))) == forwards[::-1]


def _until(found: object, until: float) -> list[float]:
    ticks = []
    for tick in found:  # type: ignore[attr-defined]
        if tick > until:
            break
        ticks.append(tick)
    return ticks


def test_what_comes_rarely() -> None:
    """Leap days are found at once; what has stopped coming ends."""
    ticks = Ticks("0 0 29 2 *", "UTC")
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    assert [ticks.shown(tick)[:10] for tick in islice(ticks.after(begin), 2)] == [
        "2028-02-29", "2032-02-29",
    ]  # fmt: skip
    assert ticks.shown(next(ticks.before(begin)))[:10] == "2024-02-29"
