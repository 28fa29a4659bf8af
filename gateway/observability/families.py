"""The families that policies keep, declared in one place like all others (`metrics.py`).

A policy asks `context.metrics.counts(ITS_FAMILY)` when it is built, and counts with `add`. To add a
family: declare it here, and describe it in docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from gateway.observability.snapshot import Declaration, Kind, Sample

POLICY_FAMILIES: Final[list[Declaration]] = []


def _family(name: str, kind: Kind, text: str, labels: tuple[str, ...]) -> Declaration:
    declaration = Declaration(name, kind, text, labels)
    POLICY_FAMILIES.append(declaration)
    return declaration


FAULTS: Final = _family(
    "gateway_faults_injected_total",
    Kind.COUNTER,
    "Trouble made on purpose, by its kind.",
    ("route", "kind"),
)
IDEMPOTENCY: Final = _family(
    "gateway_idempotency_requests_total",
    Kind.COUNTER,
    "Requests of idempotent routes, by what became of them: executed, released (no final answer), "
    "replayed, or the code of the refusal.",
    ("route", "result"),
)


class Counts:
    """The series of one family that a policy keeps: a number for each set of label values.

    Labels hold names of the configuration and codes, never what a client can make up. If the first
    label is `route`, the series of routes that left the configuration are forgotten with them.
    """

    __slots__ = ("declaration", "values")

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count it."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def set(self, *labels: str, value: float) -> None:
        """Say how it stands, for a gauge."""
        self.values[labels] = value

    def collect(self, into: dict[str, list[Sample]], routes_gone: Collection[str]) -> None:
        """Append a copy of every series."""
        of_routes = self.declaration.labels[:1] == ("route",)
        into[self.declaration.name].extend(
            Sample(labels, value)
            for labels, value in list(self.values.items())
            if not (of_routes and labels[0] in routes_gone)
        )

    def forget(self, routes: Collection[str]) -> None:
        """Drop the series of routes that are gone."""
        if self.declaration.labels[:1] == ("route",):
            for labels in [each for each in self.values if each[0] in routes]:
                del self.values[labels]
