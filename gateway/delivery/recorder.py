"""Writes the audit's entries of what is no step of an event: calls of synchronous routes, orders.

They are collected and written a few at a time, behind the calls that they tell of. While the store
is away they wait, up to a bound; what does not fit is dropped, counted and said in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from gateway.delivery.audit_entry import Entry
from gateway.delivery.journal import Journal
from gateway.delivery.queue import Queue
from gateway.errors import StoreError
from gateway.observability.delivery import AUDIT_DROPPED
from gateway.observability.metrics import Metrics

logger = logging.getLogger("gateway.audit")

_WAITING: Final = 10_000
_AT_ONCE: Final = 100
_RETRY_S: Final = 1.0
_CLOSE_S: Final = 2.0


class Recorder:
    """See the module. One for a process and store."""

    def __init__(self, queue: Queue, journal: Journal, metrics: Metrics) -> None:
        self._queue = queue
        self._journal = journal
        self._dropped = metrics.counts(AUDIT_DROPPED)
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._some = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._warned = False

    def record(self, entry: Entry) -> None:
        """Have it written soon."""
        data = self._journal.entry(entry)
        if not data:
            return
        if len(self._waiting) >= _WAITING:
            self._dropped.add()
            if not self._warned:
                self._warned = True
                logger.error("the audit loses entries: the store has been away for too long")
            return
        self._waiting.append((data, entry.correlation_id))
        self._some.set()

    async def start(self) -> None:
        """Begin to write. Idempotent."""
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_on())

    async def _write_on(self) -> None:
        while True:
            await self._some.wait()
            try:
                await self._write()
            except StoreError:
                await asyncio.sleep(_RETRY_S)
            except Exception:
                logger.exception("the audit could not be written")
                await asyncio.sleep(_RETRY_S)

    async def _write(self) -> None:
        """Write all that waits. An entry is let go of once the store has it: after a lost reply it
        may be there twice, which is better than not at all.
        """
        waiting = self._waiting
        while waiting:
            batch = [waiting[at] for at in range(min(_AT_ONCE, len(waiting)))]
            await self._queue.note(batch)
            for _ in batch:
                waiting.popleft()
        self._some.clear()
        self._warned = False

    async def aclose(self) -> None:
        """Write what waits, if the store is there, and end."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.cancel()
        await asyncio.wait({writing})
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._write()
        except (StoreError, TimeoutError):
            if self._waiting:
                logger.error("the audit loses %d entries: the store is away", len(self._waiting))
