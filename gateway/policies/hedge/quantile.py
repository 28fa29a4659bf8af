"""A latency quantile of the recent past, as a stream. Pure: no clock, fixed memory.

Latencies fall into buckets that grow by a twelfth, from 100 microseconds to two minutes, so an
answer is at most that much too high. When enough were counted, all counts are halved: what is old
fades.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_FIRST: Final = 0.0001
_GROWTH: Final = 13 / 12
_BOUNDS: Final = tuple(_FIRST * _GROWTH**n for n in range(176))
# Before this many there is no saying what is slow.
ENOUGH: Final = 100
# Counted with half their weight after this many.
_FADE_AT: Final = 2_000
# The answer is computed anew once in so many latencies, and remembered in between.
_REFRESH: Final = 50


class Quantile:
    """Keeps `value`, the quantile `q` (from 0 to 1) in seconds; None while too little is known."""

    __slots__ = ("_counts", "_due", "_q", "_total", "value")

    def __init__(self, q: float) -> None:
        self._q = q
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._total = 0
        self._due = ENOUGH
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """Take one latency."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._total += 1
        self._due -= 1
        if self._due <= 0:
            self._due = _REFRESH
            self._refresh()

    def _refresh(self) -> None:
        if self._total >= _FADE_AT:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)
        left = self._q * self._total
        for position, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                self.value = _BOUNDS[min(position, len(_BOUNDS) - 1)]
                return

    def __repr__(self) -> str:
        shown = "unknown" if self.value is None else f"{self.value * 1000:.1f} ms"
        return f"<Quantile {self._q:g}: {shown}>"
