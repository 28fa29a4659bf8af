"""Looks through the dead letters of the store, a stretch at a time, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import decode_head
from gateway.delivery.letters import (
    Cursor,
    Letter,
    Wanted,
    moment,
    read_cursor,
    read_letter,
    sieve,
    write_cursor,
)
from gateway.delivery.overview import members
from gateway.delivery.queue import Queue
from gateway.delivery.sifting import EventSieve
from gateway.delivery.trail import of_transaction

# Members of one call to the store: the loop does nothing else while they are read.
_AT_ONCE: Final = 10_000
_SCAN: Final = 100_000
"""Members that one page looks at."""
_BUDGET_S: Final = 1.0
"""Seconds after which a page ends, found or not."""
_EVENTS_AT_ONCE: Final = 100


class Stretch:
    """One page of a search: iterate `letters()`, then look at `cursor`, empty at the end.

    `until` (ms) is the moment the search is about. Raises Unusable for what can't be meant.
    """

    def __init__(self, dispatcher: Dispatcher, wanted: Wanted, cursor: str, now: float) -> None:
        self._queue = dispatcher.queue
        self._monotonic = dispatcher.clock.monotonic
        self._wanted = wanted
        self._takes = sieve(wanted)
        self._events = EventSieve(dispatcher.queue, wanted.where, wanted.correlation_id)
        self._from = read_cursor(cursor) if cursor else None
        self.since = round(moment(wanted.since, now) * 1000) if wanted.since else 0
        until = round((moment(wanted.until, now) if wanted.until else now) * 1000)
        # A letter of this very millisecond is meant as well.
        self.until = self._from.until if self._from else until + (0 if wanted.until else 1)
        self.cursor = ""
        self.scanned = 0
        self.failed = 0
        self._stop_at = self._monotonic() + _BUDGET_S

    async def letters(self) -> AsyncIterator[Letter]:
        """Those that are meant. Whoever stops early calls `stop_behind`. Raises StoreError."""
        named = await self._named()
        if named is not None:
            for letter in named:
                yield letter
            return
        for route in await self._routes():
            async for letter in self._of_route(route):
                yield letter
            if self.cursor:
                return

    def stop_behind(self, letter: Letter) -> None:
        """The next page begins behind this one."""
        self.cursor = write_cursor(Cursor(letter.route, letter.at, letter.member, self.until))

    async def _named(self) -> list[Letter] | None:
        """The letters of the event or transaction that was named; None if none was.

        A transaction whose audit is gone has to be looked for in the events.
        """
        wanted = self._wanted
        ids = [wanted.event] if wanted.event else []
        if wanted.correlation_id and not wanted.event:
            trail = await of_transaction(self._queue, wanted.correlation_id)
            ids = sorted({entry.event for entry in trail if entry.event})
        if not ids:
            return None
        found = [each for event in ids for each in await letters_of(self._queue, event)]
        found = [
            each
            for each in found
            if wanted.route in ("", each.route)
            and self.since <= each.at < self.until
            and (self._takes is None or self._takes([each.member]))
            and (self._from is None or _place(each) > (self._from.at, self._from.member))
        ]
        return await self._sifted(sorted(found, key=_place))

    async def _routes(self) -> list[str]:
        wanted = self._wanted
        names = [wanted.route] if wanted.route else sorted(await members(self._queue, "routes"))
        return [name for name in names if self._from is None or name >= self._from.route]

    async def _of_route(self, route: str) -> AsyncIterator[Letter]:
        at, member = self.since, b""
        if self._from is not None and self._from.route == route:
            at, member = self._from.at, self._from.member
        async for page in _pages(self._queue, route, at, member, self.until):
            names, scores = page
            self.scanned += len(names)
            places = range(len(names)) if self._takes is None else self._takes(names)
            found = [read_letter(route, names[place], int(scores[place])) for place in places]
            meant = [each for each in found if each is not None]
            for start in range(0, len(meant), _EVENTS_AT_ONCE):
                part = meant[start : start + _EVENTS_AT_ONCE]
                for letter in await self._sifted(part):
                    yield letter
                if self._events.needed and self._spent():
                    self.stop_behind(part[-1])
                    return
            if self._spent():
                last = Cursor(route, int(scores[-1]), names[-1], self.until)
                self.cursor = write_cursor(last)
                return
            await asyncio.sleep(0)

    def _spent(self) -> bool:
        return self.scanned >= _SCAN or self._monotonic() >= self._stop_at

    async def _sifted(self, letters: list[Letter]) -> list[Letter]:
        if not self._events.needed:
            return letters
        kept = await self._events.keep(letters)
        self.failed = self._events.failed
        return kept


async def _pages(
    queue: Queue, route: str, at: int, member: bytes, until: int
) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
    """All members behind (at, member), and their scores, a page at a time."""
    key, count = queue.key("dead", route), _AT_ONCE
    while True:
        reply = await queue.store.call(
            "ZRANGEBYSCORE", key, at, f"({until}", "WITHSCORES", "LIMIT", 0, count
        )
        names, scores = reply[::2], reply[1::2]
        # Those of the same millisecond that were looked at already come first.
        skipped = 0
        while skipped < len(names) and names[skipped] <= member and int(scores[skipped]) == at:
            skipped += 1
        if skipped < len(names):
            member, at = names[-1], int(scores[-1])
            yield names[skipped:], scores[skipped:]
        elif len(names) == count:
            # More died in one millisecond than one call gives.
            count *= 2
            continue
        if len(names) < count:
            return


def _place(letter: Letter) -> tuple[int, bytes]:
    return letter.at, letter.member


async def letters_of(queue: Queue, event: str) -> list[Letter]:
    """The letters of one event. Raises StoreError."""
    fields = await queue.fields(event)
    try:
        route = decode_head(fields[b"head"]).route
    except (KeyError, msgspec.MsgspecError):
        return []
    found = []
    for member in [value for name, value in fields.items() if name.startswith(b"x:")]:
        score = await queue.store.call("ZSCORE", queue.key("dead", route), member)
        letter = read_letter(route, member, int(float(score))) if score else None
        if letter is not None:
            found.append(letter)
    return found
