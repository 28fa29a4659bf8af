"""The two text formats, read back by the parsers of Prometheus's own client."""

from __future__ import annotations

import platform

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import compiled
from gateway.clock import ManualClock
from gateway.observability.exposition import (
    LIBRARY_LINES,
    SnapshotCollector,
    render,
    render_by_library,
    render_fast,
    wants_openmetrics,
)
from gateway.observability.metrics import LATENCY_BOUNDS, Metrics


@pytest.fixture
def busy() -> Metrics:
    metrics = Metrics(ManualClock(1_700_000_000.0), "1.0")
    for route in ("orders.read", 'a "quoted"\\name\nwith a line feed'):
        series = metrics.route(route)
        for seconds in (0.0001, 0.002, 70.0):
            series.in_flight += 1
            series.finish("GET", 200, "", seconds, "orders", seconds / 2)
        series.in_flight += 1
        series.report("access", "access_denied")
    metrics.target("orders", "unix:/run/orders.sock").fail("connect_failed")
    metrics.refused("malformed_request")
    metrics.config_loaded(2)
    metrics.config_reloaded(ok=True)
    return metrics


@pytest.mark.parametrize("openmetrics", [False, True])
def test_what_was_counted_is_read_back(busy: Metrics, openmetrics: bool) -> None:
    """Both formats parse, and carry every declared family with its values."""
    text = render(busy.snapshot(), openmetrics).decode()
    families = list(parse_openmetrics(text) if openmetrics else parse_text(text))
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    read = {"route": "orders.read", "method": "GET", "status_class": "2xx", "code": ""}
    assert samples["gateway_requests_total", tuple(sorted(read.items()))] == 3
    assert samples["gateway_requests_in_flight", (("route", "orders.read"),)] == 1
    assert samples["gateway_config_generation", ()] == 2
    kind = "pure" if compiled.why_not else "compiled"
    build = (("build", kind), ("python", platform.python_version()), ("version", "1.0"))
    assert samples["gateway_build_info", build] == 1
    name = "gateway_request_duration_seconds"
    buckets = [
        value
        for (sample, labels), value in samples.items()
        if sample == f"{name}_bucket" and dict(labels)["route"] == "orders.read"
    ]
    assert len(buckets) == len(LATENCY_BOUNDS) + 1
    assert buckets == sorted(buckets)
    assert samples[f"{name}_count", (("route", "orders.read"),)] == 3
    assert samples[f"{name}_sum", (("route", "orders.read"),)] == pytest.approx(70.0021)
    declared = {each.declaration.name.removesuffix("_total") for each in busy.snapshot().families}
    assert {family.name.removesuffix("_total") for family in families} == declared


def test_label_values_survive_whatever_they_are(busy: Metrics) -> None:
    """Quotes, backslashes and line feeds come back from both formats as they were."""
    snapshot = busy.snapshot()
    for families in (
        parse_text(render(snapshot, openmetrics=False).decode()),
        parse_openmetrics(render(snapshot, openmetrics=True).decode()),
    ):
        routes = {sample.labels.get("route") for each in families for sample in each.samples}
        assert 'a "quoted"\\name\nwith a line feed' in routes


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_fast_writer_writes_what_the_library_writes(busy: Metrics, openmetrics: bool) -> None:
    """Byte for byte, large and small numbers and awkward label values included."""
    series = busy.route("many")
    for number, seconds in enumerate((0.000001, 1234567.25, 1e15, 3e22)):
        for _ in range(10**number):
            series.in_flight += 1
            series.finish("POST", 503, "connect_failed", seconds, "orders", seconds / 3)
    busy.access_log_dropped = 12_345_678
    snapshot = busy.snapshot()
    assert render_fast(snapshot, openmetrics) == render_by_library(snapshot, openmetrics)


def test_the_library_reads_the_collector(busy: Metrics) -> None:
    """The collector can be registered beside others."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(busy.snapshot()))
    labels = {"route": "orders.read", "method": "GET", "status_class": "2xx", "code": ""}
    assert registry.get_sample_value("gateway_requests_total", labels) == 3


def test_thousands_of_series_are_written_and_read() -> None:
    """Where the fast writer takes over, nothing is lost and the format stays what it was."""
    metrics = Metrics(ManualClock())
    for number in range(LIBRARY_LINES // 50):
        series = metrics.route(f"r{number}")
        series.in_flight += 1
        series.finish("GET", 200, "", 0.01, "orders", 0.005)
    snapshot = metrics.snapshot()
    text = render(snapshot, openmetrics=False)
    assert text.count(b"\n") > LIBRARY_LINES
    assert text == render_by_library(snapshot, openmetrics=False)


def test_an_idle_gateway_renders() -> None:
    """Families without a series are no error in either format."""
    empty = Metrics(ManualClock()).snapshot()
    assert list(parse_text(render(empty, openmetrics=False).decode()))
    assert list(parse_openmetrics(render(empty, openmetrics=True).decode()))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("text/plain;q=0.2, Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;q=0,*/*", False),
        ("application/openmetrics-text;q=0.000", False),
        (";;,,=;q", False),
    ],
)
def test_openmetrics_is_sent_only_if_asked_for(accept: str, wanted: bool) -> None:
    """Accept decides; what Prometheus sends gets OpenMetrics, a browser gets plain text."""
    assert wants_openmetrics(accept) is wanted
