"""The admin application's view of this process: the plane that serves, and the reloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.admin.control import (
    BreakerOrder,
    Check,
    ConfigInfo,
    DeliveryAnswer,
    DeliveryCall,
    Explanation,
    FlagOrder,
    FlagOutcome,
    Health,
    Purge,
    PurgeInfo,
    ReloadInfo,
    RouteInfo,
)
from gateway.config.loader import Configuration
from gateway.observability.snapshot import Snapshot
from gateway.server.plane import Plane
from gateway.server.reload import Reloader, issue_info


class ProcessControl:
    """`Control` for one process or for a supervising one: the plane hides the difference."""

    def __init__(self, plane: Plane, reloader: Reloader) -> None:
        self._plane = plane
        self._reloader = reloader

    @property
    def configuration(self) -> Configuration:
        """What is served now."""
        return self._reloader.configuration

    async def health(self) -> Health:
        checks = list(self._plane.checks())
        last = self._reloader.last
        if last is not None and not last.ok:
            # Not a reason to take traffic away: the old configuration serves as well as before.
            count = len(last.errors)
            checks.append(Check("configuration", True, f"last reload refused: {count} error(s)"))
        return Health(live=True, ready=self._plane.ready(), checks=checks)

    async def routes(self) -> Sequence[RouteInfo]:
        return await self._plane.routes()

    async def upstreams(self) -> Sequence[dict[str, Any]]:
        return await self._plane.upstreams()

    async def mirrors(self) -> Sequence[dict[str, Any]]:
        return await self._plane.mirrors()

    async def store(self) -> Sequence[dict[str, Any]]:
        return await self._plane.store()

    async def config(self) -> ConfigInfo:
        reloader = self._reloader
        configuration = reloader.configuration
        return ConfigInfo(
            generation=reloader.generation,
            fingerprint=configuration.fingerprint,
            loaded_at=reloader.loaded_at,
            files=[str(path) for path in configuration.files],
            last_reload=reloader.last,
            warnings=[issue_info(each) for each in configuration.warnings],
            workers=await self._plane.workers(),
        )

    async def reload(self) -> ReloadInfo:
        return await self._reloader.reload("admin")

    async def purge(self, what: Purge) -> PurgeInfo:
        return await self._plane.purge(what)

    async def order_breaker(self, order: BreakerOrder) -> bool:
        return await self._plane.order_breaker(order)

    async def flags(self) -> Sequence[dict[str, Any]]:
        return await self._plane.flags()

    async def order_flag(self, order: FlagOrder) -> FlagOutcome:
        return await self._plane.order_flag(order)

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer:
        return await self._plane.delivery(call)

    async def explain(self, method: str, url: str) -> Explanation:
        return await self._plane.explain(method, url)

    async def metrics_snapshot(self) -> Snapshot:
        return await self._plane.metrics_snapshot()
