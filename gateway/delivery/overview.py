"""How full the queues are, those included that the configuration does not know any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.delivery.asked import given
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.queue import Queue
from gateway.delivery.queued import Lane
from gateway.store.script import Script

# More lanes than this are not looked for in the store: no configuration has had so many.
_MOST: Final = 5000
_LOOK: Final = Script.load("delivery_look")


class LaneInfo(msgspec.Struct):
    """One lane. `depth` counts what is not settled: `in_flight`, `waiting` for its time, and what
    stands in the queue or behind another event of its order. Ages and `due_in` are seconds.
    `paused_for` is how long the process that was asked takes nothing, because the target is spared.
    """

    route: str
    target: str
    configured: bool
    depth: int
    oldest_age: float | None
    in_flight: int
    waiting: int
    due_in: float | None
    paused_for: float


class LettersInfo(msgspec.Struct):
    """The dead letters of a route; `oldest_at` is Unix seconds."""

    route: str
    configured: bool
    dead_letters: int
    oldest_at: float | None


class Overview(msgspec.Struct):
    """Everything that waits, by the clock of the gateway that was asked (`at`, Unix seconds)."""

    at: float
    queues: list[LaneInfo]
    routes: list[LettersInfo]


@dataclass(frozen=True, slots=True)
class _State:
    """What a lane's queue holds, see delivery_look.lua; milliseconds, -1 for none."""

    depth: int
    oldest: int
    running: int
    waiting: int
    due: int


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    route: str = ""


async def queues(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Overview:
    """All of them, or those of one `route`."""
    asked = given(params, _Asked)
    queue, now = dispatcher.queue, dispatcher.clock.wall()
    configured = set(dispatcher.lanes())
    lanes = configured | {_lane(name) for name in await members(queue, "lanes")}
    rows = []
    for lane in sorted(lanes, key=lambda each: each.name):
        if asked.route in ("", lane.route):
            state = _State(*await queue.store.run(_LOOK, (queue.base,), (lane.name,)))
            if lane in configured or state.depth:
                paused = dispatcher.paused_for(lane)
                rows.append(_row(lane, lane in configured, state, now, paused))
    routes = {lane.route for lane in configured}
    letters = []
    for route in sorted(routes | await members(queue, "routes")):
        if asked.route in ("", route):
            key = queue.key("dead", route)
            count = await queue.store.call("ZCARD", key)
            first = await queue.store.call("ZRANGE", key, 0, 0, "WITHSCORES")
            oldest = float(first[1]) / 1000 if first else None
            if count or route in routes:
                letters.append(LettersInfo(route, route in routes, count, oldest))
    return Overview(now, rows, letters)


def _row(lane: Lane, configured: bool, state: _State, now: float, paused: float) -> LaneInfo:
    age = None if state.oldest < 0 else round(max(0.0, now - state.oldest / 1000), 3)
    due = None if state.due < 0 else state.due / 1000
    return LaneInfo(
        lane.route, lane.target, configured, state.depth, age, state.running, state.waiting, due,
        round(paused, 3),
    )  # fmt: skip


def _lane(name: str) -> Lane:
    route, _, target = name.rpartition("/")
    return Lane(route, target)


async def members(queue: Queue, kind: str) -> set[str]:
    """The members of a set, the first `_MOST` of them."""
    found: set[str] = set()
    cursor = b"0"
    while len(found) < _MOST:
        cursor, page = await queue.store.call("SSCAN", queue.key(kind), cursor, "COUNT", 500)
        found.update(member.decode() for member in page)
        if cursor == b"0":
            break
    return found
