"""Samples in, verdicts out: every expectation met and missed, and hypothesis for the search."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chaos.scenario import Expectation
from gateway.chaos.verdict import (
    Course,
    RouteFacts,
    RouteVerdict,
    Sample,
    judge,
    percent,
    quantile,
    recovery,
    seconds,
    times,
)

FAULT = Course(length=9.0, begins=2.0, ends=4.0)


def sample(sent: float, status: int = 200, *, took: float = 0.01, code: str = "") -> Sample:
    code = code or (str(status) if status >= 400 else "")
    return Sample("r", round(sent * 1000), sent, sent + took, status, code)


def history(*, until: float = 4.0, status: int = 503, took: float = 0.01) -> list[Sample]:
    """Ten requests a second for nine seconds; those from 2 s on fail until `until`."""
    moments = [n / 10 for n in range(90)]
    return [
        sample(at, status, took=took) if 2.0 <= at < until else sample(at, took=0.01)
        for at in moments
    ]


def verdict(
    samples: list[Sample],
    course: Course = FAULT,
    *,
    calls: int | dict[int, int] = 1,
    failures: dict[str, int] | None = None,
    in_trouble: bool = True,
    upstream: str = "u",
    **wanted: Any,
) -> RouteVerdict:
    counts = calls if isinstance(calls, dict) else {each.number: calls for each in samples}
    facts = RouteFacts("r", upstream, in_trouble, counts)
    expectation = Expectation.model_validate(wanted)
    return judge(facts, samples, course, expectation, window=1.0, failures=failures or {})


def missed(found: RouteVerdict) -> list[str]:
    return [check.name for check in found.checks if not check.ok]


def test_what_is_told_of_a_fault() -> None:
    """Counts, ratios, latencies and amplification are those of the fault; recovery is after it."""
    found = verdict(history(took=0.5), calls=3)

    assert (found.requests, found.classes, found.codes) == (90, {"2xx": 70, "5xx": 20}, {"503": 20})
    assert (found.success_before, found.failed_during) == (1.0, 1.0)
    assert found.latency_during is not None
    assert found.latency_before is not None
    assert found.latency_during.p99 == pytest.approx(0.5)
    assert found.latency_before.p99 == pytest.approx(0.01)
    assert (found.amplification, found.upstream_requests, found.recovery) == (3.0, 270, 0.0)
    assert found.ok


def test_every_expectation_is_met() -> None:
    """One history, bounds that hold."""
    found = verdict(
        history(until=5.5), max_error_ratio="100%", only_codes=[503], p99="20ms",
        max_amplification=1.0, recovers_within="1500ms", no_failures_on="others",
    )  # fmt: skip

    assert missed(found) == []
    assert found.recovery == 1.5


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"max_error_ratio": "99%"}, "max_error_ratio"),
        ({"only_codes": ["circuit_open"]}, "only_codes"),
        ({"p99": "5ms"}, "p99"),
        ({"max_amplification": 0.9}, "max_amplification"),
        ({"recovers_within": "1400ms"}, "recovers_within"),
        ({"no_failures_on": ["other"]}, "no_failures_on"),
    ],
)
def test_each_expectation_can_be_missed(wanted: dict[str, Any], name: str) -> None:
    """The same history, bounds that don't; the verdict says what was wanted and seen."""
    found = verdict(history(until=5.5), failures={"other": 2}, **wanted)

    assert missed(found) == [name]
    assert not found.ok
    assert all(check.wanted and check.seen for check in found.checks)


def test_what_was_under_way_when_the_fault_began_is_not_usual() -> None:
    """A request that was sent before and met the fault spoils no baseline."""
    found = verdict([*history(), sample(1.99, 503, took=0.05)])

    assert found.success_before == 1.0
    assert found.requests == 91


def test_it_never_recovered() -> None:
    """No window is good up to the end: no time is made up, and the check says so."""
    found = verdict(history(until=9.0), recovers_within="10s")

    assert found.recovery is None
    assert [check.seen for check in found.checks] == ["not before the end"]


def test_others_are_those_that_are_not_in_trouble() -> None:
    """`others` asks a route in trouble for nothing, and any other one for no failure of its own."""
    bad, good = history(), history(status=200)

    assert missed(verdict(bad, failures={"r": 20}, no_failures_on="others")) == []
    assert missed(verdict(bad, failures={"r": 20}, in_trouble=False, no_failures_on="others")) == [
        "no_failures_on"
    ]
    assert missed(verdict(good, in_trouble=False, no_failures_on="others")) == []


def test_without_good_answers_before_nothing_is_believed() -> None:
    """A route whose requests were refused all along fails its baseline, whatever else holds."""
    refused = [sample(n / 10, 401) for n in range(90)]

    found = verdict(refused, max_error_ratio=0)

    assert missed(found) == ["baseline"]
    assert "401" in found.checks[0].seen
    nothing = verdict([], max_error_ratio=0)
    assert missed(nothing) == ["baseline", "max_error_ratio"]
    assert "a higher rate" in nothing.checks[0].wanted
    assert nothing.checks[1].seen == "no requests during the fault"
    assert verdict(refused).ok  # nobody expected anything


def test_a_route_without_an_upstream_amplifies_nothing() -> None:
    """It has no figure, and is not held to one."""
    found = verdict(history(), upstream="", max_amplification=0)

    assert found.amplification is None
    assert missed(found) == []


def test_without_a_fault_all_of_it_is_judged() -> None:
    """Then there is no baseline and no recovery."""
    found = verdict(history(), Course(9.0), max_error_ratio="25%", recovers_within="1s")

    assert found.failed_during == pytest.approx(20 / 90)
    assert [check.name for check in found.checks] == ["max_error_ratio"]


def test_what_counts_as_failed() -> None:
    """5xx, 429 and no whole answer do; what the client is told it did wrong does not."""
    statuses = {200: False, 304: False, 404: False, 429: True, 500: True, 503: True, 0: True}

    assert {status: sample(0, status).failed for status in statuses} == statuses
    assert [sample(0, status).good for status in (200, 302, 404, 0)] == [True, True, False, False]


def test_figures_are_written_for_people() -> None:
    """Units, and as many digits as mean something."""
    assert [percent(0.123), percent(0), percent(None)] == ["12.3 %", "0 %", "-"]
    assert [seconds(0.0123), seconds(0.9996), seconds(12.34)] == ["12.3 ms", "1 s", "12.3 s"]
    assert [times(1.25), times(None)] == ["1.25 x", "-"]


moments = st.lists(st.tuples(st.integers(0, 80).map(lambda n: n / 10), st.booleans()), max_size=60)


@given(moments, st.sampled_from([0.5, 0.9, 1.0]), st.sampled_from([0.5, 1.0, 2.0]))
def test_recovery_is_the_first_good_window(
    found: list[tuple[float, bool]], ratio: float, window: float
) -> None:
    """What the search gives is good, whole, not empty; nothing before it is."""
    samples = sorted(
        (sample(at, 200 if good else 500) for at, good in found), key=lambda each: each.sent
    )
    ends, until = 2.0, 8.0
    got = recovery(samples, ends, until, ratio=ratio, window=window)

    def is_good(step: int) -> bool:
        begin = ends + step * window / 10
        # As the search places its windows: by bisection, the end left out.
        all_times = [each.sent for each in samples]
        inside = samples[bisect_left(all_times, begin) : bisect_left(all_times, begin + window)]
        whole = begin + window <= until + 1e-9
        return (
            whole
            and bool(inside)
            and (sum(each.good for each in inside) >= ratio * len(inside) - 1e-9)
        )

    steps = range(ceil((until - ends) / (window / 10)) + 1)
    first = next((step for step in steps if is_good(step)), None)
    assert got == (None if first is None else pytest.approx(first * window / 10))


@given(moments, st.integers(0, 59))
def test_one_more_failure_never_speeds_recovery(
    found: list[tuple[float, bool]], place: int
) -> None:
    """Turning a good answer bad gives the same moment, a later one, or none."""
    samples = sorted(
        (sample(at, 200 if good else 500) for at, good in found), key=lambda each: each.sent
    )
    before = recovery(samples, 2.0, 8.0, ratio=1.0, window=1.0)
    if place < len(samples):
        samples[place] = sample(samples[place].sent, 500)
    after = recovery(samples, 2.0, 8.0, ratio=1.0, window=1.0)

    if before is None:
        assert after is None
    else:
        assert after is None or after >= before


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_enough_are_below(values: list[float], share: float) -> None:
    """The smallest one of which that holds."""
    values.sort()
    found = quantile(values, share)

    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6
    assert sum(each < found for each in values) < share * len(values) + 1e-6


@given(moments, st.dictionaries(st.integers(0, 8000), st.integers(0, 9)))
def test_a_verdict_adds_up(found: list[tuple[float, bool]], calls: dict[int, int]) -> None:
    """Whatever was seen, counts are whole, shares are shares, and no check is left out."""
    samples = [sample(at, 200 if good else 500) for at, good in found]
    got = verdict(samples, calls=calls, max_error_ratio=1, only_codes=[500], recovers_within="1s")

    assert sum(got.classes.values()) == got.requests == len(samples)
    assert got.failed_during is None or 0 <= got.failed_during <= 1
    assert got.upstream_requests == sum(calls.get(each.number, 0) for each in samples)
    assert {"max_error_ratio", "only_codes", "recovers_within"} <= {c.name for c in got.checks}
    assert got.ok == all(check.ok for check in got.checks)
