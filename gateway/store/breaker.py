"""When to leave the store alone: a pure state machine, given the time by its driver.

Closed: calls pass. After `threshold` failures in a row it opens, and calls fail at once, because a
request that waits for a store that does not answer only waits. While it is open, probes of the
driver's own (no request's) ask whether the store is back; the first that succeeds closes it.
"""

from __future__ import annotations

from typing import Final

THRESHOLD: Final = 5
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0


class Breaker:
    """`closed` is read by every call. Failures in a row are counted by the connection."""

    __slots__ = ("_pause", "closed", "threshold")

    def __init__(self, threshold: int = THRESHOLD) -> None:
        self.threshold = threshold
        self.closed = True
        self._pause = FIRST_PAUSE_S

    def judge(self, failures: int) -> bool:
        """Open it if that many failures in a row are enough. True if it was closed until now."""
        if not self.closed or failures < self.threshold:
            return False
        self.closed = False
        self._pause = FIRST_PAUSE_S
        return True

    def next_pause(self, share: float) -> float:
        """Seconds until the next probe, growing. `share` is random, from 0 to 1."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE_S)
        return pause * (0.5 + share / 2)

    def recover(self) -> bool:
        """A probe succeeded, or a new connection was made. True if it was open until now."""
        was_open = not self.closed
        self.closed = True
        return was_open


def backoff(attempt: int, share: float, base: float = 0.05, longest: float = 2.0) -> float:
    """Seconds before connection attempt `attempt` (0 is the first): exponential, full jitter.

    `share` is random, from 0 to 1.
    """
    return share * min(longest, base * 2.0 ** min(attempt, 16))
