"""What the store knows of schedules: which tick was the newest, and what it became.

One hash, `schedules`, below the keys of the queues. A schedule's key there is a digest of what its
ticks are made of, and its name, so that one which is changed begins anew:

    l:<key>    the newest tick that is done (ms); a new schedule begins at the moment it is seen
    f:<key>    the newest tick that was fired: "tick fired-at event-id" (ms, ms)
    r:<key>    its route
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.delivery.queue import Queue, digest
from gateway.store.base import Part
from gateway.store.script import Script

_LOOK: Final = Script.load("delivery_schedules")
_TICK: Final = Script.load("delivery_tick")
_KEY: Final = "schedules"


@dataclass(frozen=True, slots=True)
class Fired:
    """A tick that was fired: both times are Unix seconds."""

    tick: float
    at: float
    event_id: str


class Book:
    """See the module. Methods raise StoreError."""

    def __init__(self, queue: Queue) -> None:
        self._store = queue.store
        self._keys: tuple[Part, ...] = (queue.base,)
        self._key = queue.key(_KEY)

    async def look(self, schedules: Sequence[tuple[str, str]]) -> tuple[float, list[float]]:
        """The store's time, and the newest tick that is done of each (key, route); Unix seconds."""
        parts = tuple(part for pair in schedules for part in pair)
        now, *lasts = await self._store.run(_LOOK, self._keys, parts)
        return int(now) / 1000, [int(last) / 1000 for last in lasts]

    async def done(self, key: str, tick: float, event_id: str = "") -> bool:
        """A tick is done; False if a newer one already was."""
        args = (key, round(tick * 1000), event_id)
        return bool(await self._store.run(_TICK, self._keys, args))

    async def fired(self, keys: Sequence[str]) -> list[Fired | None]:
        """The newest tick of each that was fired."""
        if not keys:
            return []
        found = await self._store.call("HMGET", self._key, *(f"f:{key}" for key in keys))
        return [None if each is None else _fired(each) for each in found]

    async def forget(self, keys: Collection[str], routes: Collection[str]) -> int:
        """Drop what is known of schedules that are not there any more; gives how many those are.

        `keys` are those that are there, on `routes`. Schedules of other routes belong to others.
        """
        reply: list[bytes] = await self._store.call("HGETALL", self._key)
        given = {name.decode(): value.decode() for name, value in _pairs(reply)}
        names = {name_of(key) for key in keys}
        known = {name[2:]: route for name, route in given.items() if name.startswith("r:")}
        gone = [
            key
            for key, route in known.items()
            if key not in keys and (name_of(key) in names or route in routes)
        ]
        if gone:
            fields = [f"{letter}:{key}" for key in gone for letter in "lfr"]
            await self._store.call("HDEL", self._key, *fields)
        return len(gone)


def make_key(name: str, *ticks: str) -> str:
    """The key of a schedule: `ticks` is what its ticks are made of."""
    return f"{digest(*ticks)} {name}"


def name_of(key: str) -> str:
    """The name of the schedule that has this key."""
    return key.partition(" ")[2]


def _pairs(reply: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(reply[::2], reply[1::2], strict=True))


def _fired(value: bytes) -> Fired:
    tick, at, event_id = value.decode().split(" ")
    return Fired(int(tick) / 1000, int(at) / 1000, event_id)
