"""The purge log: a stream in the store that tells every gateway what was purged.

Each gateway reads on from where it was, at most once a second and only while it is asked for
something. No subscription is needed, and a gateway that was cut off catches up by itself.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from gateway.clock import Clock
from gateway.policies.cache.entry import Entry, Selector
from gateway.policies.cache.memory import MemoryTier
from gateway.store.base import Store

_LENGTH: Final = 10_000
_PAGE: Final = 1000
_EVERY_S: Final = 1.0
# Longer than anything is stored.
_KEEP_S: Final = 3 * 86_400

Position = tuple[int, int]


class PurgeLog:
    """What was purged, as far as this process has read. `key` is the stream's."""

    def __init__(self, store: Store, key: bytes, memory: MemoryTier, clock: Clock) -> None:
        self._store = store
        self._key = key
        self._memory = memory
        self._now = clock.monotonic
        self._read_at = -_EVERY_S
        self._positions: list[Position] = []
        self._selectors: list[Selector] = []
        self.position = b"0-0"
        """Where this process is; everything up to here was applied to its memory."""

    async def read_on(self) -> None:
        """Apply what is new, if it is time to look. Raises StoreError."""
        now = self._now()
        if now - self._read_at < _EVERY_S:
            return
        before, self._read_at = self._read_at, now
        try:
            while await self._read_page() == _PAGE:
                pass
        except BaseException:
            self._read_at = before
            raise

    async def _read_page(self) -> int:
        reply: list[Any] = await self._store.call(
            "XRANGE", self._key, b"(" + self.position, "+", "COUNT", _PAGE
        )
        for position, fields in reply:
            selector = _selector(fields)
            self.position = position
            self._positions.append(_parse(position))
            self._selectors.append(selector)
            self._memory.purge(selector)
        del self._positions[:-_LENGTH]
        del self._selectors[:-_LENGTH]
        return len(reply)

    def kills(self, entry: Entry, position: bytes) -> bool:
        """Whether a purge behind this position meant the entry, or may have, but is forgotten."""
        at = _parse(position)
        if len(self._positions) == _LENGTH and at < self._positions[0]:
            return True
        behind = self._selectors[bisect_right(self._positions, at) :]
        route = entry.slot[0]
        return any(selector.takes(entry.uri, route, entry.tags) for selector in behind)

    async def append(self, selector: Selector) -> None:
        """Tell everybody. Raises StoreError."""
        fields = ("route", selector.route, "prefix", selector.prefix, "tag", selector.tag)
        everything = "all", "1" if selector.all else ""
        await self._store.call("XADD", self._key, "MAXLEN", "~", _LENGTH, "*", *fields, *everything)
        await self._store.call("EXPIRE", self._key, _KEEP_S)


def _selector(fields: list[bytes]) -> Selector:
    texts = [each.decode("utf-8", "surrogateescape") for each in fields]
    given = dict(zip(texts[::2], texts[1::2], strict=False))
    return Selector(
        route=given.get("route", ""),
        prefix=given.get("prefix", ""),
        tag=given.get("tag", ""),
        all=bool(given.get("all")),
    )


def _parse(position: bytes) -> Position:
    milliseconds, _, number = position.partition(b"-")
    return int(milliseconds or b"0"), int(number or b"0")
