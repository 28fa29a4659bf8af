"""What all cached routes of a process share, across reloads: memory, flights, counts."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.observability.families import CACHE_BYTES, CACHE_ENTRIES, CACHE_EVICTIONS
from gateway.observability.metrics import Metrics
from gateway.policies.cache.entry import Selector
from gateway.policies.cache.flight import Flights
from gateway.policies.cache.memory import MemoryTier

logger = logging.getLogger("gateway.cache")


class Tier(Protocol):
    """A shared tier, as far as a purge goes."""

    async def purge(self, selector: Selector) -> None:
        """Have every gateway forget what a selector takes. Raises StoreError."""
        ...


class CacheState:
    """The memory tier, and what is under way. `refreshing` counts fetches in the background.

    `tiers` are the shared tiers that routes use.
    """

    def __init__(self, max_bytes: int, clock: Clock, metrics: Metrics) -> None:
        self.memory = MemoryTier(max_bytes)
        self.flights = Flights()
        self.clock = clock
        self.refreshing = 0
        self.tiers: set[Tier] = set()
        self._metrics = metrics
        metrics.before_snapshot.append(self._publish)

    def _publish(self) -> None:
        metrics, memory = self._metrics, self.memory
        metrics.counts(CACHE_BYTES).set(value=memory.size)
        metrics.counts(CACHE_ENTRIES).set(value=len(memory))
        metrics.counts(CACHE_EVICTIONS).set(value=memory.evictions)

    async def tell(self, selector: Selector) -> str:
        """Have the other gateways forget what a selector takes; how that went, in one word."""
        if not self.tiers:
            return "none"
        try:
            for tier in list(self.tiers):
                await tier.purge(selector)
        except StoreError as error:
            logger.warning("a purge could not be told to the other gateways: %s", error)
            return "failed"
        return "told"

    async def aclose(self) -> None:
        """Let go of everything that is kept."""
        self.memory.clear()
        self._publish()
        before = self._metrics.before_snapshot
        self._metrics.before_snapshot = [each for each in before if each != self._publish]
