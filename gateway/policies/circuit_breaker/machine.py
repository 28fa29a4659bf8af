"""The breaker as a pure state machine: time and randomness are passed in, nothing waits.

    closed ──(ratio reached)──▶ open ──(open_for over)──▶ half_open
      ▲                          ▲                          │   │
      │                          └──────(a probe failed)────┘   │(all probes good)
      └──(ramp over)── ramping ◀────────────────────────────────┘
                          └──(ratio reached)──▶ open

Calls are counted in a ring of buckets, so that one call costs the same whatever the window and the
traffic. A permit carries the epoch in which it was given: what began before a change of state can't
decide about the state after it, and a probe that is given back twice counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

BUCKETS: Final = 10
REFUSED: Final = -1
# The share that is admitted when a ramp begins: enough to learn from, too little to hurt.
_FIRST_SHARE: Final = 0.1


class State(StrEnum):
    """Where a breaker stands; the order is that of the metric."""

    CLOSED = "closed"
    RAMPING = "ramping"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True)
class Settings:
    """The numbers of a breaker. Times in seconds, ratios from 0 to 1."""

    failure_ratio: float = 0.5
    slow_ratio: float = 0.8
    min_requests: int = 20
    window: float = 10.0
    open_for: float = 15.0
    probes: int = 3
    ramp: float = 10.0


class Breaker:
    """Admits calls or does not, and learns from how they ended.

    Every permit of `admit` is given back once, by `record` or `cancel`. `is_open_to_all` says that
    `admit` need not be asked: a caller may take `epoch` for its permit. `on_change` is called after
    each change of state.
    """

    __slots__ = ("_calls", "_failures", "_last_probe", "_passed", "_probing", "_rate", "_settings",
                 "_slot", "_slow", "_tick", "_until", "calls", "epoch", "failures",
                 "is_open_to_all", "manual", "on_change", "reason", "since", "slow",
                 "state")  # fmt: skip

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._rate = BUCKETS / settings.window
        self.on_change: Callable[[Breaker], None] | None = None
        self.state = State.CLOSED
        self.manual: State | None = None
        self.reason = ""
        self.since = now
        self.epoch = 0
        self.is_open_to_all = True
        self._until = inf
        self._probing = 0
        self._passed = 0
        self._last_probe = now
        self._clear(now)

    def _clear(self, now: float) -> None:
        self._tick = int(now * self._rate)
        self._slot = 0
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS
        self._slow = [0] * BUCKETS
        self.calls = self.failures = self.slow = 0

    # Before the call

    def admit(self, now: float, random: float) -> int:
        """A permit for one call, or REFUSED. `random` is from [0, 1)."""
        state = self.state
        if self.manual is not None or state is State.CLOSED:
            return REFUSED if self.manual is State.OPEN else self.epoch
        if state is State.RAMPING:
            return self._admit_ramping(now, random)
        if state is State.OPEN:
            if now < self._until:
                return REFUSED
            self._change(State.HALF_OPEN, "open_for", now)
        return self._admit_probe(now)

    def _admit_ramping(self, now: float, random: float) -> int:
        passed = (now - self.since) / self._settings.ramp
        if passed >= 1.0:
            self._change(State.CLOSED, "ramp", now)
        elif random >= _FIRST_SHARE + (1.0 - _FIRST_SHARE) * passed:
            return REFUSED
        return self.epoch

    def _admit_probe(self, now: float) -> int:
        settings = self._settings
        if self._probing + self._passed >= settings.probes:
            # Probes that never come back (an upstream that hangs, a route without a timeout) must
            # not hold the breaker in this state for ever.
            if self._probing and now - self._last_probe >= settings.open_for:
                self._open("probe_lost", now)
            return REFUSED
        self._probing += 1
        self._last_probe = now
        return self.epoch

    def retry_after(self, now: float) -> float:
        """The seconds after which a refused call may be admitted."""
        if self.state is State.OPEN and self.manual is None:
            return max(0.0, self._until - now)
        return self._settings.open_for if self.manual is State.OPEN else 1.0

    # After the call

    def record(self, permit: int, now: float, failed: bool, slow: bool) -> None:
        """Count a call that has ended; `slow` is not looked at if it `failed`."""
        if permit != self.epoch:
            return
        if self.state is State.HALF_OPEN:
            self._record_probe(failed, slow, now)
            return
        tick = int(now * self._rate)
        if tick != self._tick:
            self._rotate(tick)
        slot = self._slot
        self._calls[slot] += 1
        self.calls += 1
        if failed:
            self._failures[slot] += 1
            self.failures += 1
        elif slow:
            self._slow[slot] += 1
            self.slow += 1
        if self.failures or self.slow:
            self._judge(now)

    def cancel(self, permit: int) -> None:
        """Give back the permit of a call that says nothing about the upstream."""
        if permit == self.epoch and self.state is State.HALF_OPEN and self._probing:
            self._probing -= 1

    def _rotate(self, tick: int) -> None:
        """Begin a new bucket; those that the window has left behind are emptied."""
        steps = tick - self._tick
        self._tick = tick
        if steps < 0:
            # Callers read the clock before they wait; a call that is late counts as of now.
            self._tick -= steps
            return
        for _ in range(min(steps, BUCKETS)):
            self._slot = slot = (self._slot + 1) % BUCKETS
            self.calls -= self._calls[slot]
            self.failures -= self._failures[slot]
            self.slow -= self._slow[slot]
            self._calls[slot] = self._failures[slot] = self._slow[slot] = 0

    def _judge(self, now: float) -> None:
        settings = self._settings
        calls = self.calls
        if calls < settings.min_requests or self.manual is not None:
            return
        if self.failures and self.failures >= settings.failure_ratio * calls:
            self._open("failure_ratio", now)
        elif self.slow and self.slow >= settings.slow_ratio * calls:
            self._open("slow_ratio", now)

    def _record_probe(self, failed: bool, slow: bool, now: float) -> None:
        if not self._probing:
            return
        self._probing -= 1
        if failed or slow:
            self._open("probe_failed" if failed else "probe_slow", now)
            return
        self._passed += 1
        if self._passed >= self._settings.probes:
            ramps = self._settings.ramp > 0
            self._change(State.RAMPING if ramps else State.CLOSED, "probes", now)

    # Changes

    def force(self, state: State | None, now: float) -> None:
        """Open or close it by hand, until this is called with None; then it begins closed."""
        if state is self.manual:
            return
        self.manual = state
        self._change(state or State.CLOSED, "manual", now)

    def _open(self, reason: str, now: float) -> None:
        self._until = now + self._settings.open_for
        self._change(State.OPEN, reason, now)

    def _change(self, state: State, reason: str, now: float) -> None:
        self.state = state
        self.reason = reason
        self.since = now
        self.epoch += 1
        self._probing = self._passed = 0
        self._last_probe = now
        self.is_open_to_all = state is State.CLOSED
        self._clear(now)
        if self.on_change is not None:
            self.on_change(self)

    def __repr__(self) -> str:
        """As tests and logs want it: `closed, 3 of 20 failed, 1 slow`."""
        by_hand = " by hand" if self.manual else ""
        counts = f"{self.failures} of {self.calls} failed, {self.slow} slow"
        return f"<Breaker {self.state}{by_hand}, {counts}, {self._probing} probing>"
