"""What operators may ask of the past: a transaction's way, an event, everything in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.delivery.asked import Missing, Unusable, given
from gateway.delivery.audit_entry import Entry
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.queue import Queue
from gateway.delivery.status import EventStatus, read, status_of
from gateway.delivery.trail import Wanted, of_transaction, page

_LONGEST_ID: Final = 256
_EVENTS: Final = 100
_PAGE: Final = 5000


class Trace(msgspec.Struct):
    """A transaction: its steps in the order of time, and the events of it that are still kept."""

    correlation_id: str
    entries: list[Entry]
    events: list[EventStatus]


class _OfTransaction(msgspec.Struct, forbid_unknown_fields=True):
    correlation_id: str


class _OfEvent(msgspec.Struct, forbid_unknown_fields=True):
    event_id: str


class _OfAudit(msgspec.Struct, forbid_unknown_fields=True):
    since: float = 0.0
    until: float = 0.0
    route: str = ""
    kind: str = ""
    event: str = ""
    consumer: str = ""
    cursor: str = ""
    count: int = 1000


async def trace(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Trace:
    """Everything of one `correlation_id`. Raises Missing if nothing is known of it."""
    asked = given(params, _OfTransaction)
    if len(asked.correlation_id) > _LONGEST_ID:
        raise Unusable(f"a correlation id has at most {_LONGEST_ID} characters")
    entries = await of_transaction(dispatcher.queue, asked.correlation_id)
    if not entries:
        raise Missing("nothing is known of this correlation id, or nothing any more")
    ids = list(dict.fromkeys(entry.event for entry in entries if entry.event))[:_EVENTS]
    found = await asyncio.gather(*(_status(dispatcher.queue, each) for each in ids))
    return Trace(asked.correlation_id, entries, [each for each in found if each is not None])


async def event(dispatcher: Dispatcher, params: Mapping[str, Any]) -> EventStatus:
    """How far one event is, with what its targets answered. Raises Missing."""
    asked = given(params, _OfEvent)
    found = await _status(dispatcher.queue, asked.event_id)
    if found is None:
        raise Missing("there is no such event, or it was delivered and let go of")
    return found


async def audit(dispatcher: Dispatcher, params: Mapping[str, Any]) -> dict[str, Any]:
    """A page of entries, oldest first, out of `count` that are looked at.

    `since` and `until` are Unix seconds; `cursor` goes on where the last page ended.
    """
    asked = given(params, _OfAudit)
    if not 1 <= asked.count <= _PAGE:
        raise Unusable(f"count is from 1 to {_PAGE}")
    if asked.cursor and not _is_cursor(asked.cursor):
        raise Unusable("cursor is what the page before it gave")
    wanted = Wanted(asked.since, asked.until, asked.route, asked.kind, asked.event, asked.consumer)
    found = await page(dispatcher.queue, wanted, asked.cursor, asked.count)
    return {"entries": found.entries, "cursor": found.cursor}


def _is_cursor(text: str) -> bool:
    milliseconds, _, number = text.removeprefix("(").partition("-")
    return text.startswith("(") and milliseconds.isdigit() and number.isdigit()


async def _status(queue: Queue, event_id: str) -> EventStatus | None:
    try:
        stored = read(event_id, await queue.fields(event_id))
    except msgspec.MsgspecError:
        return None
    return None if stored is None else status_of(stored, full=True)
