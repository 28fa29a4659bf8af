"""What a rehearsal showed, as data: the command prints it, programs read it as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.chaos.scenario import Phase
from gateway.chaos.verdict import RouteVerdict
from gateway.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Counted:
    """A line of the gateway's metrics: what, of whom, how often."""

    upstream: str
    route: str
    what: str
    reason: str
    count: int


@dataclass(slots=True)
class Report:
    """What a rehearsal showed. `lag` is how late the event loop was at worst, in seconds."""

    scenario: str
    about: str
    seed: int
    ok: bool = True
    seconds: float = 0.0
    sent: int = 0
    not_sent: int = 0
    lag: float = 0.0
    notes: list[str] = field(default_factory=list)
    routes: list[RouteVerdict] = field(default_factory=list)
    breakers: list[Counted] = field(default_factory=list)
    retries: list[Counted] = field(default_factory=list)


def describe_phase(phase: Phase) -> str:
    """A phase in a few words."""
    parts = [f"{phase.length:g} s"]
    for name, trouble in phase.upstream.items():
        shown: dict[str, Any] = trouble.model_dump(mode="json", exclude_defaults=True)
        text = ", ".join(k if v is True else f"{k} {v}" for k, v in shown.items())
        parts.append(f"{name}: {text or 'healthy'}")
    if phase.store != "up":
        parts.append(f"store {phase.store}")
    if phase.load is not None:
        load = phase.load
        parts.append(f"load {load.rate}" if load.rate else f"{load.concurrency} clients")
    return "; ".join(parts)


def counted(metrics: Metrics, name: str, what: str) -> list[Counted]:
    """The series of a family of counters."""
    found = []
    for family in metrics.snapshot().families:
        if family.declaration.name != name:
            continue
        for sample in family.samples:
            labels = dict(zip(family.declaration.labels, sample.labels, strict=True))
            found.append(
                Counted(labels["upstream"], labels["route"], labels[what], labels["reason"],
                        int(sample.value))
            )  # fmt: skip
    return found
