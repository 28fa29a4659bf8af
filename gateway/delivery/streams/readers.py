"""All streams that a process reads."""

from __future__ import annotations

import secrets
from random import Random

from gateway.clock import Clock
from gateway.delivery.queue import Queue
from gateway.delivery.sources import StreamInfo
from gateway.delivery.streams.reader import Reader, StreamPlan, Tools
from gateway.observability.metrics import Metrics


class Readers:
    """One reader for each stream, with the newest of the plans that are offered for it."""

    def __init__(self, queue: Queue, clock: Clock, random: Random, metrics: Metrics) -> None:
        # Another one for each start: what a process held before it died is not this one's.
        self._tools = Tools(queue, clock, random, metrics, secrets.token_hex(6))
        self._readers: dict[str, Reader] = {}

    def offer(self, plan: StreamPlan) -> None:
        """Read as this plan says, from now on. Another one may still be in use beside it."""
        reader = self._readers.get(plan.name)
        if reader is None:
            reader = self._readers[plan.name] = Reader(plan.name, self._tools)
        reader.plans.append(plan)
        reader.start()

    async def withdraw(self, plan: StreamPlan) -> None:
        """Begin nothing with this plan any more; what it was busy with is read again."""
        reader = self._readers.get(plan.name)
        if reader is None or plan not in reader.plans:
            return
        if len(reader.plans) > 1:
            reader.plans.remove(plan)
            return
        del self._readers[plan.name]
        await reader.stop()
        reader.plans.clear()

    async def listing(self) -> list[StreamInfo]:
        """How each stream is."""
        return [await reader.describe() for reader in list(self._readers.values())]

    async def aclose(self) -> None:
        """Stop them all."""
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            await reader.stop()
