"""Pieces of the hot path on their own: microseconds each, best of several runs.

For finding out what a change did, not for comparing: nothing here is judged.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from random import Random

from bench.report import Row, reported
from bench.session import Session
from gateway.clock import SystemClock
from gateway.config.model_route import MatchConfig
from gateway.http1.head import parse_request_head, parse_response_head
from gateway.message import Exchange, Headers, Request
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import Metrics
from gateway.observability.sink import LineSink
from gateway.routing.path import normalise
from gateway.routing.table import Entry, RouteTable

CALLS = 20_000
REPEATS = 5
ROUTES = 10_000
REQUEST = (
    b"GET /v1/service7/items/42?expand=lines HTTP/1.1\r\nHost: api.internal\r\n"
    b"User-Agent: bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n"
)


class _Nowhere:
    """The end of a line that nobody reads."""

    chunk = 1 << 16

    def write(self, data: bytes) -> int:
        return len(data)

    def close(self, timeout: float) -> None:
        """Nothing is open."""


class _NoSink(LineSink):
    """Takes lines at once: the real one gathers them on a running event loop."""

    def write(self, block: bytes) -> None:
        """Drop it."""


def measure(_: Session) -> list[Row]:
    """One row for each piece."""
    rows = []
    for name, call in pieces().items():
        call()
        best = min(timeit.repeat(call, number=CALLS, repeat=REPEATS)) / CALLS
        rows.append(reported(f"piece: {name}", f"{best * 1e6:.2f} us"))
    return rows


def pieces() -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    table, headers = _table(), Headers([(b"host", b"api.internal")])
    exchange = _exchange()
    series = Metrics(SystemClock()).route("orders.read")
    log = AccessLog(_NoSink(_Nowhere()), SystemClock(), Random())
    return {
        "parse a request's head": lambda: parse_request_head(REQUEST),
        "parse a response's head": lambda: parse_response_head(RESPONSE, "GET"),
        "normal form of a path": lambda: normalise(b"/v1/service7/items/42"),
        f"match a route of {ROUTES:,}": lambda: table.match(
            "api.internal", "/v1/service7777/items/42", "GET", headers
        ),
        "count an exchange": lambda: series.finish("GET", 200, "", 0.002, "orders", 0.0015),
        "format an access log line": lambda: log.write(exchange, 0.002),
    }


def _table() -> RouteTable[int]:
    return RouteTable.build(
        Entry(
            f"service{n}.read", MatchConfig(path=f"/v1/service{n}/items/{{id}}", methods=["GET"]), n
        )
        for n in range(ROUTES)
    )


def _exchange() -> Exchange:
    fields = Headers([(b"user-agent", b"bench/1")])
    request = Request(
        "GET", "/v1/orders/1001", b"expand=lines", fields, host="api.internal", client="127.0.0.1"
    )
    exchange = Exchange(request, 0.0)
    exchange.route, exchange.upstream, exchange.target = "orders.read", "orders", "127.0.0.1:8081"
    exchange.correlation_id = "0" * 32
    exchange.upstream_status = exchange.response_status = 200
    exchange.upstream_seconds, exchange.bytes_out = 0.0015, 1024
    return exchange
