"""When a mirror that does not answer is left alone. Pure; the time is given."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5
PAUSE_S: Final = 1.0


class Patience:
    """After `FAILURES` copies in a row without an answer, one is tried in `PAUSE_S` seconds.

    A dead mirror then costs next to nothing, however many requests would be copied to it; the first
    answer has them all copied again.
    """

    __slots__ = ("_failed", "_until")

    def __init__(self) -> None:
        self._failed = 0
        self._until = 0.0

    def waits(self, now: float) -> bool:
        """Whether no copy may be sent, so that nothing needs to be kept for one."""
        return self._failed >= FAILURES and now < self._until

    def allows(self, now: float) -> bool:
        """Whether a copy may be sent; if one is tried, it is this one."""
        if self.waits(now):
            return False
        if self._failed >= FAILURES:
            self._until = now + PAUSE_S
        return True

    def ended(self, answered: bool, now: float) -> None:
        """A copy has ended, by an answer or without one."""
        if answered:
            self._failed = 0
            return
        self._failed += 1
        if self._failed == FAILURES:
            self._until = now + PAUSE_S
