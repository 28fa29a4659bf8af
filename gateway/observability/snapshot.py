"""Metrics as plain data: what one process counted, and how several processes add up.

A `Snapshot` is what travels from a worker to the process that is scraped. Nothing here counts
requests (`metrics.py`) and nothing here knows an exposition format (`exposition.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

import msgspec

from gateway.clock import Clock

RETIRE_AFTER_S: Final = 600.0
"""How long series are still shown after their route or upstream left the configuration: long
enough for a last scrape at any sensible interval, short enough to bound a year of reloads."""


class Kind(StrEnum):
    """The type of a family, as Prometheus knows it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How the same series of two processes becomes one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Declaration(msgspec.Struct, frozen=True):
    """What is fixed about a family. `bounds` are a histogram's upper bounds without +Inf."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    merge: Merge = Merge.SUM


class Sample(msgspec.Struct, array_like=True):
    """One series. A histogram's `value` is its sum, `counts` a plain count a bucket, +Inf last."""

    labels: tuple[str, ...]
    value: float
    counts: list[int] = []


class Family(msgspec.Struct):
    """A declaration and its series."""

    declaration: Declaration
    samples: list[Sample] = []


class Snapshot(msgspec.Struct):
    """Everything that one process, or several merged ones, counted up to a moment."""

    families: list[Family] = []


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot for several processes: counters and histograms add, gauges as they declare."""
    declarations: dict[str, Declaration] = {}
    series: dict[str, dict[tuple[str, ...], Sample]] = {}
    for snapshot in snapshots:
        for family in snapshot.families:
            declaration = declarations.setdefault(family.declaration.name, family.declaration)
            into = series.setdefault(declaration.name, {})
            for sample in family.samples:
                _fold(declaration, into, sample)
    return Snapshot(
        [Family(declarations[name], list(samples.values())) for name, samples in series.items()]
    )


def _fold(declaration: Declaration, into: dict[tuple[str, ...], Sample], sample: Sample) -> None:
    present = into.get(sample.labels)
    if present is None:
        into[sample.labels] = Sample(sample.labels, sample.value, list(sample.counts))
    elif declaration.merge is Merge.MAX:
        present.value = max(present.value, sample.value)
    elif declaration.merge is Merge.MIN:
        present.value = min(present.value, sample.value)
    elif len(present.counts) != len(sample.counts):
        # Two releases with other buckets side by side, for the time of a rolling restart: adding
        # them would lie, so the newer-seen one is left out until its elder is gone.
        return
    else:
        present.value += sample.value
        for position, count in enumerate(sample.counts):
            present.counts[position] += count


class Retirement:
    """Which names left the configuration, and which have been gone for long enough to forget."""

    def __init__(self, clock: Clock, after: float = RETIRE_AFTER_S) -> None:
        self._clock = clock
        self._after = after
        self._since: dict[str, float] = {}

    def retain(self, known: Iterable[str], current: Collection[str]) -> None:
        """Note that of the `known` names only the `current` ones are configured now."""
        now = self._clock.monotonic()
        for name in known:
            if name in current:
                self._since.pop(name, None)
            else:
                self._since.setdefault(name, now)

    def expired(self) -> set[str]:
        """The names whose time is over. Changes nothing, so it may run in any thread."""
        if not self._since:
            return set()
        limit = self._clock.monotonic() - self._after
        return {name for name, since in list(self._since.items()) if since <= limit}

    def forget(self, names: Iterable[str]) -> None:
        """Their series are deleted, so there is nothing to remember about them."""
        for name in names:
            self._since.pop(name, None)


class Aggregator:
    """The metrics of all worker processes, so that no sum falls when one of them is replaced.

    A dead worker's counters and histograms stay folded in; its gauges go. Not thread-safe: it
    belongs to the loop of the process that is scraped.
    """

    def __init__(self, clock: Clock, retire_after: float = RETIRE_AFTER_S) -> None:
        self._live: dict[int, Snapshot] = {}
        self._dead = Snapshot()
        self._gone = {label: Retirement(clock, retire_after) for label in ("route", "upstream")}

    def update(self, worker: int, snapshot: Snapshot) -> None:
        """Take a worker's newest snapshot; `worker` is never used again for another process."""
        self._live[worker] = snapshot

    def remove(self, worker: int) -> None:
        """The worker is dead: keep what it counted. An unknown worker is fine."""
        last = self._live.pop(worker, None)
        if last is None:
            return
        counted = [family for family in last.families if family.declaration.kind is not Kind.GAUGE]
        self._dead = merge([self._dead, Snapshot(counted)])

    def retain(self, routes: Collection[str], upstreams: Collection[str]) -> None:
        """Say what is configured now, after every reload, so that the rest can be forgotten."""
        for label, current in (("route", routes), ("upstream", upstreams)):
            known = {
                sample.labels[family.declaration.labels.index(label)]
                for family in self._dead.families
                if label in family.declaration.labels
                for sample in family.samples
            }
            known = {name for name in known if not name.startswith("_")}
            self._gone[label].retain(known, current)

    def total(self) -> Snapshot:
        """The sum over the living and the dead."""
        for label, retirement in self._gone.items():
            expired = retirement.expired()
            if expired:
                self._forget(label, expired)
                retirement.forget(expired)
        return merge([*self._live.values(), self._dead])

    def _forget(self, label: str, names: set[str]) -> None:
        for family in self._dead.families:
            if label in family.declaration.labels:
                at = family.declaration.labels.index(label)
                family.samples = [each for each in family.samples if each.labels[at] not in names]
