"""Several processes as one: merging, and workers that die."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.observability.metrics import Metrics
from gateway.observability.snapshot import Aggregator, Family, Snapshot, merge


def worker(requests: int = 0, generation: int = 1, route: str = "r") -> Metrics:
    metrics = Metrics(ManualClock(), "1")
    metrics.config_loaded(generation)
    for _ in range(requests):
        series = metrics.route(route)
        series.in_flight += 1
        series.finish("GET", 200, "", 0.002, "up", 0.001)
    return metrics


def family(snapshot: Snapshot, name: str) -> Family:
    return next(each for each in snapshot.families if each.declaration.name == name)


def value(snapshot: Snapshot, name: str) -> float:
    return sum(sample.value for sample in family(snapshot, name).samples)


def test_counters_histograms_and_gauges_add() -> None:
    """Two workers' counts come out as one series with the sum."""
    one, two = worker(3), worker(4)
    two.route("r").in_flight += 2
    one.connections_open, two.connections_open = 5, 6
    merged = merge([one.snapshot(), two.snapshot()])
    assert value(merged, "gateway_requests_total") == 7
    assert value(merged, "gateway_requests_in_flight") == 2
    assert value(merged, "gateway_connections_open") == 11
    (duration,) = family(merged, "gateway_request_duration_seconds").samples
    assert sum(duration.counts) == 7
    assert round(duration.value, 6) == 0.014


def test_what_is_the_same_everywhere_is_said_once() -> None:
    """Build info stays 1, and the generation is the newest, not the sum."""
    merged = merge([worker(generation=3).snapshot(), worker(generation=4).snapshot()])
    assert value(merged, "gateway_build_info") == 1
    assert value(merged, "gateway_config_generation") == 4


def test_merging_leaves_its_input_alone() -> None:
    """The snapshots that were merged still say what they said."""
    first, second = worker(2).snapshot(), worker(3).snapshot()
    before = msgspec.json.encode(first)
    merge([first, second])
    assert msgspec.json.encode(first) == before


def test_a_snapshot_crosses_a_process_border() -> None:
    """JSON and back gives an equal snapshot."""
    snapshot = worker(2).snapshot()
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


def test_a_dead_worker_keeps_counting() -> None:
    """Replacing a worker makes no sum fall, and takes its gauges away."""
    aggregator = Aggregator(ManualClock())
    doomed = worker(10)
    doomed.connections_open = 5
    aggregator.update(1, doomed.snapshot())
    aggregator.update(2, worker(1).snapshot())
    assert value(aggregator.total(), "gateway_requests_total") == 11
    aggregator.remove(1)
    aggregator.remove(1)
    aggregator.update(3, worker(2).snapshot())
    total = aggregator.total()
    assert value(total, "gateway_requests_total") == 13
    assert value(total, "gateway_connections_open") == 0
    assert value(total, "gateway_build_info") == 1


def test_dead_workers_routes_are_forgotten_too() -> None:
    """A route that left the configuration leaves the folded counts after the same ten minutes."""
    clock = ManualClock()
    aggregator = Aggregator(clock)
    aggregator.update(1, worker(5, route="gone").snapshot())
    aggregator.update(2, worker(7, route="stays").snapshot())
    aggregator.remove(1)
    aggregator.remove(2)
    aggregator.retain({"stays"}, {"up"})
    clock.advance(599)
    assert value(aggregator.total(), "gateway_requests_total") == 12
    clock.advance(1)
    assert value(aggregator.total(), "gateway_requests_total") == 7


def test_other_buckets_are_not_added() -> None:
    """A worker of another release with other buckets can't spoil the histogram."""
    one, two = worker(1).snapshot(), worker(1).snapshot()
    (sample,) = family(two, "gateway_request_duration_seconds").samples
    sample.counts.append(5)
    (merged,) = family(merge([one, two]), "gateway_request_duration_seconds").samples
    assert sum(merged.counts) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=20))
def test_the_sum_never_falls(events: list[tuple[int, bool]]) -> None:
    """Whatever order workers report and die in, the request counter only grows."""
    aggregator = Aggregator(ManualClock())
    process, counts = {1: 1, 2: 2, 3: 3}, {1: 0, 2: 0, 3: 0}
    following, last = 4, 0.0
    for slot, dies in events:
        if dies:
            aggregator.remove(process[slot])
            process[slot], counts[slot] = following, 0
            following += 1
        else:
            counts[slot] += 1
            aggregator.update(process[slot], worker(counts[slot]).snapshot())
        total = aggregator.total()
        now = value(total, "gateway_requests_total") if total.families else 0.0
        assert now >= last
        last = now


def test_the_store_is_up_if_it_is_for_all() -> None:
    """Of several processes the worst counts, and one that needs no store says nothing."""
    metrics = [Metrics(ManualClock()) for _ in range(3)]
    metrics[0].store.up, metrics[1].store.up = True, False
    metrics[0].store.ok, metrics[1].store.ok = 3, 4

    merged = merge([each.snapshot() for each in metrics])
    assert value(merged, "gateway_store_up") == 0
    assert value(merge([metrics[0].snapshot(), metrics[2].snapshot()]), "gateway_store_up") == 1
    counts = {
        each.labels: each.value for each in family(merged, "gateway_store_calls_total").samples
    }
    assert counts["ok",] == 7
