"""When a target's own requests say that it should rest. Pure: the clock is passed in.

A target is ejected after so many failures in a row, for a time that doubles with each ejection. It
always comes back by itself: a way in that nothing but traffic could reopen would stay shut.
"""

from __future__ import annotations

from math import inf
from typing import Final

# 2 ** 40 times anything is longer than any bound; a float has an end.
_MOST_DOUBLINGS: Final = 40


class Outlier:
    """The failures of one target.

    `until` is when its ejection ends, 0 if it is not ejected; `ejections` is how many count for
    the length of the next one: each `eject_for` seconds without one takes one away. Back from an
    ejection a target is on `probation` until its first good answer, and one failure is enough.
    """

    __slots__ = ("_consecutive", "_eject_for", "_longest", "_returned", "ejections", "failures",
                 "probation", "until")  # fmt: skip

    def __init__(self, consecutive: int, eject_for: float, longest: float) -> None:
        self._consecutive = consecutive
        self._eject_for = eject_for
        self._longest = longest
        self._returned = -inf
        self.failures = 0
        self.ejections = 0
        self.probation = False
        self.until = 0.0

    def succeed(self) -> None:
        """A request was answered well."""
        self.failures = 0
        if not self.until:
            self.probation = False

    def fail(self) -> bool:
        """A request failed. True if the target should be ejected, which the caller may not do.

        What began before an ejection and fails in it says nothing new.
        """
        if self.until:
            return False
        self.failures += 1
        return self.probation or self.failures >= self._consecutive

    def eject(self, now: float, random: float) -> float:
        """Eject it; the seconds that takes.

        `random` from [0, 1) makes it up to a tenth shorter: several gateways, or several targets
        that failed together, must not all come back in one moment.
        """
        if self.ejections:
            forgiven = min(self.ejections, max(0.0, (now - self._returned) // self._eject_for))
            self.ejections -= int(forgiven)
        doubled: float = self._eject_for * 2.0 ** min(self.ejections, _MOST_DOUBLINGS)
        seconds = min(self._longest, doubled) * (1 - random / 10)
        self.ejections += 1
        self.failures = 0
        self.until = now + seconds
        return seconds

    def readmit(self, now: float, probation: bool = True) -> None:
        """End the ejection; without `probation` it is trusted at once."""
        self.until = 0.0
        self.failures = 0
        self.probation = probation
        self._returned = now

    def inherit(self, before: Outlier, now: float) -> None:
        """Take over what was known before a reload; an ejection gets no longer than it may now."""
        self.failures = before.failures
        self.ejections = before.ejections
        self.probation = before.probation
        self._returned = before._returned
        self.until = min(before.until, now + self._longest)
