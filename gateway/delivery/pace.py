"""How many events may be on their way to a target at once. Pure: the time is passed in.

Additive increase, multiplicative decrease (V. Jacobson, Congestion Avoidance and Control, 1988):
what a target can take shows in how it answers. A target that is spared (its breaker is open, say)
is not asked for a while, longer each time, and then asked by one event; when it answers, the number
doubles with each success until it is where trouble began, and grows by one from there. So a backlog
that has waited for it does not fall on it at once. Where there is room for so many and no more (a
bulkhead, say), the number comes down by one for each that found none, and stays there for a while.
"""

from __future__ import annotations

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
# After there was no room, the number does not grow for so long; and who found none asks again after
# this or up to twice as much.
CROWDED_S = 1.0
STEP_ASIDE_S = 0.1


class Pace:
    """See the module. `limit` is what the configuration allows."""

    __slots__ = ("_crowded", "_pause", "_threshold", "allowed", "limit", "until")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allowed = limit
        self.until = 0.0
        self._threshold = float(limit)
        self._pause = FIRST_PAUSE_S
        self._crowded = 0.0

    def room(self, running: int, now: float) -> int:
        """How many more may begin now."""
        if now < self.until:
            return 0
        return max(0, self.allowed - running)

    def succeeded(self, now: float) -> None:
        """An event was taken, or refused by a target that works."""
        self._pause = FIRST_PAUSE_S
        if self.allowed < self.limit and now >= self._crowded:
            grown = self.allowed * 2 if self.allowed * 2 <= self._threshold else self.allowed + 1
            self.allowed = min(self.limit, grown)

    def failed(self) -> None:
        """An attempt failed in a way that another event may meet as well."""
        self._threshold = max(1.0, self.allowed / 2)
        self.allowed = max(1, self.allowed // 2)

    def crowded(self, now: float, draw: float) -> float:
        """An event found no room at the target, which works. Gives the seconds until it may ask
        again; `draw` is from [0, 1).
        """
        self.allowed = max(1, self.allowed - 1)
        self._threshold = float(self.allowed)
        self._crowded = now + CROWDED_S
        return STEP_ASIDE_S * (1 + draw)

    def paused(self, now: float, wait: float, draw: float) -> float:
        """The target is being spared: ask again in `wait` seconds, or, if that is 0, a little later
        each time. `draw` is from [0, 1). Gives the seconds until then.
        """
        if now < self.until:
            return self.until - now
        self._threshold = max(1.0, self.limit / 2)
        self.allowed = 1
        pause = wait
        if pause <= 0:
            pause = self._pause * (0.5 + draw / 2)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        self.until = now + pause
        return pause
