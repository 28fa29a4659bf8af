"""A million events wait while their target is down: memory, what the metrics say, how it drains."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from bench import processes
from bench.peers import lockgate, nginx
from bench.peers.lockgate import Setup
from bench.peers.peer import Job, serving
from bench.processes import Child
from bench.report import Row, at_most, not_judged, reported
from bench.session import Session
from bench.store import running_store, used_bytes

COUNT = int(os.environ.get("BENCH_BACKLOG") or 100_000)
MEMORY = f"{COUNT:,} events waiting, target down: the gateway's memory grows"
MEMORY_MIB = 8
DEPTH = "the same: depth and age of the oldest, as the metrics say"
STAMPEDE = "the same: delivered in the first second of the target, against the steady rate"
# At the steady rate from the first moment on it would be 1.
STAMPEDE_LIMIT = 0.5
# A breaker that opens at once: the target is spared, and no attempts are used up.
BREAKER = "circuit_breaker: {min_requests: 5, open_for: 2s}"
_DOWN_S = 20.0
_DRAIN_S = 12.0


def measure(session: Session) -> list[Row]:
    """Fill, look, let the target come up, look."""
    if reason := session.missing():
        return [not_judged(MEMORY, f"<= {MEMORY_MIB} MiB", reason)]
    target = processes.free_port()
    with ExitStack() as stack:
        _, path = stack.enter_context(running_store(session.work / "store", session.cores.load))
        empty = used_bytes(path)
        began = time.time()
        _fill(session, path)
        stored = (used_bytes(path) - empty) / COUNT
        upstream = stack.enter_context(session.upstream())
        peer = lockgate.peer(
            Setup(events=f"unix://{path}", second=target, policies=BREAKER), "lockgate-backlog"
        )
        child, job = stack.enter_context(serving(peer, upstream, session.work, session.cores.proxy))
        first = child.resident_bytes()
        time.sleep(_DOWN_S)
        grown = (child.resident_bytes() - first) / 2**20
        depth, age = _gauge(job, "queue_depth"), _gauge(job, "oldest_age_seconds")
        right = depth == COUNT and abs(age - (time.time() - began)) < 15
        counts = _drain(session, job, target, stack)
    steady = max(counts[2:])
    return [
        at_most(MEMORY, grown, MEMORY_MIB, " MiB"),
        Row(DEPTH, f"{COUNT:,} and the time since", f"{depth:,.0f}, {age:.0f} s",
            "ok" if right else "MISSED", {}),
        at_most(STAMPEDE, counts[0] / steady, STAMPEDE_LIMIT, " x", per_second=counts),
        reported("the same: memory of the store", f"{stored:,.0f} bytes an event"),
    ]  # fmt: skip


def _fill(session: Session, path: Path) -> None:
    command = [sys.executable, "-m", "bench.filling", str(path), "events", "second", str(COUNT)]
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=3600)
    session.say(f"  {COUNT:,} events kept in {time.monotonic() - began:.0f} s")


def _drain(session: Session, job: Job, port: int, stack: ExitStack) -> list[float]:
    """The target comes up; what is delivered in each second from the first delivery on."""
    work = session.work / "target"
    command = nginx.upstream_command(port, work)
    target: Child = processes.start(
        "target", command.argv, cores=session.cores.load, log=work / "log"
    )
    stack.enter_context(
        processes.running(target, lambda: processes.http_status(port, "/item") == 200)
    )
    seen = _delivered(job)
    until = time.monotonic() + 60
    while (now := _delivered(job)) <= seen and time.monotonic() < until:
        time.sleep(0.02)
    counts, last = [], seen
    for second in range(1, round(_DRAIN_S) + 1):
        time.sleep(1.0)
        now = _delivered(job)
        counts.append(now - last)
        last = now
        session.say(f"  second {second}: {counts[-1]:,.0f} delivered")
    return counts


def _delivered(job: Job) -> float:
    return _metric(job, r'gateway_delivery_attempts_total\{[^}]*result="delivered"[^}]*\}')


def _gauge(job: Job, name: str) -> float:
    return _metric(job, rf"gateway_delivery_{name}\{{[^}}]*\}}")


def _metric(job: Job, pattern: str) -> float:
    url = f"http://127.0.0.1:{lockgate.admin_port(job)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        float(value) for value in re.findall(rf"^{pattern} ([0-9.e+]+)$", text, re.MULTILINE)
    )
