"""What `observe` does for each exchange: its trace, its counts, its line in the log.

Apart from the policy, so that it can be compiled.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import CLIENT_DISCONNECTED
from gateway.message import Exchange
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import RouteSeries
from gateway.observability.trace import IdSource, begin, join


class Observer:
    """Observes the exchanges of one route. `now` is the clock's monotonic reading."""

    __slots__ = ("_ids", "_log", "_now", "_series")

    def __init__(
        self,
        series: RouteSeries,
        log: AccessLog | None,
        ids: IdSource,
        now: Callable[[], float],
    ) -> None:
        self._series = series
        self._log = log
        self._ids = ids
        self._now = now

    def begin(self, exchange: Exchange) -> None:
        """Write the trace into the request's header, and be there when the exchange ends."""
        headers = exchange.request.headers
        if b"traceparent" in headers.index or b"tracestate" in headers.index:
            exchange.trace = join(headers, self._ids)
        else:
            exchange.trace = begin(headers, self._ids)
        self._series.in_flight += 1
        exchange.on_finish.append(self.finish)

    def finish(self, exchange: Exchange) -> None:
        """Count and log the exchange, which has ended."""
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
