"""How many retries and hedges an upstream may get at once, over all routes to it.

A pure counter. Bounding retries by the number of active requests is what keeps a failing upstream
from being buried: whatever the number of attempts, it sees at most (1 + share / (1 - share)) times
the requests of its clients, 1.25 times for 20 %. The floor lets a quiet upstream have retries too.
"""

from __future__ import annotations

from typing import Final

DEFAULT_SHARE: Final = 0.2
DEFAULT_FLOOR: Final = 3


class RetryBudget:
    """`active` counts exchanges from their first attempt to the end of the body.

    `retries` counts further attempts from the decision to make one, its back-off included, until
    that attempt has ended.
    """

    __slots__ = ("active", "retries")

    def __init__(self) -> None:
        self.active = 0
        self.retries = 0

    def acquire(self, share: float | None, floor: int) -> bool:
        """Take a permit for one more attempt, if there is one; to be given back by `release`.

        At most `share` of the active exchanges, or `floor` if that is more; None for no bound.
        """
        if share is not None and self.retries + 1 > max(floor, share * self.active):
            return False
        self.retries += 1
        return True

    def release(self) -> None:
        """Give the permit back: the attempt has ended."""
        self.retries -= 1

    def leave(self) -> None:
        """An exchange that was counted as active has ended."""
        self.active -= 1

    def status(self) -> dict[str, int]:
        """What the admin API shows."""
        return {"active": self.active, "retries": self.retries}

    def __repr__(self) -> str:
        return f"<RetryBudget {self.retries} retries of {self.active} active>"
