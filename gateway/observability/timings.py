"""Histograms that a policy or a worker keeps, one for each set of label values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection

from gateway.observability.snapshot import Declaration, Sample


class Timings:
    """Like `families.Counts`, for durations in seconds. `declaration.bounds` are the buckets'."""

    __slots__ = ("_counts", "_sums", "declaration")

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, *labels: str, seconds: float) -> None:
        """Count one duration."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.declaration.bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self.declaration.bounds, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self, into: dict[str, list[Sample]], routes_gone: Collection[str]) -> None:
        """Append a copy of every series."""
        of_routes = self.declaration.labels[:1] == ("route",)
        into[self.declaration.name].extend(
            Sample(labels, self._sums[labels], list(counts))
            for labels, counts in list(self._counts.items())
            if not (of_routes and labels[0] in routes_gone)
        )

    def forget(self, routes: Collection[str]) -> None:
        """Drop the series of routes that are gone."""
        if self.declaration.labels[:1] == ("route",):
            for labels in [each for each in self._counts if each[0] in routes]:
                del self._counts[labels], self._sums[labels]
