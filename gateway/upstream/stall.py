"""Noticing that a connection stands still, without a timer for every piece that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


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
