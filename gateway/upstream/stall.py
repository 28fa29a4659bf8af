"""Noticing that a connection stands still, or that an answer is late, without a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf


class StallWatch:
    """Calls `stalled` when nothing moved for `idle` seconds of loop time.

    One timer, which looks at `moved_at` when it fires and moves itself on if that was too early.
    `stalled` returns True to go on watching. Whoever moves bytes sets `moved_at` to `loop.time()`.
    """

    __slots__ = ("_idle", "_loop", "_stalled", "_timer", "moved_at")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: float, stalled: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._stalled = stalled
        self._timer: asyncio.TimerHandle | None = None
        self.moved_at = 0.0

    def start(self) -> None:
        """Watch from now on; it does no harm when it watches already."""
        self.moved_at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle, self._fire)

    def stop(self) -> None:
        """Forget about it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        left = self.moved_at + self._idle - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._fire)
        elif self._stalled():
            self.start()


class TimeLimit:
    """Calls `passed` when the moment `by` has come. `by` may be moved at any time.

    One timer for all the moments: it looks at `by` when it fires, and moves itself on if that was
    too early. A connection that serves a thousand exchanges a second has one timer a limit.
    """

    __slots__ = ("_fires", "_loop", "_now", "_passed", "_timer", "by")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now: Callable[[], float], passed: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._now = now
        self._passed = passed
        self._timer: asyncio.TimerHandle | None = None
        self._fires = inf
        self.by = inf

    def set(self, by: float) -> None:
        """Have `passed` called at `by`, on the clock that `now` reads."""
        self.by = by
        if by < self._fires:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = self.by
        self._timer = self._loop.call_later(max(0.0, self.by - self._now()), self._fire)

    def stop(self) -> None:
        """Forget about it."""
        self.by = self._fires = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._fires = inf
        if self.by == inf:
            return
        if self.by > self._now():
            self._arm()
            return
        self.by = inf
        self._passed()
