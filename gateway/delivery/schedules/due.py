"""Which ticks are to be fired now, and which have been missed. Pure: the time is passed in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gateway.delivery.schedules.ticks import Ticks

GRACE_S: Final = 60.0
"""A tick that is no older was not missed, only a little late."""
MOST: Final = 1000
"""So many ticks are caught up at most, the newest."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a schedule fires. `missed` is skip, one or all; `jitter` is seconds."""

    name: str
    ticks: Ticks
    missed: str = "one"
    jitter: float = 0.0

    def delay(self, tick: float) -> float:
        """By how much this tick is fired later: the same in every process, in seconds."""
        if not self.jitter:
            return 0.0
        found = hashlib.sha256(f"{self.name} {tick:.0f}".encode()).digest()
        return round(self.jitter * int.from_bytes(found[:6], "big") / 2**48, 3)


@dataclass(frozen=True, slots=True)
class Due:
    """What follows from the time: the ticks to `fire`, in order; how many are `passed` over; the
    newest tick of both, or None; and when there is something to do again, None for never.
    Moments are Unix seconds.
    """

    fire: tuple[float, ...]
    passed: int
    through: float | None
    next_at: float | None


def find(rule: Rule, last: float, now: float) -> Due:
    """What is to be done at `now`, if all ticks up to `last` are done.

    A tick never overtakes the one before it, whatever its jitter. If the clock went back behind
    `last` nothing is due until it has passed it again; if it went forward, the ticks between are
    missed ones.
    """
    times: list[tuple[float, float]] = []
    latest = last
    for tick in reversed(_since(rule, last, now)):
        latest = max(latest, tick + rule.delay(tick))
        if latest > now:
            break
        times.append((tick, latest))
    through = times[-1][0] if times else None
    fire = _choose(rule.missed, times, now)
    following = next(rule.ticks.after(last if through is None else through), None)
    next_at = None if following is None else max(following + rule.delay(following), latest)
    return Due(fire, len(times) - len(fire), through, next_at)


def _since(rule: Rule, last: float, now: float) -> list[float]:
    """The ticks after `last` that have come, the newest first, and no more than are of use."""
    found: list[float] = []
    for tick in islice(rule.ticks.before(now), MOST):
        if tick <= last:
            break
        found.append(tick)
    return found


def _choose(missed: str, times: list[tuple[float, float]], now: float) -> tuple[float, ...]:
    if missed == "all":
        return tuple(tick for tick, _ in times)
    punctual = tuple(tick for tick, due in times if now - due <= GRACE_S)
    if not punctual and missed == "one" and times:
        return (times[-1][0],)
    return punctual
