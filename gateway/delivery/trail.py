"""Reads the audit: one transaction's whole way, or everything of a stretch of time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.delivery.audit_entry import Entry
from gateway.delivery.queue import Queue

MOST: Final = 5000
"""Entries of one transaction that are read; a transaction has a few dozen."""
_LONGEST: Final = 20
"""Bytes of an entry's id with the space before it: milliseconds, and a number of six digits."""
_AT_ONCE: Final = 200
_decode = msgspec.json.Decoder(Entry).decode


async def of_transaction(queue: Queue, correlation_id: str) -> list[Entry]:
    """All entries of a correlation id, oldest first. Raises StoreError."""
    key = queue.key("entries", correlation_id)
    names: bytes = await queue.store.call("GETRANGE", key, 0, MOST * _LONGEST)
    ids = names.split()[:MOST]
    found: list[Entry] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        replies = await asyncio.gather(
            *(queue.store.call("XRANGE", queue.key("audit"), each, each) for each in part)
        )
        found += [entry for reply in replies for entry in _entries(reply)]
    # Each gateway writes its own time; what one of them wrote stays in its order.
    return sorted(found, key=lambda entry: entry.at)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, and where the next page begins; empty if this was the last one."""

    entries: list[Entry]
    cursor: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: all that is given must hold. Times are Unix seconds, `until` excluded."""

    since: float = 0.0
    until: float = 0.0
    route: str = ""
    kind: str = ""
    event: str = ""
    consumer: str = ""

    def takes(self, entry: Entry) -> bool:
        """Whether it is one of them."""
        given = (
            (self.route, entry.route),
            (self.kind, entry.kind),
            (self.event, entry.event),
            (self.consumer, entry.consumer),
        )
        return all(not wanted or wanted == found for wanted, found in given)


async def page(queue: Queue, wanted: Wanted, cursor: str = "", count: int = 1000) -> Page:
    """The next entries, out of `count` that are looked at. Raises StoreError."""
    start = cursor or (str(round(wanted.since * 1000)) if wanted.since else "-")
    end = f"({round(wanted.until * 1000)}" if wanted.until else "+"
    reply = await queue.store.call("XRANGE", queue.key("audit"), start, end, "COUNT", count)
    entries = [entry for entry in _entries(reply) if wanted.takes(entry)]
    following = f"({reply[-1][0].decode()}" if len(reply) == count else ""
    return Page(entries, following)


def _entries(reply: Sequence[Sequence[object]]) -> list[Entry]:
    found = []
    for _, fields in reply:
        assert isinstance(fields, list)
        try:
            found.append(_decode(fields[1]))
        except msgspec.MsgspecError:
            # Written by a version that says more than this one can read.
            continue
    return found
