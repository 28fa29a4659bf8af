"""Queues in a real store, and what is put into them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.delivery.event import Head, Record, decode_record
from gateway.delivery.queue import Queue, letter
from gateway.delivery.queued import Acceptance, Batch, Entry, Lane, Taken
from gateway.store.base import Store
from tests.store.servers import Server, opened

LANE = Lane("route", "api")
_numbers = itertools.count(1)


def make_id() -> str:
    """Another one each time, in the form of the gateway's."""
    return f"00000000-0000-7000-8000-{next(_numbers):012x}"


def make_head(route: str = "route", key: str = "k") -> Head:
    return Head(
        route=route, method="POST", path="/a", query=b"", host="a", headers=[], params={},
        raw_params={}, consumer="", identity="", tier="", correlation_id="c-1", trace=None,
        received_at=1.0, generation=1, key=key,
    )  # fmt: skip


def make_queue(store: Store, retention: float = 0.0) -> Queue:
    return Queue(store, retention)


def on_a_queue(test: Callable[[Queue], Awaitable[None]]) -> Callable[[Server], Awaitable[None]]:
    """Run the test with the queues of an empty store, on each kind of server."""

    async def run(server: Server) -> None:
        async with opened(server.unix, server.folder) as store:
            await store.call("FLUSHALL")
            await store.call("CONFIG", "SET", "maxmemory", 0)
            await test(make_queue(store))

    run.__doc__ = test.__doc__
    return run


async def accept(queue: Queue, *entries: Entry, **more: Any) -> str:
    """Keep an event for these targets, for one without any; its id."""
    event_id = more.pop("id", "") or make_id()
    body = more.pop("body", b"body")
    given = list(entries) or [Entry("api", "q", Record(begun_at=1.0))]
    first = await queue.accept(Acceptance(event_id, make_head(), body, given, **more))
    assert first is None
    return event_id


def ordered(order: str, target: str = "api") -> Entry:
    return Entry(target, "q", Record(begun_at=1.0), order)


async def take(queue: Queue, count: int = 10, consumer: str = "w1", **more: Any) -> Batch:
    return await queue.take(more.pop("lane", LANE), consumer, count, **more)


async def ids(queue: Queue, count: int = 10, consumer: str = "w1", **more: Any) -> list[str]:
    return [each.id for each in (await take(queue, count, consumer, **more)).events]


async def end(queue: Queue, taken: Taken, verdict: str = "delivered", **how: Any) -> bool:
    """Settle what was taken, as an attempt does."""
    lane: Lane = how.pop("lane", LANE)
    record = how.pop("record", None) or decode_record(taken.record)
    if verdict == "dead":
        how["member"] = letter(taken.id, lane.target, "permanent", "", 400)
    if verdict == "later":
        how.setdefault("delay", 60.0)
    how.setdefault("keep", 3600.0)
    return await queue.settle(lane, taken, verdict, record, **how)


async def state(queue: Queue, event_id: str, target: str = "api") -> str:
    return (await queue.fields(event_id)).get(f"s:{target}".encode(), b"").decode()


async def hold(seconds: float) -> None:
    """Let the store's clock run; a lease is measured by it and by nothing that tells."""
    await asyncio.sleep(seconds)
