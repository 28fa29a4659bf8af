"""Counting, label bounds, and forgetting what left the configuration."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.observability.exposition import render
from gateway.observability.families import Counts
from gateway.observability.metrics import OVERHEAD_BOUNDS, UNMATCHED, Histogram, Metrics
from gateway.observability.snapshot import Declaration, Family, Kind, Sample


def family(metrics: Metrics, name: str) -> Family:
    found = [each for each in metrics.snapshot().families if each.declaration.name == name]
    assert len(found) == 1
    return found[0]


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in family(metrics, name).samples}


def serve(metrics: Metrics, route: str, method: str = "GET", status: int = 200) -> None:
    series = metrics.route(route)
    series.in_flight += 1
    series.finish(method, status, "", 0.010, "orders", 0.009)


def test_one_exchange_is_counted_in_every_family() -> None:
    """A finished exchange adds one to the counter and to each of the three histograms."""
    metrics = Metrics(ManualClock(), "1.0")
    series = metrics.route("orders.read")
    series.in_flight += 1
    assert values(metrics, "gateway_requests_in_flight") == {("orders.read",): 1}
    series.finish("GET", 502, "connect_failed", 0.010, "orders", 0.009)
    assert values(metrics, "gateway_requests_in_flight") == {("orders.read",): 0}
    labels = ("orders.read", "GET", "5xx", "connect_failed")
    assert values(metrics, "gateway_requests_total") == {labels: 1}
    upstream = family(metrics, "gateway_upstream_duration_seconds").samples
    assert [each.labels for each in upstream] == [("orders.read", "orders")]
    assert sum(upstream[0].counts) == 1
    (overhead,) = family(metrics, "gateway_overhead_seconds").samples
    assert math.isclose(overhead.value, 0.001)
    assert overhead.counts[OVERHEAD_BOUNDS.index(0.0025)] == 1


def test_an_exchange_without_upstream_is_all_overhead() -> None:
    """A refusal has no upstream duration, and its whole time is the gateway's."""
    metrics = Metrics(ManualClock())
    series = metrics.route("r")
    series.in_flight += 1
    series.finish("GET", 403, "access_denied", 0.002, "", 0.0)
    assert family(metrics, "gateway_upstream_duration_seconds").samples == []
    assert family(metrics, "gateway_overhead_seconds").samples[0].value == 0.002


def test_an_upgrade_is_counted_but_not_timed() -> None:
    """The hours of a WebSocket stay out of the latency histograms."""
    metrics = Metrics(ManualClock())
    series = metrics.route("chat")
    series.in_flight += 1
    series.finish("GET", 101, "", 3600.0, "chat", 3600.0)
    assert values(metrics, "gateway_requests_total") == {("chat", "GET", "1xx", ""): 1}
    assert sum(family(metrics, "gateway_request_duration_seconds").samples[0].counts) == 0


def test_unknown_methods_share_one_label() -> None:
    """A client that makes up methods makes no new series."""
    metrics = Metrics(ManualClock())
    for number in range(50):
        serve(metrics, "r", f"METHOD{number}")
    assert values(metrics, "gateway_requests_total") == {("r", "_OTHER", "2xx", ""): 50}


def test_a_status_nobody_sent_has_a_class_of_its_own() -> None:
    """An exchange that ended without an answer is counted as `none`, not as a made-up class."""
    metrics = Metrics(ManualClock())
    serve(metrics, "r", status=0)
    assert values(metrics, "gateway_requests_total") == {("r", "GET", "none", ""): 1}


def test_no_route_is_the_unmatched_route() -> None:
    """Requests that no route took share one series, by the empty name or the label itself."""
    metrics = Metrics(ManualClock())
    assert metrics.route("") is metrics.route(UNMATCHED)


def test_a_removed_route_is_shown_for_ten_minutes_more() -> None:
    """Its counters stay for the last scrapes, then go; coming back in time keeps the count."""
    clock = ManualClock()
    metrics = Metrics(clock)
    serve(metrics, "old")
    serve(metrics, "")
    metrics.retain({"new"}, set())
    clock.advance(599)
    assert ("old", "GET", "2xx", "") in values(metrics, "gateway_requests_total")
    metrics.retain({"new", "old"}, set())
    clock.advance(3600)
    assert ("old", "GET", "2xx", "") in values(metrics, "gateway_requests_total")
    metrics.retain({"new"}, set())
    clock.advance(600)
    assert list(values(metrics, "gateway_requests_total")) == [(UNMATCHED, "GET", "2xx", "")]
    metrics.retain({"new", "old"}, set())
    assert ("old", "GET", "2xx", "") in values(metrics, "gateway_requests_total")


def test_memory_of_removed_routes_is_given_back() -> None:
    """A year of reloads with ever new route names leaves no series behind."""
    clock = ManualClock()
    metrics = Metrics(clock)
    for number in range(100):
        serve(metrics, f"route-{number}")
        metrics.target(f"up-{number}", "a:1")
        metrics.retain({f"route-{number}"}, {f"up-{number}"})
        clock.advance(601)
    metrics.retain(set(), set())
    assert len(metrics._routes) <= 2
    assert len(metrics._targets) <= 2


def test_a_removed_route_stays_while_a_request_is_in_flight() -> None:
    """A stream that outlives its route by hours is still in the gauge, and then counted."""
    clock = ManualClock()
    metrics = Metrics(clock)
    series = metrics.route("stream")
    series.in_flight += 1
    metrics.retain(set(), set())
    clock.advance(7200)
    metrics.retain(set(), set())
    assert values(metrics, "gateway_requests_in_flight") == {("stream",): 1}
    series.finish("GET", 200, "", 7200.0, "up", 7199.0)
    metrics.retain(set(), set())
    assert values(metrics, "gateway_requests_in_flight") == {}


def test_a_target_shows_connections_connects_and_failures() -> None:
    """The pool's numbers appear under the upstream's and the target's name."""
    metrics = Metrics(ManualClock())
    target = metrics.target("orders", "10.0.0.1:8080")
    target.idle, target.active, target.connects = 3, 2, 9
    target.fail("connect_failed")
    target.fail("connect_failed")
    base = ("orders", "10.0.0.1:8080")
    assert values(metrics, "gateway_upstream_connections") == {
        (*base, "active"): 2,
        (*base, "idle"): 3,
    }
    assert values(metrics, "gateway_upstream_connects_total") == {base: 9}
    assert values(metrics, "gateway_upstream_failures_total") == {(*base, "connect_failed"): 2}


def test_process_wide_values() -> None:
    """Refusals, reports, reloads, the generation and gauges read at scrape time are all there."""
    clock = ManualClock(1_700_000_000.0)
    metrics = Metrics(clock, "1.2.3")

    def read() -> None:
        metrics.connections_open = 7

    metrics.before_snapshot.append(read)
    metrics.refused("malformed_request")
    metrics.route("r").report("access", "access_denied")
    serve(metrics, "r")
    metrics.config_loaded(4)
    metrics.config_reloaded(ok=True)
    metrics.config_reloaded(ok=False)
    metrics.loop_lag = 0.25
    metrics.access_log_dropped = 2
    assert values(metrics, "gateway_event_loop_lag_seconds") == {(): 0.25}
    assert values(metrics, "gateway_event_loop_lag_seconds") == {(): 0.0}
    assert values(metrics, "gateway_connections_open") == {(): 7}
    assert values(metrics, "gateway_access_log_dropped_lines_total") == {(): 2}
    assert values(metrics, "gateway_refused_messages_total") == {("malformed_request",): 1}
    reported = values(metrics, "gateway_policy_reported_total")
    assert reported == {("r", "access", "access_denied"): 1}
    assert values(metrics, "gateway_config_generation") == {(): 4}
    assert values(metrics, "gateway_config_reloads_total") == {("success",): 1, ("failure",): 1}
    name = "gateway_config_last_reload_success_timestamp_seconds"
    assert values(metrics, name) == {(): 1_700_000_000.0}
    ((labels, value),) = values(metrics, "gateway_build_info").items()
    assert labels[0] == "1.2.3"
    assert value == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_every_observation_is_in_the_right_bucket(seconds: list[float]) -> None:
    """Cumulated, each bucket holds exactly what is not above its bound."""
    histogram = Histogram(OVERHEAD_BOUNDS)
    for each in seconds:
        histogram.observe(each)
    sample = histogram.sample("x")
    assert isinstance(sample, Sample)
    for position, bound in enumerate(OVERHEAD_BOUNDS):
        assert sum(sample.counts[: position + 1]) == sum(each <= bound for each in seconds)
    assert sum(sample.counts) == len(seconds)
    assert sample.value == pytest.approx(math.fsum(seconds))


def test_counts_of_a_policy() -> None:
    """Each set of labels is a series; those of a route that is gone are left out."""
    declaration = Declaration("gateway_toys_total", Kind.COUNTER, "Toys.", ("route", "kind"))
    counts = Counts(declaration)
    counts.add("a", "ball")
    counts.add("a", "ball", amount=2)
    counts.add("b", "car")

    into: dict[str, list[Sample]] = {declaration.name: []}
    counts.collect(into, {"b"})
    assert into[declaration.name] == [Sample(("a", "ball"), 3)]

    counts.forget({"b"})
    assert list(counts.values) == [("a", "ball")]


def test_a_plugins_family() -> None:
    """Asked for by its declaration, it is shown; declared anew, it begins anew."""
    metrics = Metrics(ManualClock())
    toys = Declaration("toys_total", Kind.COUNTER, "Toys.", ("kind",))
    metrics.counts(toys).add("ball")
    metrics.counts(toys).add("ball")

    assert family(metrics, "toys_total").samples == [Sample(("ball",), 2)]
    assert render(metrics.snapshot(), openmetrics=False).count(b'toys_total{kind="ball"} 2') == 1
    bigger = Declaration("toys_total", Kind.COUNTER, "Toys.", ("kind", "size"))
    metrics.counts(bigger).add("ball", "big")
    assert family(metrics, "toys_total").samples == [Sample(("ball", "big"), 1)]
    for refused in (
        Declaration("gateway_requests_total", Kind.COUNTER, "Not ours."),
        Declaration("toys", Kind.HISTOGRAM, "Not these."),
        Declaration("toys-total", Kind.COUNTER, "No name."),
        Declaration("toys", Kind.COUNTER, "No label.", ("a b",)),
    ):
        with pytest.raises(ValueError, match="metric"):
            metrics.counts(refused)
