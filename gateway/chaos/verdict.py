"""From what clients saw to a verdict. Pure: samples in, verdicts out; no clock, no chance.

Times are seconds since the scenario began. A request belongs to the moment at which it was sent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from gateway.chaos.scenario import Expectation

# How finely the first good window is looked for, in parts of the window.
_STEPS: Final = 10
# Fewer requests than this before the fault tell nothing about what is usual.
MIN_BASELINE: Final = 3
# A smaller share of good answers before the fault than this is no usual state to come back to.
_USUAL: Final = 0.5
_TOO_MANY: Final = 429

Formatter = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as its client saw it. `status` is 0 if no whole answer came.

    `code` is empty for what did not fail; else the gateway's code, the status of an upstream's
    answer as text, or a word of `scenario.CLIENT_CODES`.
    """

    route: str
    number: int
    sent: float
    ended: float
    status: int
    code: str = ""

    @property
    def failed(self) -> bool:
        """No whole answer, a server's failure, or told to come again later."""
        return self.status == 0 or self.status >= 500 or self.status == _TOO_MANY

    @property
    def good(self) -> bool:
        """An answer below 400."""
        return 0 < self.status < 400


@dataclass(frozen=True, slots=True)
class Course:
    """When what happened. The fault is everything between the first and the last calm stretch.

    Without a fault, `begins` and `ends` are None and everything is judged as one stretch.
    """

    length: float
    begins: float | None = None
    ends: float | None = None

    @property
    def judged(self) -> tuple[float, float]:
        """The stretch for which error ratio, p99 and amplification are told."""
        if self.begins is None or self.ends is None:
            return 0.0, self.length
        return self.begins, self.ends


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what was seen."""

    name: str
    ok: bool
    wanted: str
    seen: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds to the whole answer."""

    p50: float
    p99: float


@dataclass(slots=True)
class RouteVerdict:
    """All that is told of one route. Ratios and latencies are None where nothing was sent."""

    route: str
    upstream: str
    in_trouble: bool
    skipped: str = ""
    ok: bool = True
    requests: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    success_before: float | None = None
    latency_before: Latency | None = None
    failed_during: float | None = None
    latency_during: Latency | None = None
    upstream_requests: int = 0
    amplification: float | None = None
    recovery: float | None = None
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """What the configuration says of a route, and which upstream requests each of its had."""

    route: str
    upstream: str
    in_trouble: bool
    calls: Mapping[int, int]


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that `share` of all are at or below. `values` sorted."""
    return values[max(0, ceil(share * len(values)) - 1)]


def latency(samples: Sequence[Sample]) -> Latency | None:
    """The latencies of some requests, failed ones too: a client has waited for those as well."""
    if not samples:
        return None
    times = sorted(each.ended - each.sent for each in samples)
    return Latency(quantile(times, 0.5), quantile(times, 0.99))


def success(samples: Sequence[Sample]) -> float | None:
    """The share of good answers."""
    return sum(each.good for each in samples) / len(samples) if samples else None


def recovery(
    samples: Sequence[Sample], ends: float, until: float, *, ratio: float, window: float
) -> float | None:
    """Seconds from `ends` to the first window whose share of good answers is `ratio` or more.

    Windows lie wholly between `ends` and `until`, and hold at least one request. None if there is
    no such window. The samples are sorted by `sent`.
    """
    times = [each.sent for each in samples]
    good = [0]
    for each in samples:
        good.append(good[-1] + each.good)
    step = 0
    while (begin := ends + step * window / _STEPS) + window <= until + 1e-9:
        first, last = bisect_left(times, begin), bisect_left(times, begin + window)
        if last > first and good[last] - good[first] >= ratio * (last - first) - 1e-9:
            return round(begin - ends, 6)
        step += 1
    return None


def usual(samples: Sequence[Sample], begins: float | None) -> list[Sample]:
    """The requests that were sent and answered before the fault, which met nothing of it."""
    return [] if begins is None else [each for each in samples if each.ended <= begins]


def between(samples: Sequence[Sample], begin: float, end: float) -> list[Sample]:
    """The requests that were sent from `begin` until before `end`."""
    return [each for each in samples if begin <= each.sent < end]


def judge(
    facts: RouteFacts,
    samples: Sequence[Sample],
    course: Course,
    expectation: Expectation,
    *,
    window: float,
    failures: Mapping[str, int],
) -> RouteVerdict:
    """The verdict on one route. `failures` are those of every route during the fault, by name."""
    samples = sorted((each for each in samples if each.route == facts.route),
                     key=lambda each: each.sent)  # fmt: skip
    begin, end = course.judged
    before = usual(samples, course.begins)
    during = between(samples, begin, end)
    verdict = RouteVerdict(facts.route, facts.upstream, facts.in_trouble, requests=len(samples))
    verdict.classes = classes(samples)
    verdict.codes = dict(sorted(Counter(each.code for each in samples if each.code).items()))
    verdict.success_before, verdict.latency_before = success(before), latency(before)
    verdict.latency_during = latency(during)
    verdict.upstream_requests = sum(facts.calls.get(each.number, 0) for each in samples)
    if during:
        verdict.failed_during = sum(each.failed for each in during) / len(during)
        if facts.upstream:
            seen = sum(facts.calls.get(each.number, 0) for each in during)
            verdict.amplification = seen / len(during)
    if course.ends is not None and verdict.success_before:
        verdict.recovery = recovery(
            samples, course.ends, course.length, ratio=verdict.success_before, window=window
        )
    _check(verdict, course, expectation, before=len(before), failures=failures)
    verdict.ok = all(check.ok for check in verdict.checks)
    return verdict


def classes(samples: Sequence[Sample]) -> dict[str, int]:
    """How many answers there were of each class of status; `none` is no whole answer."""
    found = Counter(f"{each.status // 100}xx" if each.status else "none" for each in samples)
    return dict(sorted(found.items()))


def _check(
    verdict: RouteVerdict,
    course: Course,
    wanted: Expectation,
    *,
    before: int,
    failures: Mapping[str, int],
) -> None:
    checks = verdict.checks
    if wanted.model_fields_set:
        _check_baseline(verdict, course, before)
    if wanted.max_error_ratio is not None:
        share = verdict.failed_during
        checks.append(_at_most("max_error_ratio", share, wanted.max_error_ratio, percent))
    if wanted.only_codes is not None:
        strange = sorted(set(verdict.codes) - set(wanted.only_codes))
        seen = ", ".join(strange) or "none other"
        listed = ", ".join(wanted.only_codes) or "none"
        checks.append(Check("only_codes", not strange, listed, seen))
    if wanted.p99 is not None:
        during = verdict.latency_during
        p99 = None if during is None else during.p99
        checks.append(_at_most("p99", p99, wanted.p99, seconds))
    if wanted.max_amplification is not None and verdict.upstream:
        most = wanted.max_amplification
        checks.append(_at_most("max_amplification", verdict.amplification, most, times))
    if wanted.recovers_within is not None and course.ends is not None:
        checks.append(_check_recovery(verdict, wanted.recovers_within))
    if wanted.no_failures_on is not None:
        checks += _check_others(verdict, wanted.no_failures_on, failures)


def _check_baseline(verdict: RouteVerdict, course: Course, before: int) -> None:
    """Without good answers before the fault, nothing that is seen in it means anything."""
    if course.begins is None:
        return
    good = verdict.success_before or 0.0
    if before < MIN_BASELINE:
        wanted = f"{MIN_BASELINE} requests before the fault: a higher rate, or --route"
        verdict.checks.append(Check("baseline", False, wanted, str(before)))
    elif good < _USUAL:
        wanted = "good answers before the fault: say under requests what to send"
        seen = f"{percent(good)} good ({', '.join(verdict.codes)})"
        verdict.checks.append(Check("baseline", False, wanted, seen))


def _at_most(name: str, seen: float | None, most: float, shown: Formatter) -> Check:
    if seen is None:
        return Check(name, False, f"at most {shown(most)}", "no requests during the fault")
    return Check(name, seen <= most + 1e-9, f"at most {shown(most)}", shown(seen))


def _check_recovery(verdict: RouteVerdict, within: float) -> Check:
    seen = verdict.recovery
    told = "not before the end" if seen is None else seconds(seen)
    ok = seen is not None and seen <= within + 1e-9
    return Check("recovers_within", ok, f"at most {seconds(within)}", told)


def _check_others(
    verdict: RouteVerdict, listed: list[str] | str, failures: Mapping[str, int]
) -> list[Check]:
    names: Collection[str] = listed
    if isinstance(listed, str):
        # Said once, by the route that it is about.
        names = [] if verdict.in_trouble else [verdict.route]
    return [
        Check("no_failures_on", not failures.get(name, 0), f"{name}: none",
              f"{name}: {failures.get(name, 0)} failed")
        for name in names
    ]  # fmt: skip


def percent(value: float | None) -> str:
    """0.0123 is `1.2 %`."""
    return "-" if value is None else f"{value * 100:.3g} %"


def seconds(value: float | None) -> str:
    """0.0123 is `12 ms`, 2.5 is `2.5 s`."""
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def times(value: float | None) -> str:
    """1.25 is `1.25 x`."""
    return "-" if value is None else f"{value:.2f} x"
