"""A cluster: for each node a shared connection, and the map of which node has which slot.

A command goes to the node of its first key's slot; all keys of one command or script share a hash
tag, so that one node has them all. MOVED and ASK are followed, because a node that sends them has
not carried the command out; nothing else is sent twice. The map is fetched when a node says that it
is out of date, and when a node fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic
from typing import Any, Final

from redis.crc import key_slot

from gateway.errors import StoreError
from gateway.store.base import Channel, Part, ReplyError, Store, StoreStatus, failure
from gateway.store.channel import LinkChannel
from gateway.store.reach import CONNECT_S, Place
from gateway.store.script import Script
from gateway.store.shared import SharedStore, StoreOptions

logger = logging.getLogger("gateway.store")

_REDIRECTS: Final = 3
# A map is not fetched more often than this because something failed.
_REFRESH_S: Final = 0.5
# Where the first key stands, if not behind the command's name.
_KEY_AT: Final = {
    b"EVAL": 3, b"EVALSHA": 3, b"BITOP": 2, b"OBJECT": 2, b"XGROUP": 2, b"XINFO": 2, b"MEMORY": 2,
}  # fmt: skip
_BEHIND_STREAMS: Final = frozenset({b"XREAD", b"XREADGROUP"})
_KEYLESS: Final = frozenset(
    {b"PING", b"ECHO", b"TIME", b"INFO", b"SCRIPT", b"CLUSTER", b"CONFIG", b"COMMAND", b"WAIT"}
)


def first_key(parts: tuple[Part, ...]) -> bytes | None:
    """The first key of a command; None for a command without keys."""
    name = _bytes(parts[0]).upper()
    if name in _KEYLESS:
        return None
    if name in _BEHIND_STREAMS:
        names = [_bytes(part).upper() for part in parts]
        return _bytes(parts[names.index(b"STREAMS") + 1])
    at = _KEY_AT.get(name, 1)
    if name.startswith(b"EVAL") and _bytes(parts[2]) == b"0":
        return None
    return _bytes(parts[at]) if len(parts) > at else None


def _bytes(part: Part) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


class ClusterStore(Store):
    """See the module."""

    def __init__(self, options: StoreOptions) -> None:
        self.key_prefix = options.key_prefix
        self.timeout = options.timeout
        self._options = options
        self._seeds = [Place(host, port) for host, port in options.url.hosts]
        self._nodes: dict[Place, SharedStore] = {}
        self._slots: list[Place | None] = [None] * 16384
        self._refreshing: asyncio.Task[None] | None = None
        self._fetched_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._durable = False
        self._started = False
        self._closed = False
        self._since = options.clock.wall()
        self._error = ""

    # Calls.

    async def call(self, *parts: Part) -> Any:
        return await self._routed(parts, first_key(parts), monotonic())

    async def run(self, script: Script, keys: tuple[Part, ...], args: tuple[Part, ...]) -> Any:
        at = monotonic()
        key = _bytes(keys[0]) if keys else None
        try:
            return await self._routed((b"EVALSHA", script.sha, len(keys), *keys, *args), key, at)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._routed((b"EVAL", script.source, len(keys), *keys, *args), key, at)

    async def _routed(self, parts: tuple[Part, ...], key: bytes | None, at: float) -> Any:
        slot = None if key is None else key_slot(key)
        place, asking = self._place(slot), False
        for _ in range(_REDIRECTS):
            node = self._nodes.get(place) if place is not None else None
            if place is None or node is None or self._closed:
                self._refresh_soon()
                self._options.series.unavailable += 1
                raise failure("the store is unavailable", sent=False)
            try:
                link = await node.connected(at)
                if asking:
                    # Lets in the command right behind it on this connection.
                    link.send((b"ASKING",), at).add_done_callback(_forget)
                return await link.send(parts, at)
            except ReplyError as error:
                if error.code not in ("MOVED", "ASK"):
                    if error.unavailable:
                        self._refresh_soon()
                    raise
                asking = error.code == "ASK"
                place = self._redirected(error, place, moved=not asking)
            except StoreError:
                self._refresh_soon()
                raise
        raise failure("the store sends this command round in a circle")

    def _place(self, slot: int | None) -> Place | None:
        if slot is not None:
            return self._slots[slot]
        return next((place for place, node in self._nodes.items() if node.up), None)

    def _redirected(self, error: ReplyError, place: Place, *, moved: bool) -> Place:
        """Where `MOVED 3999 10.0.0.1:6381` leads, with a connection to it."""
        _, slot, address = error.reply.split(" ")[:3]
        host, _, port = address.rpartition(":")
        there = Place(host.strip("[]") or place.host, int(port))
        if moved:
            self._slots[int(slot)] = there
            self._refresh_soon()
        if there not in self._nodes:
            self._add(there).begin()
        return there

    # Nodes and the map.

    def _add(self, place: Place) -> SharedStore:
        async def locate() -> Place:
            return place

        node = SharedStore(locate, self._options, self._report)
        if self._durable:
            node.require_durability()
        self._nodes[place] = node
        return node

    def _report(self, _: bool) -> None:
        up = self._is_up()
        if self._options.series.up != up:
            self._since = self._options.clock.wall()
        self._options.series.up = up

    def _is_up(self) -> bool:
        owners = {place for place in self._slots if place is not None}
        return bool(owners) and all(
            place in self._nodes and self._nodes[place].up for place in owners
        )

    async def start(self) -> None:
        if self._started:
            return
        self._started = True
        self._options.series.up = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                if await self._fetch():
                    return
        self._refresh_soon()

    def _refresh_soon(self) -> None:
        if self._closed or (self._refreshing is not None and not self._refreshing.done()):
            return
        self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Fetch the map, again and again until a node had one."""
        fetched = False
        while not fetched:
            await asyncio.sleep(max(0.0, self._fetched_at + _REFRESH_S - monotonic()))
            fetched = await self._fetch()

    async def _fetch(self) -> bool:
        """Fetch the map from whichever node has one. False if none had."""
        self._fetched_at = monotonic()
        for place in dict.fromkeys([*self._nodes, *self._seeds]):
            node = self._nodes.get(place) or self._add(place)
            await node.start()
            try:
                reply = await node.request((b"CLUSTER", b"SLOTS"), monotonic())
            except StoreError as error:
                self._error = error.detail
                continue
            if await self._adopt(reply, place):
                return True
        return False

    async def _adopt(self, reply: Any, asked: Place) -> bool:
        """Go by this map. False if it is none."""
        slots: list[Place | None] = [None] * 16384
        for first, last, master, *_ in reply:
            host = master[0].decode() if master[0] not in (None, b"", b"?") else asked.host
            slots[first : last + 1] = [Place(host, master[1])] * (last - first + 1)
        owners = {place for place in slots if place is not None}
        if not owners:
            self._error = "the cluster has no slots yet"
            return False
        for place in owners - self._nodes.keys():
            self._add(place)
        await asyncio.gather(*(self._nodes[place].start() for place in owners))
        self._slots = slots
        for place in self._nodes.keys() - owners:
            closing = asyncio.create_task(self._nodes.pop(place).aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._report(True)
        return True

    # The rest of the interface.

    def channel(self) -> Channel:
        return ClusterChannel(self)

    def channel_to(self, key: bytes) -> LinkChannel:
        """A channel to the node that has `key` now. Raises StoreError."""
        place = self._slots[key_slot(key)]
        if place is None:
            self._refresh_soon()
            raise failure("the store is unavailable", sent=False)

        async def locate() -> Place:
            return place

        return LinkChannel(locate, self._options.tls, self._options.url)

    def moved(self) -> None:
        """A channel's node refused or failed: the map may be out of date."""
        self._refresh_soon()

    def require_durability(self) -> None:
        self._durable = True
        for node in self._nodes.values():
            node.require_durability()

    def status(self) -> StoreStatus:
        nodes = tuple(node.status() for node in self._nodes.values())
        state = "closed" if self._closed else "up" if self._is_up() else "down"
        errors = [node.last_error for node in nodes if node.state != "up"]
        kept = {node.persistence for node in nodes}
        return StoreStatus(
            state=state,
            since=self._since,
            kind=str(self._options.url.kind),
            address=str(self._options.url),
            last_error=next(filter(None, errors), self._error),
            error_at=max((node.error_at for node in nodes), default=0.0),
            server=next((node.server for node in nodes if node.server), ""),
            role="master",
            persistence=kept.pop() if len(kept) == 1 else "unknown",
            in_flight=sum(node.in_flight for node in nodes),
            nodes=nodes,
        )

    async def aclose(self) -> None:
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()), *self._closing)


def _forget(reply: asyncio.Future[Any]) -> None:
    if not reply.cancelled():
        reply.exception()


class ClusterChannel(Channel):
    """A channel that follows its key to whichever node has it."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self._key = b""
        self._channel: LinkChannel | None = None

    async def call(self, *parts: Part, timeout: float) -> Any:
        key = first_key(parts) or b""
        if self._channel is None or key != self._key:
            await self.aclose()
            self._key, self._channel = key, self._store.channel_to(key)
        try:
            return await self._channel.call(*parts, timeout=timeout)
        except StoreError:
            # Wherever the key is now, the next call asks for it.
            self._store.moved()
            await self.aclose()
            raise

    async def aclose(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()
