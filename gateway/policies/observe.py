"""The `observe` policy: trace context, metrics and access log of every exchange.

On every route, unmatched requests included, right behind correlation. It never refuses. What is
counted is declared in `observability/metrics.py`; what a log line says in
`observability/access_log.py`; nothing is decided here.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.config.base import PolicyConfig
from gateway.observability.observer import Observer
from gateway.observability.trace import IdSource
from gateway.policies.base import BuildContext, Guard


class ObserveConfig(PolicyConfig):
    """Nothing can be set: every exchange is observed, and `telemetry` says where that goes."""


class ObservePolicy(Guard):
    """Continues or begins the trace, then counts and logs the exchange when it has ended."""

    name: ClassVar[str] = "observe"
    Config: ClassVar[type[ObserveConfig]] = ObserveConfig

    def __init__(self, context: BuildContext) -> None:
        ids: IdSource = context.shared(("trace ids",), lambda: IdSource(context.random))
        series = context.metrics.route(context.route)
        observer = Observer(series, context.access_log, ids, context.clock.monotonic)
        # No method of this class, so that the chain calls what is compiled and nothing between. The
        # observer is there by itself when the exchange ends.
        self.check = observer.begin  # type: ignore[method-assign]

    @classmethod
    def build(cls, config: ObserveConfig, context: BuildContext) -> ObservePolicy:
        """Bind the route's series."""
        del config  # it has no fields
        return cls(context)
