"""Waiting for an event's outcome, wherever it is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.status import Stored, read
from gateway.errors import StoreError

# What another process settles is seen after this long; what this one does, at once.
_LOOK_S: Final = 0.25


class Waiting:
    """`now` is the clock's monotonic reading."""

    def __init__(self, dispatcher: Dispatcher, now: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._now = now

    async def until_settled(self, event_id: str, seconds: float) -> Stored | None:
        """The event once all of its targets are settled, or as it is after `seconds`; None if that
        can't be told.
        """
        until = self._now() + seconds
        stored = None
        while True:
            settled = self._dispatcher.watch(event_id)
            try:
                stored = await self._look(event_id) or stored
                left = until - self._now()
                if left <= 0 or (stored is not None and stored.settled):
                    return stored
                await asyncio.wait({settled}, timeout=min(_LOOK_S, left))
            finally:
                settled.cancel()

    async def _look(self, event_id: str) -> Stored | None:
        try:
            return read(event_id, await self._dispatcher.queue.fields(event_id))
        except (StoreError, msgspec.MsgspecError):
            # The event is kept; only its outcome can't be told.
            return None
