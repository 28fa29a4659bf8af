"""The arithmetic of limits: token buckets (GCRA) and quotas by day and month. Pure.

The twin of `store/lua/rate_limit.lua`: the same states give the same decisions. Time is whole
microseconds since the Unix epoch, and everything is an integer.

A *level* is a pair of integers, as the script replies them. For a bucket it is how far the
theoretical arrival time is ahead of now, in microseconds and a rest of 1/`parts` of one; (0, 0) is
a full bucket. For a quota it is what was used, and the microseconds until the next window begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import gcd
from typing import Final, Literal

State = tuple[int, int]
Level = tuple[int, int]

_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Bucket:
    """`count` requests in `period_us`, `burst` at once; `cost` for each request.

    `quota` is the burst, `window_s` the seconds in which an empty bucket fills up, rounded up. A
    state is the theoretical arrival time: whole microseconds, and the rest.
    """

    __slots__ = ("args", "charge", "cost", "depth", "kind", "parts", "quota", "unit", "window_s")

    def __init__(self, count: int, period_us: int, burst: int, cost: int = 1) -> None:
        divisor = gcd(count, period_us)
        self.kind = "b"
        self.parts = count // divisor
        self.unit = period_us // divisor
        self.cost = cost
        self.quota = burst
        self.charge = cost * self.unit
        self.depth = burst * self.unit
        self.window_s = max(1, -(-self.depth // (self.parts * _SECOND)))
        self.args = (*divmod(self.charge, self.parts), *divmod(self.depth, self.parts), self.parts)

    def share(self, processes: int) -> Bucket:
        """What one of so many equal processes may let pass, rounded up, one request at least."""
        burst = max(self.cost, -(-self.quota // processes))
        return Bucket(self.parts, self.unit * processes, burst, self.cost)

    def level(self, state: State | None, now_us: int) -> tuple[Level, bool]:
        """The level of a bucket in `state`, and whether `state` could not be and was mended.

        None is a bucket that was never used, and so full. None is further ahead than empty: the
        clock went back, or the rate was a slower one.
        """
        if state is None or state[0] < now_us:
            return (0, 0), False
        level = (state[0] - now_us, min(state[1], self.parts - 1))
        empty = divmod(self.depth, self.parts)
        return (empty, True) if level > empty else (level, False)

    def fits(self, level: Level) -> bool:
        """Whether one more request passes."""
        return level[0] * self.parts + level[1] + self.charge <= self.depth

    def charged(self, level: Level) -> Level:
        """The level after one more request."""
        return divmod(level[0] * self.parts + level[1] + self.charge, self.parts)

    def state(self, level: Level, now_us: int) -> State:
        """What is remembered of a level."""
        return now_us + level[0], level[1]

    def remaining(self, whole: int, rest: int) -> int:
        """Units left at a level."""
        return (self.depth - whole * self.parts - rest) // self.unit

    def reset_us(self, whole: int, rest: int) -> int:
        """Microseconds until the bucket is full, rounded up."""
        return whole + 1 if rest else whole

    def retry_us(self, whole: int, rest: int) -> int:
        """Microseconds until a request fits, rounded up; 0 if it does now."""
        over = whole * self.parts + rest + self.charge - self.depth
        return -(-over // self.parts) if over > 0 else 0


class Quota:
    """`count` units in every day or month of the calendar, in UTC.

    `window_s` is 0 for months, which differ. A state is the window's first day (days since 1970)
    and what was used of it.
    """

    __slots__ = ("args", "calendar", "cost", "kind", "quota", "window_s")

    def __init__(self, count: int, calendar: Literal["day", "month"], cost: int = 1) -> None:
        self.kind = calendar[0]
        self.calendar = calendar
        self.quota = count
        self.cost = cost
        self.window_s = 86_400 if calendar == "day" else 0
        self.args = (cost, count)

    def share(self, processes: int) -> Quota:
        """What one of so many equal processes may let pass, rounded up, one request at least."""
        return Quota(max(self.cost, -(-self.quota // processes)), self.calendar, self.cost)

    def window(self, day: int) -> tuple[int, int]:
        """The first day of the window that `day` is in, and of the next; days since 1970."""
        if self.calendar == "day":
            return day, day + 1
        first = (_EPOCH + timedelta(days=day)).replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        return (first - _EPOCH).days, (following - _EPOCH).days

    def level(self, state: State | None, now_us: int) -> tuple[Level, bool]:
        """The level of a quota in `state`, and whether `state` could not be and was mended.

        A state of an earlier window counts for nothing. One of the next window is kept: the clock
        went back over midnight. One of a later window still is taken for this window's.
        """
        first, following = self.window(now_us // _DAY)
        used, mended = 0, False
        if state is not None and state[0] >= first:
            used, mended = state[1], state[0] > following
            if state[0] == following:
                first, following = self.window(state[0])
        return (used, following * _DAY - now_us), mended

    def fits(self, level: Level) -> bool:
        """Whether one more request passes."""
        return level[0] + self.cost <= self.quota

    def charged(self, level: Level) -> Level:
        """The level after one more request."""
        return level[0] + self.cost, level[1]

    def state(self, level: Level, now_us: int) -> State:
        """What is remembered of a level."""
        return self.window((now_us + level[1] - 1) // _DAY)[0], level[0]

    def remaining(self, used: int, left_us: int) -> int:
        """Units left at a level."""
        return max(0, self.quota - used)

    def reset_us(self, used: int, left_us: int) -> int:
        """Microseconds until the next window."""
        return left_us

    def retry_us(self, used: int, left_us: int) -> int:
        """Microseconds until a request fits; 0 if it does now."""
        return left_us if used + self.cost > self.quota else 0


Limit = Bucket | Quota


def decide(
    limits: Sequence[Limit],
    enforced: Sequence[bool],
    states: Sequence[State | None],
    now_us: int,
) -> tuple[list[int], list[State | None]]:
    """One request against all limits: if one that is enforced does not fit, none is charged.

    Returns what the script replies (for each limit 1 or 0, whether it fits, and the two numbers of
    the level after the decision), and the new states, None where nothing changed.
    """
    found = [limit.level(state, now_us) for limit, state in zip(limits, states, strict=True)]
    fits = [limit.fits(level) for limit, (level, _) in zip(limits, found, strict=True)]
    passes = all(fit or not must for fit, must in zip(fits, enforced, strict=True))
    reply: list[int] = []
    changed: list[State | None] = []
    for limit, (level, mended), fit in zip(limits, found, fits, strict=True):
        after = limit.charged(level) if passes and fit else level
        reply += (int(fit), *after)
        # What could not be must not stay, or the bucket would look empty until that time comes.
        changed.append(limit.state(after, now_us) if mended or (passes and fit) else None)
    return reply, changed
