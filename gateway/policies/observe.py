"""The `observe` policy: trace context, metrics and access log of every exchange.

On every route, unmatched requests included, right behind correlation. It never refuses. What is
counted is declared in `observability/metrics.py`; what a log line says in
`observability/access_log.py`; nothing is decided here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.config.base import PolicyConfig
from gateway.errors import CLIENT_DISCONNECTED
from gateway.message import Exchange
from gateway.observability.trace import IdSource, begin, join
from gateway.policies.base import BuildContext, Guard


class ObserveConfig(PolicyConfig):
    """Nothing can be set: every exchange is observed, and `telemetry` says where that goes."""


class ObservePolicy(Guard):
    """Continues or begins the trace, then counts and logs the exchange when it has ended."""

    name: ClassVar[str] = "observe"
    Config: ClassVar[type[ObserveConfig]] = ObserveConfig
    default: ClassVar[Any] = {}

    def __init__(self, context: BuildContext) -> None:
        self._series = context.metrics.route(context.route)
        self._log = context.access_log
        self._now = context.clock.monotonic
        self._ids = context.shared(("trace ids",), lambda: IdSource(context.random))

    @classmethod
    def build(cls, config: ObserveConfig, context: BuildContext) -> ObservePolicy:
        """Bind the route's series."""
        del config  # it has no fields
        return cls(context)

    def check(self, exchange: Exchange) -> None:
        """Write the trace into the request's header, and be there when the exchange ends."""
        headers = exchange.request.headers
        if b"traceparent" in headers.index or b"tracestate" in headers.index:
            exchange.trace = join(headers, self._ids)
        else:
            exchange.trace = begin(headers, self._ids)
        self._series.in_flight += 1
        exchange.on_finish.append(self._finish)

    def _finish(self, exchange: Exchange) -> None:
        seconds = self._now() - exchange.started
        error = exchange.error
        status = exchange.response_status
        if not status and error is CLIENT_DISCONNECTED:
            # Nothing was sent; 499 is what log readers know for "the client left before".
            exchange.response_status = status = error.status
        self._series.finish(
            exchange.request.method,
            status,
            error.code if error is not None else "",
            seconds,
            exchange.upstream,
            exchange.upstream_seconds,
        )
        if self._log is not None:
            self._log.write(exchange, seconds)
