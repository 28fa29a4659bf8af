"""A consumer group of a stream on another server: reading, taking over, confirming.

Needs Redis 6.2 or later, or Valkey. Methods raise StoreError, which is about that server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.store.base import Channel, ReplyError, Store

_BLOCK_MS: Final = 1000
_READ_S: Final = 10.0
# A consumer that was silent for so long, and holds nothing, is one of a process that is gone.
_GONE_MS: Final = 86_400_000
_OURS: Final = b"lockgate-"


@dataclass(frozen=True, slots=True)
class Reading:
    """Where and how a stream is read. `begin` is new or beginning, `claim_after` seconds."""

    store: Store
    stream: str
    group: str
    begin: str = "new"
    batch: int = 100
    claim_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that was handed out."""

    id: bytes
    fields: list[tuple[bytes, bytes]]


class Group:
    """See the module. One call at a time."""

    def __init__(self, reading: Reading, consumer: str) -> None:
        self.reading = reading
        self._store = reading.store
        self._consumer = f"lockgate-{consumer}"
        self._channel: Channel | None = None
        # The newest entry that was handed out here: where a group that was lost is made again.
        self._newest = b""

    async def read(self) -> list[Found]:
        """What is new; waits a second for it."""
        reading = self.reading
        if self._channel is None:
            self._channel = self._store.channel()
        try:
            reply = await self._channel.call(
                "XREADGROUP", "GROUP", reading.group, self._consumer, "COUNT", reading.batch,
                "BLOCK", _BLOCK_MS, "STREAMS", reading.stream, ">", timeout=_READ_S,
            )  # fmt: skip
        except ReplyError as error:
            if error.code != "NOGROUP":
                raise
            await self._create()
            return []
        found, _ = _entries(reply[0][1] if reply else [])
        if found:
            self._newest = found[-1].id
        return found

    async def claim(self, silent: float) -> AsyncIterator[list[Found]]:
        """All that consumers hold which have not confirmed it for `silent` seconds, in batches."""
        cursor: bytes = b"0-0"
        while True:
            try:
                cursor, entries = await self._claim(silent, cursor)
            except ReplyError as error:
                if error.code != "NOGROUP":
                    raise
                return
            found, deleted = _entries(entries)
            if deleted:
                await self.confirm(deleted)
            if found:
                yield found
            if cursor == b"0-0":
                break
        await self._drop_consumers()

    async def _claim(self, silent: float, cursor: bytes) -> tuple[bytes, Any]:
        reading = self.reading
        reply = await self._store.call(
            "XAUTOCLAIM", reading.stream, reading.group, self._consumer, round(silent * 1000),
            cursor, "COUNT", reading.batch,
        )  # fmt: skip
        return reply[0], reply[1]

    async def confirm(self, ids: Sequence[bytes]) -> None:
        """These need not be handed out again."""
        await self._store.call("XACK", self.reading.stream, self.reading.group, *ids)

    async def pending(self) -> int:
        """How many entries were handed out and are not confirmed."""
        try:
            reply = await self._store.call("XPENDING", self.reading.stream, self.reading.group)
        except ReplyError as error:
            if error.code != "NOGROUP":
                raise
            return 0
        return int(reply[0])

    async def _create(self) -> None:
        """Make the group. One that was there goes on behind what was read of it: ids only grow, so
        that in a stream which was lost and begun anew all entries lie behind it.
        """
        reading = self.reading
        begin = self._newest or (b"$" if reading.begin == "new" else b"0")
        try:
            await self._store.call(
                "XGROUP", "CREATE", reading.stream, reading.group, begin, "MKSTREAM"
            )
        except ReplyError as error:
            if error.code != "BUSYGROUP":
                raise

    async def _drop_consumers(self) -> None:
        """Each start of a gateway is a new consumer; those of old ones would pile up."""
        reading = self.reading
        try:
            reply = await self._store.call("XINFO", "CONSUMERS", reading.stream, reading.group)
            for each in reply:
                facts = dict(zip(each[::2], each[1::2], strict=True))
                name = facts[b"name"]
                if name.startswith(_OURS) and not facts[b"pending"] and facts[b"idle"] > _GONE_MS:
                    await self._store.call(
                        "XGROUP", "DELCONSUMER", reading.stream, reading.group, name
                    )
        except ReplyError:
            # Not allowed to ask, perhaps: it is only about tidiness.
            return

    async def aclose(self) -> None:
        """Close the connection that waits."""
        if self._channel is not None:
            await self._channel.aclose()


def _entries(entries: Sequence[Any]) -> tuple[list[Found], list[bytes]]:
    """Those that are there, and the ids of those that were deleted from the stream meanwhile."""
    found, deleted = [], []
    for entry in entries:
        # Redis 6.2 gives nothing at all for a deleted one, not even its id.
        if entry is None:
            continue
        entry_id, fields = entry
        if fields is None:
            deleted.append(entry_id)
        else:
            found.append(Found(entry_id, list(zip(fields[::2], fields[1::2], strict=True))))
    return found, deleted
