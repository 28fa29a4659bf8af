"""What one process counts. Counting is plain attribute arithmetic; everything else is elsewhere.

Rules of this file: every family is declared here, once, with its label set; labels hold names from
the configuration and codes from the taxonomy, never anything a client can make up; nothing formats.
Series are bound when a route is compiled. All counting happens on the event loop's thread;
`Metrics.snapshot` may run in any thread, because it only copies integers.

Series of a route or upstream that left the configuration are shown for ten more minutes (and as
long as requests are in flight), then forgotten. If it comes back later it starts from zero, which
Prometheus reads as a counter reset.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from typing import Final

from gateway import compiled
from gateway.clock import Clock
from gateway.observability.families import POLICY_FAMILIES, Counts, check_plugin_family, make_series
from gateway.observability.snapshot import (
    RETIRE_AFTER_S,
    Declaration,
    Family,
    Kind,
    Merge,
    Retirement,
    Sample,
    Snapshot,
)
from gateway.observability.store_series import STORE_FAMILIES, StoreSeries
from gateway.observability.timings import Timings

UNMATCHED: Final = "_unmatched"
"""The route label of requests that no route took."""

OTHER_METHOD: Final = "_OTHER"
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)

LATENCY_BOUNDS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
OVERHEAD_BOUNDS: Final[tuple[float, ...]] = (
    0.000025, 0.00005, 0.0001, 0.00015, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25,
    1.0, 10.0, 60.0,
)  # fmt: skip

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

REQUESTS: Final = Declaration(
    "gateway_requests_total", _C,
    "Exchanges that ended, by route, method, class of the answer's status, and error code.",
    ("route", "method", "status_class", "code"),
)  # fmt: skip
DURATION: Final = Declaration(
    "gateway_request_duration_seconds", _H,
    "From the request's head to the end of the answer. Upgraded connections are not in it.",
    ("route",), LATENCY_BOUNDS,
)  # fmt: skip
UPSTREAM_DURATION: Final = Declaration(
    "gateway_upstream_duration_seconds", _H,
    "The part of the duration that was spent on the upstream, waiting and streaming.",
    ("route", "upstream"), LATENCY_BOUNDS,
)  # fmt: skip
OVERHEAD: Final = Declaration(
    "gateway_overhead_seconds", _H,
    "The part of the duration that was not spent on the upstream.",
    ("route",), OVERHEAD_BOUNDS,
)  # fmt: skip
IN_FLIGHT: Final = Declaration(
    "gateway_requests_in_flight", _G, "Exchanges that have not ended.", ("route",)
)
REPORTED: Final = Declaration(
    "gateway_policy_reported_total", _C,
    "Requests that a policy in report mode would have refused.",
    ("route", "policy", "code"),
)  # fmt: skip
REFUSED: Final = Declaration(
    "gateway_refused_messages_total", _C,
    "Messages refused by the HTTP protocol, before there was an exchange.",
    ("code",),
)  # fmt: skip
UPSTREAM_CONNECTIONS: Final = Declaration(
    "gateway_upstream_connections", _G, "Open connections to a target, by state.",
    ("upstream", "target", "state"),
)  # fmt: skip
UPSTREAM_CONNECTS: Final = Declaration(
    "gateway_upstream_connects_total", _C, "Connections made to a target.", ("upstream", "target")
)
UPSTREAM_FAILURES: Final = Declaration(
    "gateway_upstream_failures_total", _C, "Attempts at a target that failed, by error code.",
    ("upstream", "target", "code"),
)  # fmt: skip
CONNECTIONS: Final = Declaration("gateway_connections_open", _G, "Client connections open.")
LOG_DROPPED: Final = Declaration(
    "gateway_access_log_dropped_lines_total", _C,
    "Access log lines lost because their reader was too slow or their disk was full.",
)  # fmt: skip
LOOP_LAG: Final = Declaration(
    "gateway_event_loop_lag_seconds", _G,
    "How late the event loop ran a timer, the worst since the last scrape.", merge=Merge.MAX,
)  # fmt: skip
BUILD: Final = Declaration(
    "gateway_build_info", _G, "Always 1; the labels say what runs.",
    ("version", "python", "build"), merge=Merge.MAX,
)  # fmt: skip
GENERATION: Final = Declaration(
    "gateway_config_generation", _G, "The newest configuration that a process serves.",
    merge=Merge.MAX,
)  # fmt: skip
RELOADS: Final = Declaration(
    "gateway_config_reloads_total", _C,
    "Configurations loaded after the start, by result. One reload of all workers counts once.",
    ("result",), merge=Merge.MAX,
)  # fmt: skip
RELOADED_AT: Final = Declaration(
    "gateway_config_last_reload_success_timestamp_seconds", _G,
    "When the configuration that is served was loaded, in Unix seconds.", merge=Merge.MAX,
)  # fmt: skip


class Histogram:
    """Counts a bucket and a sum. `bounds` are inclusive upper bounds in seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def sample(self, *labels: str) -> Sample:
        """A copy, as data."""
        return Sample(labels, self.sum, list(self.counts))


class RouteSeries:
    """Every series of one route. Fetched once when the route is compiled, and kept by reference."""

    __slots__ = ("_duration", "_overhead", "_reported", "_requests", "_upstream", "in_flight",
                 "route")  # fmt: skip

    def __init__(self, route: str) -> None:
        self.route = route
        self.in_flight = 0
        self._requests: dict[tuple[str, int, str], int] = {}
        self._duration = Histogram(LATENCY_BOUNDS)
        self._overhead = Histogram(OVERHEAD_BOUNDS)
        self._upstream: dict[str, Histogram] = {}
        self._reported: dict[tuple[str, str], int] = {}

    def finish(
        self, method: str, status: int, code: str, seconds: float, upstream: str, busy: float
    ) -> None:
        """Count an exchange that was counted as in flight and has ended.

        `status` is 0 if no answer was sent, `code` is empty if nothing failed, `upstream` is empty
        if none was called, and `busy` is the upstream's share of `seconds`.
        """
        self.in_flight -= 1
        key = (method, status // 100, code)
        try:
            self._requests[key] += 1
        except KeyError:
            self._first(key)
        if status == 101:  # an upgrade's duration is the life of a connection, not a latency
            return
        # The histograms are written out here: three calls of `observe` would cost as much again.
        histogram = self._duration
        histogram.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        histogram.sum += seconds
        if upstream:
            try:
                histogram = self._upstream[upstream]
            except KeyError:
                histogram = self._upstream[upstream] = Histogram(LATENCY_BOUNDS)
            histogram.counts[bisect_left(LATENCY_BOUNDS, busy)] += 1
            histogram.sum += busy
            seconds -= busy
        histogram = self._overhead
        histogram.counts[bisect_left(OVERHEAD_BOUNDS, seconds)] += 1
        histogram.sum += seconds

    def _first(self, key: tuple[str, int, str]) -> None:
        """A key is new, or will never be in the dict because its method is not a known one."""
        method, status_class, code = key
        if method not in METHODS:
            key = (OTHER_METHOD, status_class, code)
        self._requests[key] = self._requests.get(key, 0) + 1

    def report(self, policy: str, code: str) -> None:
        """Count a refusal that a policy in report mode did not make."""
        key = (policy, code)
        self._reported[key] = self._reported.get(key, 0) + 1

    def collect(self, into: dict[str, list[Sample]]) -> None:
        """Append a copy of every series that was ever used."""
        route = self.route
        requests = list(self._requests.items())
        if not requests and not self.in_flight:
            return
        into[REQUESTS.name].extend(
            Sample((route, method, _STATUS_CLASSES.get(status, "none"), code), count)
            for (method, status, code), count in requests
        )
        into[IN_FLIGHT.name].append(Sample((route,), self.in_flight))
        if requests:
            into[DURATION.name].append(self._duration.sample(route))
            into[OVERHEAD.name].append(self._overhead.sample(route))
        into[UPSTREAM_DURATION.name].extend(
            histogram.sample(route, upstream)
            for upstream, histogram in list(self._upstream.items())
        )
        into[REPORTED.name].extend(
            Sample((route, policy, code), count)
            for (policy, code), count in list(self._reported.items())
        )


_STATUS_CLASSES: Final = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


class TargetSeries:
    """Every series of one target of one upstream.

    The pool may count here directly, or a reader (`Metrics.before_snapshot`) may copy its numbers
    in when a snapshot is taken. `connects` and `failures` only ever grow.
    """

    __slots__ = ("active", "connects", "failures", "idle", "target", "upstream")

    def __init__(self, upstream: str, target: str) -> None:
        self.upstream = upstream
        self.target = target
        self.idle = 0
        self.active = 0
        self.connects = 0
        self.failures: dict[str, int] = {}

    def fail(self, code: str) -> None:
        """Count an attempt that failed with this code of the taxonomy."""
        self.failures[code] = self.failures.get(code, 0) + 1

    def collect(self, into: dict[str, list[Sample]]) -> None:
        """Append a copy of every series."""
        labels = (self.upstream, self.target)
        connections = into[UPSTREAM_CONNECTIONS.name]
        connections.append(Sample((*labels, "active"), self.active))
        connections.append(Sample((*labels, "idle"), self.idle))
        into[UPSTREAM_CONNECTS.name].append(Sample(labels, self.connects))
        into[UPSTREAM_FAILURES.name].extend(
            Sample((*labels, code), count) for code, count in list(self.failures.items())
        )


_DECLARATIONS: Final = (
    REQUESTS, DURATION, UPSTREAM_DURATION, OVERHEAD, IN_FLIGHT, REPORTED, REFUSED,
    UPSTREAM_CONNECTIONS, UPSTREAM_CONNECTS, UPSTREAM_FAILURES, CONNECTIONS, LOG_DROPPED, LOOP_LAG,
    BUILD, GENERATION, RELOADS, RELOADED_AT, *POLICY_FAMILIES, *STORE_FAMILIES,
)  # fmt: skip


class Metrics:
    """Everything one process counts. Plain attributes are gauges and totals to be set directly.

    `connections_open` and `access_log_dropped` are kept by their owners, or set by a function in
    `before_snapshot`; `loop_lag` (seconds) is the worst since the last snapshot.
    """

    def __init__(
        self, clock: Clock, version: str = "", retire_after: float = RETIRE_AFTER_S
    ) -> None:
        self._clock = clock
        self._version = version
        self._routes: dict[str, RouteSeries] = {}
        self._targets: dict[tuple[str, str], TargetSeries] = {}
        self._routes_gone = Retirement(clock, retire_after)
        self._upstreams_gone = Retirement(clock, retire_after)
        self.store = StoreSeries()
        self._refused: dict[str, int] = {}
        self._reloads = {"success": 0, "failure": 0}
        self._counts = {each.name: make_series(each) for each in POLICY_FAMILIES}
        self.before_snapshot: list[Callable[[], None]] = []
        self.connections_open = 0
        self.access_log_dropped = 0
        self.loop_lag = 0.0
        self.config_generation = 0
        self.config_loaded_at = 0.0

    def route(self, name: str) -> RouteSeries:
        """The series of a route, the same object for the same name. Empty stands for no route."""
        name = name or UNMATCHED
        series = self._routes.get(name)
        if series is None:
            series = self._routes[name] = RouteSeries(name)
        return series

    def target(self, upstream: str, target: str) -> TargetSeries:
        """The series of a target, the same object for the same names."""
        series = self._targets.get((upstream, target))
        if series is None:
            series = self._targets[upstream, target] = TargetSeries(upstream, target)
        return series

    def counts(self, declaration: Declaration) -> Counts:
        """The series of a family of `families.py`, or of a plugin's own, for who keeps them.

        A plugin's family begins anew if it is declared differently. Raises ValueError for a name
        that is one of the gateway's own.
        """
        known = self._counts.get(declaration.name)
        if isinstance(known, Counts) and known.declaration == declaration:
            return known
        check_plugin_family(declaration, {each.name for each in _DECLARATIONS})
        made = self._counts[declaration.name] = Counts(declaration)
        return made

    def timings(self, declaration: Declaration) -> Timings:
        """The histograms of a family of `families.py`, for who keeps them."""
        known = self._counts[declaration.name]
        assert isinstance(known, Timings)
        return known

    def refused(self, code: str) -> None:
        """Count a message that the protocol refused before there was an exchange."""
        self._refused[code] = self._refused.get(code, 0) + 1

    def config_loaded(self, generation: int) -> None:
        """Note the configuration that is served from now on, at the start and at every reload."""
        self.config_generation = generation
        self.config_loaded_at = self._clock.wall()

    def config_reloaded(self, ok: bool) -> None:
        """Count a reload, good or refused. The start is not one."""
        self._reloads["success" if ok else "failure"] += 1

    def retain(self, routes: Collection[str], upstreams: Collection[str]) -> None:
        """Say what is configured now, after every swap, so that the rest can be forgotten."""
        self._routes_gone.retain((each for each in self._routes if each != UNMATCHED), routes)
        self._upstreams_gone.retain({upstream for upstream, _ in self._targets}, upstreams)
        # Only here, on the loop's thread and after the swap, are series really deleted: a snapshot
        # in another thread must not race a route that is just coming back.
        routes_gone = self._routes_gone.expired()
        for counts in self._counts.values():
            counts.forget(routes_gone)
        for name in routes_gone:
            if not self._routes[name].in_flight:
                del self._routes[name]
                self._routes_gone.forget((name,))
        upstreams_gone = self._upstreams_gone.expired()
        for key in [key for key in self._targets if key[0] in upstreams_gone]:
            del self._targets[key]
        self._upstreams_gone.forget(upstreams_gone)

    def snapshot(self) -> Snapshot:
        """A copy of everything, as data. Safe in a thread; a scrape may be one request behind."""
        for prepare in self.before_snapshot:
            prepare()
        routes_gone, upstreams_gone = self._routes_gone.expired(), self._upstreams_gone.expired()
        own = [each.declaration for each in list(self._counts.values())]
        declarations = dict.fromkeys((*_DECLARATIONS, *own))
        into: dict[str, list[Sample]] = {each.name: [] for each in declarations}
        for route in list(self._routes.values()):
            if route.in_flight or route.route not in routes_gone:
                route.collect(into)
        for target in list(self._targets.values()):
            if target.upstream not in upstreams_gone:
                target.collect(into)
        self.store.collect(into)
        for counts in list(self._counts.values()):
            if counts.declaration.name in into:
                counts.collect(into, routes_gone)
        into[REFUSED.name].extend(_samples(self._refused.items()))
        into[RELOADS.name].extend(_samples(self._reloads.items()))
        build = "pure" if compiled.why_not else "compiled"
        into[BUILD.name].append(Sample((self._version, platform.python_version(), build), 1))
        lag, self.loop_lag = self.loop_lag, 0.0
        for declaration, value in (
            (CONNECTIONS, self.connections_open),
            (LOG_DROPPED, self.access_log_dropped),
            (LOOP_LAG, lag),
            (GENERATION, self.config_generation),
            (RELOADED_AT, self.config_loaded_at),
        ):
            into[declaration.name].append(Sample((), value))
        return Snapshot([Family(each, into[each.name]) for each in declarations])


def _samples(counts: Iterable[tuple[str, int]]) -> list[Sample]:
    return [Sample((label,), count) for label, count in list(counts)]
