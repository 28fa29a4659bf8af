"""A limit that finds itself, from how latency changes with load. Pure: time is passed in.

The idea is that of Netflix's Gradient2: if answers take longer than they do when the upstream is
not crowded (with some tolerance), requests stand in a queue over there, and the limit shrinks by
that ratio; otherwise it grows a little. A limit that is not used is left alone, because it was not
put to the test.

What answers take when nothing is crowded must be measured, not remembered: an average over the past
creeps up with the latency that a limit which is too high makes by itself. So from time to time the
limit is halved for a moment, and what answers take then is the new baseline. It is done early if
the limit shrinks and shrinks: then it is perhaps the upstream that has become slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

# Samples are judged together: a hundred milliseconds, and enough of them to mean something.
WINDOW_S: Final = 0.1
SAMPLES: Final = 10
# In windows: how often the baseline is measured, how long that takes, how soon at the earliest.
_EVERY: Final = 300
_PROBE: Final = 3
_SHRUNK: Final = 20
_SMOOTHING: Final = 0.2
_FOLLOWING: Final = 0.05
_LOWEST_GRADIENT: Final = 0.5


@dataclass(frozen=True, slots=True)
class GradientSettings:
    """Bounds and tolerance. `tolerance` is how much slower than usual still counts as usual."""

    start: int = 20
    lowest: int = 5
    highest: int = 1000
    tolerance: float = 1.5


class Gradient:
    """Keeps `limit`, a whole number within its bounds."""

    __slots__ = ("_baseline", "_began", "_count", "_estimate", "_peak", "_probed", "_probing",
                 "_settings", "_shrunk", "_since_probe", "_sum", "limit")  # fmt: skip

    def __init__(self, settings: GradientSettings, now: float) -> None:
        self._settings = settings
        self._estimate = float(settings.start)
        self._baseline = 0.0
        self._began = now
        self._count = 0
        self._sum = 0.0
        self._peak = 0
        self._since_probe = 0
        self._probing = 0
        self._probed = 0.0
        self._shrunk = 0
        self.limit = settings.start

    def sample(self, seconds: float, active: int, now: float) -> bool:
        """Take the latency of one call, with `active` at work when it ended.

        True if the limit may have changed.
        """
        self._count += 1
        self._sum += seconds
        self._peak = max(self._peak, active)
        if self._count < SAMPLES or now - self._began < WINDOW_S:
            return False
        latency, peak = self._sum / self._count, self._peak
        self._count, self._sum, self._peak, self._began = 0, 0.0, 0, now
        if latency > 0.0:
            self._judge(latency, peak)
        return True

    def _judge(self, latency: float, peak: int) -> None:
        if self._probing:
            self._probe(latency)
            return
        if not self._baseline:
            self._baseline = latency
        self._since_probe += 1
        if peak * 2 < self._estimate:
            # Not crowded by us: whatever answers take now is what they need.
            self._baseline += (latency - self._baseline) * _FOLLOWING
            self._shrunk = 0
            return
        if latency < self._baseline:
            self._baseline += (latency - self._baseline) * _SMOOTHING
        self._adjust(self._settings.tolerance * self._baseline / latency)
        if self._since_probe >= _EVERY or self._shrunk >= _SHRUNK:
            self._probing, self._probed = _PROBE, 0.0
            self._set(max(float(self._settings.lowest), self._estimate / 2))

    def _adjust(self, gradient: float) -> None:
        estimate, settings = self._estimate, self._settings
        if gradient >= 1.0:
            # The root is the queue that is allowed over there.
            target = estimate + sqrt(estimate)
            self._shrunk = 0
        else:
            target = estimate * max(_LOWEST_GRADIENT, gradient)
            self._shrunk += 1
        estimate += (target - estimate) * _SMOOTHING
        self._estimate = min(max(estimate, float(settings.lowest)), float(settings.highest))
        self._set(self._estimate)

    def _probe(self, latency: float) -> None:
        """One window with the limit halved. What was under way before is in the first, so skip it.

        The last of them sets the baseline and the limit.
        """
        self._probing -= 1
        if self._probing < _PROBE - 1:
            self._probed += latency / (_PROBE - 1)
        if not self._probing:
            self._baseline = self._probed
            self._since_probe = self._shrunk = 0
            self._set(self._estimate)

    def _set(self, limit: float) -> None:
        self.limit = int(limit)

    def __repr__(self) -> str:
        return f"<Gradient {self.limit}, {self._baseline * 1000:.1f} ms>"
