"""The observe policy: trace, in-flight gauge, one count and one line for every exchange."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.config.model import (
    AccessLogConfig,
    GatewayConfig,
    RedactConfig,
    ServerConfig,
    TelemetryConfig,
)
from gateway.errors import CLIENT_DISCONNECTED, ROUTE_NOT_FOUND, ClientError, Rejection
from gateway.message import Exchange, Headers, Request
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import UNMATCHED, Metrics
from gateway.policies.base import BuildContext
from gateway.policies.observe import ObserveConfig, ObservePolicy


class Setup:
    """One policy with its surroundings; time stands still until it is moved."""

    def __init__(self, path: Path | None, route: str = "orders.read") -> None:
        self.clock = ManualClock()
        self.metrics = Metrics(self.clock)
        self.path = path
        self.log = None
        if path is not None:
            config = AccessLogConfig(to=str(path))
            self.log = AccessLog(config, RedactConfig(), self.clock, self.metrics)
        context = BuildContext(
            route=route,
            config=GatewayConfig(),
            server=ServerConfig(),
            telemetry=TelemetryConfig(),
            clock=self.clock,
            random=random.Random(1),
            metrics=self.metrics,
            access_log=self.log,
            base_dir=Path(),
            shared=lambda key, factory: factory(),
        )
        self.policy = ObservePolicy.build(ObserveConfig(), context)

    def exchange(self) -> Exchange:
        request = Request("GET", "/v1/orders/1", b"", Headers([(b"host", b"x")]), host="x")
        return Exchange(request, self.clock.monotonic())

    def value(self, name: str) -> dict[tuple[str, ...], float]:
        return {
            sample.labels: sample.value
            for family in self.metrics.snapshot().families
            if family.declaration.name == name
            for sample in family.samples
        }

    async def lines(self) -> list[dict[str, Any]]:
        assert self.log is not None
        assert self.path is not None
        await self.log.aclose()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def finish(exchange: Exchange) -> None:
    for hook in exchange.on_finish:
        hook(exchange)


async def test_an_exchange_is_counted_and_logged_once(tmp_path: Path) -> None:
    """In flight from the check to the finish; then one count with the upstream's share."""
    setup = Setup(tmp_path / "a.log")
    exchange = setup.exchange()
    setup.policy.check(exchange)
    assert setup.value("gateway_requests_in_flight") == {("orders.read",): 1}
    setup.clock.advance(0.25)
    exchange.route, exchange.response_status = "orders.read", 200
    exchange.upstream, exchange.upstream_seconds, exchange.upstream_status = "orders", 0.125, 200
    finish(exchange)
    assert setup.value("gateway_requests_in_flight") == {("orders.read",): 0}
    assert setup.value("gateway_requests_total") == {("orders.read", "GET", "2xx", ""): 1}
    assert setup.value("gateway_request_duration_seconds") == {("orders.read",): 0.25}
    assert setup.value("gateway_upstream_duration_seconds") == {("orders.read", "orders"): 0.125}
    assert setup.value("gateway_overhead_seconds") == {("orders.read",): 0.125}
    (line,) = await setup.lines()
    assert exchange.trace is not None
    assert line["trace_id"] == exchange.trace.trace_id
    assert (line["duration_ms"], line["upstream_ms"], line["overhead_ms"]) == (250.0, 125.0, 125.0)


async def test_the_upstream_sees_the_trace() -> None:
    """The request's header carries the gateway's span when the chain goes on."""
    setup = Setup(None)
    exchange = setup.exchange()
    setup.policy.check(exchange)
    assert exchange.trace is not None
    sent = exchange.request.headers.get(b"traceparent")
    assert sent == f"00-{exchange.trace.trace_id}-{exchange.trace.span_id}-01".encode()


async def test_a_request_without_a_route_is_observed_too(tmp_path: Path) -> None:
    """404 and 405 are counted under the unmatched label and logged without a route."""
    setup = Setup(tmp_path / "a.log", UNMATCHED)
    exchange = setup.exchange()
    setup.policy.check(exchange)
    exchange.response_status = exchange.refuse(Rejection(ROUTE_NOT_FOUND)).status
    finish(exchange)
    labels = (UNMATCHED, "GET", "4xx", "route_not_found")
    assert setup.value("gateway_requests_total") == {labels: 1}
    (line,) = await setup.lines()
    assert line["code"] == "route_not_found"
    assert line["source"] == "client"
    assert "route" not in line


async def test_a_client_that_left_is_logged_as_499(tmp_path: Path) -> None:
    """Nothing was sent, so the status says that, in the log and in the class."""
    setup = Setup(tmp_path / "a.log")
    exchange = setup.exchange()
    setup.policy.check(exchange)
    exchange.fail(ClientError(CLIENT_DISCONNECTED))
    finish(exchange)
    labels = ("orders.read", "GET", "4xx", "client_disconnected")
    assert setup.value("gateway_requests_total") == {labels: 1}
    (line,) = await setup.lines()
    assert line["status"] == 499


async def test_a_websocket_is_one_exchange(tmp_path: Path) -> None:
    """It is in flight while it is open, and counted as 1xx without a latency."""
    setup = Setup(tmp_path / "a.log", "chat")
    exchange = setup.exchange()
    setup.policy.check(exchange)
    exchange.response_status = 101
    setup.clock.advance(3600)
    assert setup.value("gateway_requests_in_flight") == {("chat",): 1}
    finish(exchange)
    assert setup.value("gateway_requests_total") == {("chat", "GET", "1xx", ""): 1}
    (line,) = await setup.lines()
    assert line["duration_ms"] == 3_600_000.0


async def test_without_an_access_log_exchanges_are_still_counted() -> None:
    """`access_log: null` switches off the lines and nothing else."""
    setup = Setup(None)
    exchange = setup.exchange()
    setup.policy.check(exchange)
    exchange.response_status = 200
    finish(exchange)
    assert setup.value("gateway_requests_total") == {("orders.read", "GET", "2xx", ""): 1}
