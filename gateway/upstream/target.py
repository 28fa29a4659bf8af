"""A target: one address of an upstream, with what is counted about it.

Only data lives here. Choosing among targets is the balancer's, connecting the connector's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.config.types import TargetAddress
from gateway.errors import ErrorCode, UpstreamError
from gateway.observability.metrics import TargetSeries
from gateway.upstream.outcome import word_for

if TYPE_CHECKING:
    from gateway.message import Exchange


class Witness(Protocol):
    """Who wants to know how a target's requests end."""

    def answered(self, status: int) -> None:
        """An answer with this status came whole."""
        ...

    def failed(self, word: str) -> None:
        """A request failed; `word` is of `outcome`, empty if the target is not to blame."""
        ...


class Target:
    """One host and port, or unix socket, of an upstream.

    `label` names it in metrics, logs and Proxy-Status. `authority` is what its Host field says.
    `server_name` is what TLS asks for and verifies, "" without TLS. `active` counts exchanges that
    were given to it and have not ended; the other counters only grow. `last_error` is the newest
    failure as text, `last_error_at` its wall-clock time. `watch` is told how requests end.
    """

    __slots__ = ("_shown", "_shown_failures", "active", "address", "authority", "connects",
                 "failures", "label", "last_error", "last_error_at", "priority", "requests",
                 "reuses", "server_name", "waits", "watch", "weight")  # fmt: skip

    def __init__(
        self, address: TargetAddress, weight: int = 1, server_name: str = "", priority: int = 0
    ) -> None:
        self.address = address
        self.weight = weight
        self.priority = priority
        host = f"[{address.host}]" if ":" in address.host else address.host
        if address.path:
            self.label = f"unix:{address.path}"
            self.authority = b"localhost"
        else:
            self.label = f"{host}:{address.port}"
            default = address.port == (443 if address.tls else 80)
            self.authority = (host if default else self.label).encode("ascii")
        self.server_name = (server_name or address.host) if address.tls else ""
        self.watch: Witness | None = None
        self.active = 0
        self.requests = 0
        self.connects = 0
        self.reuses = 0
        self.waits = 0
        self.failures: dict[str, int] = {}
        self.last_error = ""
        self.last_error_at = 0.0
        self._shown = (0, 0, 0)
        self._shown_failures: dict[str, int] = {}

    def ended(self, exchange: Exchange | None) -> None:
        """An exchange has ended well: its answer is whole."""
        self.active -= 1
        watch = self.watch
        if watch is not None and exchange is not None:
            watch.answered(exchange.upstream_status)

    def failed(self, kind: ErrorCode, detail: str, wall: float) -> None:
        """Count a failure; `wall` is Unix seconds."""
        self.failures[kind.code] = self.failures.get(kind.code, 0) + 1
        self.last_error = f"{kind.code}: {detail}" if detail else kind.code
        self.last_error_at = wall
        if self.watch is not None:
            self.watch.failed(word_for(kind.code))

    def late(self, exchange: Exchange, began: float, now: float) -> None:
        """An attempt that `began` here was given up; did the exchange's deadline pass?

        The target is to blame if it had at least half of the time: one that is slow with everybody
        must be noticed, one that was asked just before the end must not. As for circuit breakers.
        """
        watch = self.watch
        half = (now - exchange.started) / 2
        if watch is not None and exchange.timed_out and now - began >= half:
            watch.failed("timeout")

    def error(
        self,
        kind: ErrorCode,
        detail: str,
        make: type[UpstreamError] = UpstreamError,
        *,
        sent: bool = True,
    ) -> UpstreamError:
        """A failure at this target, as an exception of the class `make`."""
        return make(kind, f"{self.label}: {detail}", next_hop=self.label, sent=sent)

    def publish(self, series: TargetSeries, idle: int) -> None:
        """Add what happened since the last time to `series`.

        Differences, because after a reload the targets of the old and the new upstream may share
        one series.
        """
        shown = self._shown
        now = (self.active, idle, self.connects)
        series.active += now[0] - shown[0]
        series.idle += now[1] - shown[1]
        series.connects += now[2] - shown[2]
        self._shown = now
        for code, count in self.failures.items():
            before = self._shown_failures.get(code, 0)
            series.failures[code] = series.failures.get(code, 0) + count - before
            self._shown_failures[code] = count

    def __repr__(self) -> str:
        return f"<Target {self.label} {self.active} active>"
