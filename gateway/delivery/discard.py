"""Throws dead letters away: those that somebody names, and those that were kept long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.delivery.audit_entry import OFF, Entry
from gateway.delivery.event import decode_head
from gateway.delivery.letters import Letter, read_letter
from gateway.delivery.plan import RoutePlan
from gateway.delivery.queue import AUDIT, CALLBACK
from gateway.observability.delivery import DISCARDED
from gateway.store.base import Part
from gateway.store.script import Script

if TYPE_CHECKING:
    from gateway.delivery.dispatcher import Dispatcher

EVERY_S: Final = 30.0
_DISCARD: Final = Script.load("delivery_discard", AUDIT)
_AT_ONCE: Final = 100
"""Letters of one script."""
_BATCH: Final = 500
_BUDGET_S: Final = 2.0
"""Seconds that one turn of the chore may take for a route."""


async def discard(dispatcher: Dispatcher, letters: Sequence[Letter], why: str, by: str) -> int:
    """How many of them were there and are no more. `why` is purged, retention or max, for metrics.

    Raises StoreError, and then some of them may be gone.
    """
    removed = 0
    for start in range(0, len(letters), _AT_ONCE):
        part = letters[start : start + _AT_ONCE]
        for route, same in groupby(part, key=lambda each: each.route):
            removed += await _of_route(dispatcher, route, list(same), why, by)
    return removed


async def _of_route(
    dispatcher: Dispatcher, route: str, letters: list[Letter], why: str, by: str
) -> int:
    queue = dispatcher.queue
    heads = await asyncio.gather(
        *(queue.store.call("HGET", queue.key("event", each.event), "head") for each in letters)
    )
    args: list[Part] = []
    for letter, head in zip(letters, heads, strict=True):
        entry, correlation_id = _entry(dispatcher, letter, head, why, by)
        args += [letter.event, letter.target, letter.member, entry, correlation_id]
    retention = round(dispatcher.journal.retention * 1000)
    outcomes = await queue.store.run(_DISCARD, (queue.base,), (route, retention, CALLBACK, *args))
    removed: int = sum(outcomes)
    dispatcher.metrics.counts(DISCARDED).add(route, why, amount=removed)
    return removed


def _entry(
    dispatcher: Dispatcher, letter: Letter, data: bytes | None, why: str, by: str
) -> tuple[bytes, str]:
    try:
        head = decode_head(data or b"")
    except msgspec.MsgspecError:
        return OFF, ""
    entry = Entry(
        dispatcher.clock.wall(), "purged", letter.route, head.correlation_id, letter.event,
        target=letter.target, reason=letter.reason, status=letter.status, code=letter.code, by=by,
        detail="" if why == "purged" else why, key=head.key,
    )  # fmt: skip
    return dispatcher.journal.entry(entry), head.correlation_id


async def keep_in_bounds(dispatcher: Dispatcher) -> None:
    """Throw away what is older or more than the routes keep. Safe in several processes at once.

    A route that is not configured keeps its letters: nobody says how long. Raises StoreError.
    """
    for plan in dispatcher.routes():
        stop_at = dispatcher.clock.monotonic() + _BUDGET_S
        while dispatcher.clock.monotonic() < stop_at:
            why, letters = await _beyond(dispatcher, plan)
            if not letters:
                break
            await discard(dispatcher, letters, why, "lockgate")


async def _beyond(dispatcher: Dispatcher, plan: RoutePlan) -> tuple[str, list[Letter]]:
    """Some of the letters of a route that are not to be kept, the oldest first, and why."""
    queue = dispatcher.queue
    key = queue.key("dead", plan.route)
    now = await queue.store.call("TIME")
    cutoff = int(now[0]) * 1000 - round(plan.retention * 1000)
    found = await queue.store.call("ZRANGEBYSCORE", key, "-inf", cutoff, "LIMIT", 0, _BATCH)
    why = "retention"
    if not found:
        surplus = await queue.store.call("ZCARD", key) - plan.most
        if surplus > 0:
            found = await queue.store.call("ZRANGE", key, 0, min(surplus, _BATCH) - 1)
            why = "max"
    letters = [read_letter(plan.route, member, 0) for member in found]
    return why, [each for each in letters if each is not None]
