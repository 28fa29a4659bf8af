"""When active checks say that a target is healthy. Pure: results come in, a verdict goes out."""

from __future__ import annotations


class Health:
    """The verdict on one target: it changes after so many results in a row that contradict it.

    Until the first result, `healthy` is what was believed without one, and that first result alone
    decides: waiting for more would only mean more requests to a target that is down. `reason` says
    why it is not healthy, empty if it is.
    """

    __slots__ = ("_healthy_after", "_row", "_unhealthy_after", "checked", "healthy", "reason")

    def __init__(self, unhealthy_after: int, healthy_after: int) -> None:
        self._unhealthy_after = unhealthy_after
        self._healthy_after = healthy_after
        self._row = 0
        self.checked = False
        self.healthy = True
        self.reason = ""

    def report(self, reason: str) -> bool:
        """Take the result of a check, empty for passed. True if the verdict is another now."""
        passed = not reason
        first, self.checked = not self.checked, True
        if passed == self.healthy:
            self._row = 0
            if not passed:
                self.reason = reason
            return False
        self._row += 1
        if not first and self._row < (self._healthy_after if passed else self._unhealthy_after):
            return False
        self._row = 0
        self.healthy = passed
        self.reason = reason
        return True

    def wait(self) -> None:
        """Take it for unhealthy until its first check."""
        self.healthy = False
        self.checked = False
        self.reason = "not checked yet"

    def inherit(self, before: Health, same: bool) -> None:
        """Take over the verdict that there was before a reload.

        If the checks are the `same`, so are their results so far; else the first one decides: the
        reload may have mended a check that was wrong.
        """
        self.healthy = before.healthy
        self.reason = before.reason
        if same:
            self.checked = before.checked
            self._row = before._row
