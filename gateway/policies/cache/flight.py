"""Requests that wait for one another's answer, so that an upstream is asked once.

The first to miss leads; the others wait, for a bounded time, until its answer is stored (they look
again), is known not to be (they all go on alone), or never comes because the leader failed or left
(one of them leads in its place).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from enum import Enum
from typing import Final

from gateway.policies.cache.key import Slot, Uri

FlightKey = tuple[Uri, Slot, tuple[bytes | None, ...]]

_ALONE_S: Final = 10.0
_MAX_ALONE: Final = 10_000


class Landing(Enum):
    """How waiting ended."""

    LOOK = "look again"
    """Stored, or the leader is gone: whoever waited looks again, and may lead then."""
    ALONE = "go alone"
    """Not stored."""
    LATE = "took too long"
    """Whoever waited goes on, and need not be the last to."""


class Flight:
    """One answer under way, and who waits for it."""

    __slots__ = ("_key", "_open", "_table", "_waiting")

    def __init__(self, key: FlightKey, table: dict[FlightKey, Flight]) -> None:
        self._key = key
        self._table = table
        self._open = True
        self._waiting: list[asyncio.Future[Landing]] = []
        table[key] = self

    def land(self, landing: Landing) -> None:
        """Wake everybody. Safe to call twice; the first call counts."""
        if not self._open:
            return
        self._open = False
        if self._table.get(self._key) is self:
            del self._table[self._key]
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(landing)

    async def wait(self, seconds: float) -> Landing:
        """Wait for the landing, at most so long; who gives up no longer counts on it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Landing] = loop.create_future()
        self._waiting.append(future)
        timer = loop.call_later(seconds, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()
            if self._open:
                self._waiting.remove(future)


def _give_up(future: asyncio.Future[Landing]) -> None:
    if not future.done():
        future.set_result(Landing.LATE)


class Flights:
    """All answers under way, by what they will be stored under.

    It remembers for a while what could not be stored, because waiting for that is of no use.
    """

    def __init__(self) -> None:
        self._flights: dict[FlightKey, Flight] = {}
        self._alone: OrderedDict[FlightKey, float] = OrderedDict()

    def get(self, key: FlightKey) -> Flight | None:
        """The flight that a request can wait for."""
        return self._flights.get(key)

    def lead(self, key: FlightKey) -> Flight:
        """Begin a flight. Whoever waits for an older one goes on doing so."""
        return Flight(key, self._flights)

    def goes_alone(self, key: FlightKey, now: float) -> bool:
        """Whether the last answer of that key could not be stored, a moment ago."""
        until = self._alone.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self._alone[key]
        return False

    def was_uncacheable(self, key: FlightKey, now: float) -> None:
        """Note that an answer could not be stored. `now` is monotonic seconds."""
        self._alone[key] = now + _ALONE_S
        self._alone.move_to_end(key)
        if len(self._alone) > _MAX_ALONE:
            self._alone.popitem(last=False)

    def was_stored(self, key: FlightKey) -> None:
        """Note that an answer could be stored."""
        self._alone.pop(key, None)

    def __len__(self) -> int:
        return len(self._flights)
