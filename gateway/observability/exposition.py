"""A snapshot as text for Prometheus: the 0.0.4 format, or OpenMetrics 1.0.0 if that is asked for.

The only module that imports prometheus_client, and only its renderers: nothing is counted there.
Rendering thousands of series takes a while; call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from gateway.observability.snapshot import Declaration, Family, Kind, Sample, Snapshot

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept field names OpenMetrics at all, without refusing it by `q=0`."""
    for media_range in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        if kind == "application/openmetrics-text":
            weights = [each[2:] for each in parameters if each.startswith("q=")]
            return all(weight.strip("0.") for weight in weights)
    return False


def render(snapshot: Snapshot, openmetrics: bool) -> bytes:
    """The snapshot in one of the two formats."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    if not openmetrics:
        return generate_text(registry)
    text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    return text


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for family in self._snapshot.families:
            yield _metric(family)


def _metric(family: Family) -> Metric:
    declaration = family.declaration
    labels = declaration.labels
    if declaration.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(declaration.name, declaration.help, labels=labels)
        for sample in family.samples:
            histogram.add_metric(sample.labels, _buckets(declaration, sample), sample.value)
        return histogram
    kind = CounterMetricFamily if declaration.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(declaration.name, declaration.help, labels=labels)
    for sample in family.samples:
        metric.add_metric(sample.labels, sample.value)
    return metric


def _buckets(declaration: Declaration, sample: Sample) -> list[tuple[str, float]]:
    """Cumulative counts with their bounds as text, as the formats want them."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*declaration.bounds, float("inf")), sample.counts, strict=True):
        total += count
        buckets.append((_bound(bound), total))
    return buckets


def _bound(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text
