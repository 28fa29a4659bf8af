"""What serves the traffic, as the process around it sees it: here, or in worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from gateway.admin.control import (
    BreakerOrder,
    Check,
    DeliveryAnswer,
    DeliveryCall,
    Explanation,
    FlagOrder,
    FlagOutcome,
    Purge,
    PurgeInfo,
    RouteInfo,
    WorkerInfo,
)
from gateway.observability.snapshot import Snapshot
from gateway.runtime import Loaded


class Plane(Protocol):
    """Serves one configuration at a time. The first `apply` starts it."""

    async def apply(self, loaded: Loaded) -> int:
        """Serve `loaded` from now on, whole or not at all, and return its generation.

        Raises ConfigErrors or ConfigError if it can't be built.
        """
        ...

    def addresses(self) -> Sequence[str]:
        """The URLs that clients can reach."""
        ...

    def ready(self) -> bool:
        """Whether requests are served; False from `withdraw` on."""
        ...

    def checks(self) -> Sequence[Check]:
        """What readiness is made of, for people."""
        ...

    def withdraw(self) -> None:
        """A drain begins: no longer ready, though everything is still served."""
        ...

    def reopen_logs(self) -> None:
        """Open log files anew, after they were rotated. Never raises for what is on disk."""
        ...

    async def drain(self, timeout: float, force: asyncio.Event) -> None:
        """Stop accepting; finish what is in flight, within `timeout` seconds or until `force`."""
        ...

    async def aclose(self) -> None:
        """Let go of everything. Safe after a failed start, and to call twice."""
        ...

    async def routes(self) -> Sequence[RouteInfo]: ...

    async def upstreams(self) -> Sequence[dict[str, Any]]: ...

    async def mirrors(self) -> Sequence[dict[str, Any]]: ...

    async def store(self) -> Sequence[dict[str, Any]]: ...

    async def order_breaker(self, order: BreakerOrder) -> bool:
        """Carry it out, now and in processes that start later; False if there is no such one."""
        ...

    async def flags(self) -> Sequence[dict[str, Any]]: ...

    async def order_flag(self, order: FlagOrder, *, tell: bool = True) -> FlagOutcome:
        """Carry it out; `tell` also has the store's other gateways follow."""
        ...

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer: ...

    async def explain(self, method: str, url: str) -> Explanation: ...

    async def purge(self, what: Purge, *, tell: bool = True) -> PurgeInfo:
        """Forget cached answers; `tell` also has the store's other gateways forget them."""
        ...

    async def metrics_snapshot(self) -> Snapshot: ...

    async def workers(self) -> Sequence[WorkerInfo]: ...
