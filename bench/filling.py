"""Fills the queue of a route: `python -m bench.filling SOCKET ROUTE TARGET COUNT`.

Run by `backlog.py`, as a process of its own. The events go through the step that keeps them, as a
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
from gateway.delivery.event import Head, Record, new_id
from gateway.delivery.queue import Acceptance, Entry, Queue
from gateway.observability.store_series import StoreSeries
from gateway.store.opening import open_store

AT_ONCE = 256
BODY = b'{"order_id": 4711, "customer": "c-000123", "total": 129.9, "lines": [{"sku": "a-1"}]}'
FIELDS = [(b"content-type", b"application/json"), (b"user-agent", b"bench")]


async def main() -> None:
    """Keep so many events."""
    socket, route, target, count = *sys.argv[1:4], int(sys.argv[4])
    config = StoreConfig.model_validate({"url": f"unix://{socket}", "timeout": "10s"})
    clock = SystemClock()
    store = open_store(
        config, base_dir=Path(), clock=clock, rng=random.Random(), series=StoreSeries()
    )
    await store.start()
    queue = Queue(store, 0.0)
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            now = time.time()
            event_id = new_id(now)
            head = Head(
                route, "POST", "/events", b"", "bench", FIELDS, {}, {}, "", "", "",
                event_id, None, now, 1, event_id,
            )  # fmt: skip
            entry = Entry(target, "q", Record(begun_at=now))
            await queue.accept(Acceptance(event_id, head, BODY, [entry]))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await store.aclose()


asyncio.run(main())
