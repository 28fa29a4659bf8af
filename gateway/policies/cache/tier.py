"""The shared tier: stored answers in the store, for all gateways that use it.

A request looks into memory first, and into the store for what is not there or not fresh. What came
from the store is kept in memory too and trusted for `TRUST_S`; then one small question tells
whether it still holds. So a hit costs no call, and a purge or a change is seen everywhere within
that time.

What tells that an answer no longer holds are two versions, noted when it was fetched:
- `u:<uri>` changes with each successful unsafe request for the URI;
- the purge log is a stream of what was purged, which every gateway reads on. An answer is dead if a
  purge behind its position in the log means it.

A store that is down, slow or refuses is no failure: nothing is found there and nothing put, and
what is in memory stays good.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Coroutine
from hashlib import blake2b
from typing import Any, Final

import msgspec

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.policies.cache.entry import Entry, Selector
from gateway.policies.cache.hits import TRUST_S
from gateway.policies.cache.key import Slot, Uri, selection
from gateway.policies.cache.lookup import Lookup
from gateway.policies.cache.purges import PurgeLog
from gateway.policies.cache.record import Marker, Record, pack, unpack
from gateway.policies.cache.state import CacheState
from gateway.store.base import Store

logger = logging.getLogger("gateway.cache")

_DAY_MS: Final = 86_400_000
# A stale answer with a validator is worth keeping for a while: asking is cheaper than fetching.
_STALE_MS: Final = 600_000
_MAX_PUTS: Final = 64
_MAX_UNSURE: Final = 10_000


class SharedTier:
    """The stored answers of all gateways on one store. Calls end within the store's time-out."""

    def __init__(self, store: Store, state: CacheState, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._memory = state.memory
        self._now = clock.monotonic
        self._wall = clock.wall
        self._prefix = store.key_prefix + b":cache:"
        self._log = PurgeLog(store, self._prefix + b"purges", state.memory, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        # Changes that the store could not be told: what it has of these is not to be trusted.
        self._unsure: OrderedDict[Uri, None] = OrderedDict()

    async def start(self) -> None:
        """Hear of purges from now on."""
        self._state.tiers.add(self)

    async def look(self, lookup: Lookup, entry: Entry | None) -> Entry | None:
        """What is stored for a request; `entry` is what memory has, fresh or not."""
        now = self._now()
        if entry is not None and now - entry.asked < TRUST_S and now < entry.fresh_until:
            lookup.version = entry.version
            return entry
        try:
            return await self._look(lookup, entry, now)
        except StoreError as error:
            logger.debug("the store was not asked: %s", error)
            return entry

    async def _look(self, lookup: Lookup, entry: Entry | None, now: float) -> Entry | None:
        uri = lookup.uri
        if uri in self._unsure:
            await self.invalidate(uri)
            if uri in self._unsure:
                return entry
        if entry is None or now >= entry.fresh_until:
            return await self._read(lookup, entry)
        # Whoever comes while this is asked need not ask as well.
        entry.asked = now
        version = await self._version(uri)
        lookup.version = version
        if version[0] == entry.version[0] and entry in self._memory:
            return entry
        self._memory.remove(entry)
        return await self._read(lookup, None)

    async def _version(self, uri: Uri) -> tuple[bytes, bytes]:
        """What an answer of this URI that is fetched now will be compared with."""
        await self._log.read_on()
        changed = await self._store.call("GET", self._key(b"u:", uri))
        return changed or b"", self._log.position

    async def _read(self, lookup: Lookup, known: Entry | None) -> Entry | None:
        """Read through: from the store into memory. `known` is what memory has, not fresh."""
        slot = lookup.ask.slot
        # Before the fetch is noted: what the log says is compared with the answer's position.
        await self._log.read_on()
        fetch = self._memory.begin(lookup.uri, slot)
        try:
            key = self._place(lookup.uri, slot, ())
            lookup.version, raw = await asyncio.gather(
                self._version(lookup.uri), self._store.call("GET", key)
            )
            found = unpack(raw)
            if isinstance(found, Marker):
                names = tuple(found.names)
                values = selection(names, lookup.seen)
                key = self._place(lookup.uri, slot, (names, values))
                found = unpack(await self._store.call("GET", key))
            if not isinstance(found, Record) or lookup.version is None:
                return self._still(known)
            entry = found.entry((lookup.uri, slot), self._wall(), self._now())
            if not self._holds(entry, lookup.version) or not fetch.may_store(entry):
                return self._still(known)
            if known is not None and known.born >= entry.born and known in self._memory:
                return known
            self._memory.put(entry)
            return entry
        finally:
            self._memory.end(fetch)

    def _still(self, known: Entry | None) -> Entry | None:
        """What memory had, unless it was purged meanwhile."""
        return known if known is not None and known in self._memory else None

    def _holds(self, entry: Entry, now: tuple[bytes, bytes]) -> bool:
        changed, position = entry.version
        return changed == now[0] and not self._log.kills(entry, position)

    def put(self, entry: Entry) -> None:
        """Store an answer for the others, in the background; not at all if that is slow."""
        if len(self._tasks) < _MAX_PUTS:
            self._spawn(self._put(entry))

    async def _put(self, entry: Entry) -> None:
        lasts = max(0, int(1000 * (entry.lasts_until - self._now())))
        milliseconds = min(lasts + _STALE_MS, _DAY_MS)
        bare = self._place(entry.uri, entry.slot, ())
        record = pack(Record.of(entry, self._wall(), self._now()))
        try:
            if not entry.names:
                await self._store.call("SET", bare, record, "PX", milliseconds)
                return
            key = self._place(entry.uri, entry.slot, (entry.names, entry.values))
            await self._store.call("SET", key, record, "PX", milliseconds)
            marker = pack(Marker(list(entry.names)))
            await self._store.call("SET", bare, marker, "PX", milliseconds)
        except StoreError as error:
            logger.debug("an answer was not put into the store: %s", error)

    async def invalidate(self, uri: Uri) -> None:
        """Have every gateway forget what is stored of a URI."""
        version = os.urandom(12).hex()
        try:
            await self._store.call("SET", self._key(b"u:", uri), version, "PX", 2 * _DAY_MS)
        except StoreError as error:
            logger.warning("a change could not be told to the other gateways: %s", error)
            self._unsure[uri] = None
            if len(self._unsure) > _MAX_UNSURE:
                self._unsure.popitem(last=False)
        else:
            self._unsure.pop(uri, None)

    async def purge(self, selector: Selector) -> None:
        """Have every gateway forget what a selector takes. Raises StoreError."""
        await self._log.append(selector)

    def _key(self, kind: bytes, *parts: object) -> bytes:
        digest = blake2b(msgspec.msgpack.encode(parts), digest_size=20)
        return self._prefix + kind + digest.hexdigest().encode("ascii")

    def _place(self, uri: Uri, slot: Slot, variant: tuple[Any, ...]) -> bytes:
        return self._key(b"e:", uri, slot, variant)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Give up what is being written."""
        self._state.tiers.discard(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
