"""A gateway that decides limits for a million consumers: `python -m bench.consumers CONFIG COUNT`.

Run by `limits.py`, as a process of its own. The whole runtime is built from the configuration; the
requests come from here instead of from a socket, because a million of them over HTTP take minutes.
Prints one JSON line: memory before and after in KiB, seconds, CPU seconds, how many passed; `bare`
are the CPU seconds of making the same requests and asking nobody about them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.processes import resident_kib
from gateway.message import Exchange, Headers, Principal, Request
from gateway.runtime import Runtime, load_configuration

AT_ONCE = 32
WARM_UP = 20_000


async def drive(policy: Any, first: int, count: int) -> int:
    """One request of each of so many consumers; how many passed. Without a policy, all of them."""
    numbers = iter(range(first, first + count))
    passed = 0

    async def work() -> None:
        nonlocal passed
        for number in numbers:
            exchange = Exchange(Request("GET", "/item", b"", Headers([])), 0.0)
            exchange.principal = Principal(f"consumer-{number}")
            rejection = None if policy is None else await policy.check(exchange)
            passed += rejection is None

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return passed


async def main() -> None:
    """Warm up with other consumers, then measure."""
    runtime = Runtime()
    await runtime.start(load_configuration(Path(sys.argv[1]), {}))
    count = int(sys.argv[2])
    [route] = runtime.snapshot.routes
    [policy] = [each for each in route.policies if each.name == "rate_limit"]
    await drive(policy, count, WARM_UP)
    gc.collect()
    before, began, used = resident_kib(), time.monotonic(), time.process_time()
    passed = await drive(policy, 0, count)
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    gc.collect()
    after = resident_kib()
    errors = sum(
        sample.value
        for family in runtime.metrics.snapshot().families
        if family.declaration.name == "gateway_rate_limit_store_errors_total"
        for sample in family.samples
    )
    await runtime.aclose()
    used = time.process_time()
    await drive(None, 0, count)
    bare = time.process_time() - used
    figures = {"before": before, "after": after, "seconds": seconds, "cpu": cpu, "bare": bare}
    print(json.dumps({**figures, "passed": passed, "errors": errors}))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
