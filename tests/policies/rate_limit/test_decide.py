"""The arithmetic of limits, against slow models that are obviously right."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policies.rate_limit.decide import Bucket, Limit, Quota, State, decide

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_700_000_000 * SECOND


class SlowBucket:
    """A bucket of tokens, as everybody draws it, with fractions."""

    def __init__(self, rate: Fraction, burst: int, cost: int) -> None:
        self.rate, self.burst, self.cost = rate, burst, cost
        self.tokens, self.at = Fraction(burst), 0

    def take(self, now_us: int) -> bool:
        filled = self.tokens + self.rate * (now_us - self.at)
        self.tokens, self.at = min(Fraction(self.burst), filled), now_us
        if self.tokens < self.cost:
            return False
        self.tokens -= self.cost
        return True


def take(limit: Limit, state: State | None, now_us: int) -> tuple[bool, State | None, list[int]]:
    """One request against one limit: whether it passes, the state after it, and the reply."""
    reply, [changed] = decide([limit], [True], [state], now_us)
    return bool(reply[0]), changed or state, reply


COUNTS = st.integers(1, 2000) | st.sampled_from([999_983, 7_000_001, 10**12])
PERIODS = st.sampled_from([1000, SECOND, 7 * SECOND, 60 * SECOND, DAY, 30 * DAY])


@settings(max_examples=120, deadline=None)
@given(
    COUNTS,
    PERIODS,
    st.integers(1, 50),
    st.integers(1, 3),
    st.lists(st.integers(0, 5) | st.integers(0, 3 * DAY), max_size=60),
)
def test_bucket_against_the_model(
    count: int, period_us: int, burst: int, cost: int, steps: list[int]
) -> None:
    """Every decision, and what remains, are those of a bucket of exact fractions."""
    burst = max(burst, cost)
    bucket = Bucket(count, period_us, burst, cost)
    slow = SlowBucket(Fraction(count, period_us), burst, cost)
    state: State | None = None
    now = START
    for step in steps:
        now += step
        passed, state, reply = take(bucket, state, now)
        assert passed == slow.take(now)
        assert bucket.remaining(reply[1], reply[2]) == slow.tokens // 1


@given(COUNTS, PERIODS, st.integers(1, 50), st.lists(st.integers(0, SECOND), max_size=20))
def test_retry_is_the_first_moment(
    count: int, period_us: int, burst: int, steps: list[int]
) -> None:
    """After a refusal: at the moment told the request passes, and a microsecond earlier not."""
    bucket = Bucket(count, period_us, burst)
    state: State | None = None
    now = START
    for step in [0] * (burst + 1) + steps:
        now += step
        passed, state, reply = take(bucket, state, now)
        if passed:
            continue
        retry = bucket.retry_us(reply[1], reply[2])
        assert retry > 0
        assert take(bucket, state, now + retry)[0]
        assert not take(bucket, state, now + retry - 1)[0]


@given(COUNTS, PERIODS, st.integers(1, 50), st.lists(st.integers(-DAY, DAY), max_size=40))
def test_a_clock_that_jumps(count: int, period_us: int, burst: int, steps: list[int]) -> None:
    """Wherever the clock goes, nobody waits longer than it takes to fill the bucket."""
    bucket = Bucket(count, period_us, burst)
    state: State | None = None
    now = START
    for step in steps:
        now += step
        _, state, reply = take(bucket, state, now)
        retry = bucket.retry_us(reply[1], reply[2])
        assert 0 <= retry <= -(-bucket.unit // bucket.parts)
        assert take(bucket, state, now + retry)[0]
        assert 0 <= bucket.remaining(reply[1], reply[2]) <= burst


@pytest.mark.parametrize("count", [3, 7, 999_983, 3_000_000, 10**9])
def test_no_drift(count: int) -> None:
    """Rates whose interval is no whole number of microseconds are kept exactly, for long."""
    bucket = Bucket(count, SECOND, 1)
    state: State | None = (START, 0)
    # As if every request came at the very moment it may: the arrival times add up exactly.
    for number in range(1, 2001):
        assert state is not None
        level = bucket.charged((0, state[1]))
        state = (state[0] + level[0], level[1])
        exact = Fraction(number * SECOND, count)
        assert state[0] - START + Fraction(state[1], bucket.parts) == exact


def test_rate_that_changed() -> None:
    """A bucket that is far ahead under an old rate is at most empty under the new one."""
    slow, fast = Bucket(1, 30 * DAY, 1), Bucket(100, SECOND, 100)
    _, state, _ = take(slow, None, START)

    passed, state, reply = take(fast, state, START)
    assert not passed
    assert fast.retry_us(reply[1], reply[2]) == 10_000
    assert take(fast, state, START + 10_000)[0]


def test_all_or_nothing() -> None:
    """If one limit refuses, the others are not charged; one in report mode refuses nothing."""
    wide, narrow = Bucket(10, SECOND, 10), Bucket(1, SECOND, 1)
    _, [_, spent] = decide([wide, narrow], [True, True], [None, None], START)

    reply, changed = decide([wide, narrow], [True, True], [None, spent], START)
    assert reply[0::3] == [1, 0]
    assert changed == [None, None]
    assert wide.remaining(reply[1], reply[2]) == 10

    reply, changed = decide([wide, narrow], [True, False], [None, spent], START)
    assert reply[0::3] == [1, 0]
    assert changed[0] is not None
    assert changed[1] is None
    assert wide.remaining(reply[1], reply[2]) == 9


def moment(*parts: int) -> int:
    """A date and time in UTC as microseconds."""
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * SECOND  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("calendar", "now", "following"),
    [
        ("day", (2026, 3, 1, 0, 0), (2026, 3, 2)),
        ("day", (2026, 12, 31, 23, 59), (2027, 1, 1)),
        ("month", (2024, 2, 29, 12), (2024, 3, 1)),
        ("month", (2025, 2, 1), (2025, 3, 1)),
        ("month", (2026, 12, 31, 23), (2027, 1, 1)),
        ("month", (2026, 1, 31), (2026, 2, 1)),
    ],
)
def test_windows(calendar: str, now: tuple[int, ...], following: tuple[int, ...]) -> None:
    """A quota begins anew at midnight UTC, or on the first of the month."""
    quota = Quota(2, calendar)  # type: ignore[arg-type]
    at = moment(*now)
    state: State | None = None
    for expected in (True, True, False):
        passed, state, reply = take(quota, state, at)
        assert passed is expected
    until = moment(*following) - at
    assert quota.retry_us(reply[1], reply[2]) == quota.reset_us(reply[1], reply[2]) == until
    assert not take(quota, state, at + until - 1)[0]
    assert take(quota, state, at + until)[0]


def test_quota_with_a_clock_that_goes_back() -> None:
    """Back over midnight the later day's count goes on; nobody gets two quotas."""
    quota = Quota(1, "day")
    midnight = moment(2026, 3, 2)
    _, state, _ = take(quota, None, midnight)

    passed, state, reply = take(quota, state, midnight - SECOND)
    assert not passed
    assert quota.retry_us(reply[1], reply[2]) == DAY + SECOND
    assert take(quota, state, midnight + DAY)[0]


def test_quota_after_a_clock_in_the_far_future() -> None:
    """A count of a far later window is taken for this one's: it ends when this one does."""
    quota = Quota(1, "month")
    _, state, _ = take(quota, None, moment(2100, 1, 1))
    now = moment(2026, 3, 31)

    passed, state, _ = take(quota, state, now)
    assert not passed
    assert take(quota, state, now + DAY)[0]


def test_quota_that_was_lowered() -> None:
    """What was used beyond a new, lower quota does not show as less than nothing."""
    assert Quota(5, "day").remaining(9, DAY) == 0


@given(COUNTS, PERIODS, st.integers(1, 50), st.integers(1, 3), st.integers(1, 32))
def test_shares_of_a_bucket(
    count: int, period_us: int, burst: int, cost: int, processes: int
) -> None:
    """The shares together have the rate exactly, and a burst rounded up for each of them."""
    burst = max(burst, cost)
    share = Bucket(count, period_us, burst, cost).share(processes)

    assert Fraction(share.parts, share.unit) * processes == Fraction(count, period_us)
    assert burst <= share.quota * processes < burst + processes * max(1, cost)
    assert share.fits((0, 0))


def test_share_of_a_quota() -> None:
    """Rounded up, and never less than one request."""
    assert Quota(10, "day").share(4).quota == 3
    assert Quota(2, "day", cost=2).share(4).quota == 2
