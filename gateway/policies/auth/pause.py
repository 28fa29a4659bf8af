"""A small circuit for calls to one provider: after failures in a row, none for a moment. Pure."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 3
FIRST_S: Final = 1.0
LONGEST_S: Final = 15.0


class Pause:
    """Times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = float("-inf")

    def left(self, now: float) -> float:
        """Seconds during which no call should be made; 0.0 for none."""
        return max(0.0, self._until - now)

    def succeeded(self) -> None:
        """A call was answered as it should be."""
        self._failures = 0
        self._until = float("-inf")

    def failed(self, now: float) -> bool:
        """A call was not. True if this was the one that begins a series of pauses."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self._until = now + min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures - FAILURES, 10))
        return self._failures == FAILURES
