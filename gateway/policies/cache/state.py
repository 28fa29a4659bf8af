"""What all cached routes of a process share, across reloads: memory, flights, counts."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.observability.families import CACHE_BYTES, CACHE_ENTRIES, CACHE_EVICTIONS
from gateway.observability.metrics import Metrics
from gateway.policies.cache.flight import Flights
from gateway.policies.cache.memory import MemoryTier

KEY = ("cache",)
"""The key of the one `CacheState` of a process among the shared objects."""


class CacheState:
    """The memory tier, and what is under way. `refreshing` counts fetches in the background."""

    def __init__(self, max_bytes: int, clock: Clock, metrics: Metrics) -> None:
        self.memory = MemoryTier(max_bytes)
        self.flights = Flights()
        self.clock = clock
        self.refreshing = 0
        self._metrics = metrics
        metrics.before_snapshot.append(self._publish)

    def _publish(self) -> None:
        metrics, memory = self._metrics, self.memory
        metrics.counts(CACHE_BYTES).set(value=memory.size)
        metrics.counts(CACHE_ENTRIES).set(value=len(memory))
        metrics.counts(CACHE_EVICTIONS).set(value=memory.evictions)

    async def aclose(self) -> None:
        """Let go of everything that is kept."""
        self.memory.clear()
        self._publish()
        before = self._metrics.before_snapshot
        self._metrics.before_snapshot = [each for each in before if each != self._publish]
