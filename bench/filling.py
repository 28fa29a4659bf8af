"""Fills the queue of a route: `python -m bench.filling SOCKET ROUTE TARGET COUNT [dead]`.

Run by `backlog.py` and `letters.py`, as a process of its own. With `dead` the events are given up
already, one in a thousand for another reason. The events go through the step that keeps them, as a
gateway's do, but not through HTTP: a million of them would take too long.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config.model_store import StoreConfig
from gateway.delivery.event import Head, Record
from gateway.delivery.ids import new_id
from gateway.delivery.queue import Queue, letter
from gateway.delivery.queued import Acceptance, Entry
from gateway.observability.store_series import StoreSeries
from gateway.store.opening import open_store

AT_ONCE = 256
BODY = b'{"order_id": 4711, "customer": "c-000123", "total": 129.9, "lines": [{"sku": "a-1"}]}'
FIELDS = [(b"content-type", b"application/json"), (b"user-agent", b"bench")]


def given_up(target: str, event_id: str, now: float, *, rare: bool) -> Entry:
    """The entry of a dead letter."""
    reason, code, status = ("expired", "upstream_timeout", 0) if rare else ("permanent", "", 422)
    record = Record(attempts=1, begun_at=now, reason=reason, code=code, status=status)
    member = letter(event_id, target, reason, code, status)
    return Entry(target, "x", record, member=member)


async def main() -> None:
    """Keep so many events."""
    socket, route, target, count = *sys.argv[1:4], int(sys.argv[4])
    dead = sys.argv[5:] == ["dead"]
    config = StoreConfig.model_validate({"url": f"unix://{socket}", "timeout": "10s"})
    clock = SystemClock()
    store = open_store(
        config, base_dir=Path(), clock=clock, rng=random.Random(), series=StoreSeries()
    )
    await store.start()
    queue = Queue(store, 0.0)
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            now = time.time()
            event_id = new_id(now)
            head = Head(
                route, "POST", "/events", b"", "bench", FIELDS, {}, {}, "", "", "",
                event_id, None, now, 1, event_id,
            )  # fmt: skip
            entry = Entry(target, "q", Record(begun_at=now))
            if dead:
                entry = given_up(target, event_id, now, rare=number % 1000 == 0)
            await queue.accept(Acceptance(event_id, head, BODY, [entry]))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await store.aclose()


asyncio.run(main())
