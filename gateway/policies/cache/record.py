"""A stored answer as it stands in the store: MessagePack, and moments as Unix seconds."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.policies.cache.entry import Entry
from gateway.policies.cache.key import Slot, Uri
from gateway.policies.cache.rules import Store


class Marker(msgspec.Struct, tag=1, array_like=True):
    """Stands where an answer without Vary would: the answers are elsewhere, told apart by these."""

    names: list[bytes]


class Record(msgspec.Struct, tag=2, array_like=True):
    """One answer. `age` is how old it was at `at`, in Unix seconds; the others are durations."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    names: list[bytes]
    values: list[bytes | None]
    tags: list[bytes]
    at: float
    age: float
    lifetime: float
    while_revalidate: float
    if_error: float
    may_stale: bool
    open: bool
    version: tuple[bytes, bytes]

    @classmethod
    def of(cls, entry: Entry, wall: float, now: float) -> Record:
        """An entry as it is at this moment, on both clocks."""
        return cls(
            status=entry.status,
            headers=entry.headers,
            body=entry.body,
            names=list(entry.names),
            values=list(entry.values),
            tags=sorted(entry.tags),
            at=wall,
            age=now - entry.born,
            lifetime=entry.fresh_until - entry.born,
            while_revalidate=entry.refresh_until - entry.fresh_until,
            if_error=entry.error_until - entry.fresh_until,
            may_stale=entry.may_stale,
            open=entry.open,
            version=entry.version,
        )

    def entry(self, place: tuple[Uri, Slot], wall: float, now: float) -> Entry:
        """The entry, as old as it has become; never younger than it was, whatever the clocks."""
        plan = Store(
            age=self.age + max(0.0, wall - self.at),
            lifetime=self.lifetime,
            while_revalidate=self.while_revalidate,
            if_error=self.if_error,
            may_stale=self.may_stale,
            open=self.open,
            names=tuple(self.names),
            headers=self.headers,
        )
        entry = Entry(place, tuple(self.values), plan, self.status, self.body, now)
        entry.tags = frozenset(self.tags)
        entry.version = self.version
        return entry


_DECODER: Final[msgspec.msgpack.Decoder[Marker | Record]] = msgspec.msgpack.Decoder(Marker | Record)
_ENCODER: Final = msgspec.msgpack.Encoder()


def pack(what: Marker | Record) -> bytes:
    """The bytes to store."""
    return _ENCODER.encode(what)


def unpack(raw: bytes | None) -> Marker | Record | None:
    """What was stored; None if there is nothing, or what another version wrote."""
    if raw is None:
        return None
    try:
        return _DECODER.decode(raw)
    except msgspec.DecodeError:
        return None
