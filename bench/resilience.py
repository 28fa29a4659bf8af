"""What the resilience policies cost while nothing fails, and what they hold back when it does.

The cost is measured like everything else: beside the plain proxy, in alternating rounds. The rest
runs against a stand-in upstream that fails or stalls on request and counts what it sees.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import load, processes
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import serving
from bench.report import Row, Sample, at_most, not_judged
from bench.session import Session
from bench.throughput import WARM_UP_S, Contestant, alternate

# A hedge that is made costs a request; this one is armed and never due.
ALL = (
    "retry: {attempts: 3, per_try_timeout: 1s}, hedge: {after: 500ms}, "
    "circuit_breaker: {slow_call: 2s}, bulkhead: {max_concurrent: 100}"
)
LIMIT_US = 8
AMPLIFIED = 1.25
OPEN = 0.1
ISOLATED = 1.5
STUB = Path(__file__).with_name("failing.py")


def measure(session: Session) -> list[Row]:
    """Cost, amplification, isolation."""
    if reason := session.missing():
        return [not_judged("resilience", "see README", reason)]
    return [_cost(session), *_amplification(session), _isolation(session)]


def _cost(session: Session) -> Row:
    contestants = [
        Contestant(lockgate.peer(Setup(), "lockgate-plain")),
        Contestant(lockgate.peer(Setup(policies=ALL), "lockgate-resilient")),
    ]
    readings = alternate(session, contestants)
    plain, full = (
        Sample(tuple(reading.cpu_us for reading in readings[one.peer.name])) for one in contestants
    )
    more = full.median - plain.median
    what = "all of retry, hedge, breaker, bulkhead, nothing failing: more CPU"
    return at_most(what, more, LIMIT_US, " us", plain_us=plain, resilient_us=full)


def _amplification(session: Session) -> list[Row]:
    """What an upstream that fails every time sees, for each request of a client."""
    retry = "retry: {attempts: 5}"
    breaker = f"{retry}, circuit_breaker: {{open_for: 60s}}"
    budget = _seen(session, "lockgate-budget", retry)
    opened = _seen(session, "lockgate-open", breaker)
    return [
        at_most("upstream fails, attempts: 5: what it sees a request", budget, AMPLIFIED, " x"),
        at_most("the same behind an open breaker", opened, OPEN, " x"),
    ]


def _seen(session: Session, name: str, policies: str) -> float:
    with stub(session, "fail") as upstream:
        peer = lockgate.peer(Setup(policies=policies), name)
        with serving(peer, upstream, session.work, session.cores.proxy, "/ok") as (_, job):
            load.run(job.port, WARM_UP_S, session.cores.load)
            before = _count(upstream)
            seen = load.run(job.port, session.seconds, session.cores.load)
            return (_count(upstream) - before) / seen.requests


def _isolation(session: Session) -> Row:
    """The p99 of a route while another one's upstream answers nobody, against its p99 alone."""
    policies = "bulkhead: {max_concurrent: 50, max_queued: 50}"
    alone: list[float] = []
    beside: list[float] = []
    with session.upstream() as upstream, stub(session, "stall") as stalled:
        setup = Setup(policies=policies, second=stalled, timeout="2s")
        peer = lockgate.peer(setup, "lockgate-isolated")
        with serving(peer, upstream, session.work, session.cores.proxy) as (_, job):
            load.run(job.port, WARM_UP_S, session.cores.load)
            for _ in range(session.rounds):
                alone.append(load.run(job.port, session.seconds, session.cores.load).p99_us)
                log = session.work / "stalled.log"
                other = load.begin(job.port, session.seconds + 2, session.cores.load, log,
                                   path="/second/x")  # fmt: skip
                beside.append(load.run(job.port, session.seconds, session.cores.load).p99_us)
                other.process.wait()
    one, two = Sample(tuple(alone)), Sample(tuple(beside))
    what = "one upstream stalls: p99 of a route to another, against its p99 alone"
    return at_most(what, two.median / one.median, ISOLATED, " x", alone_us=one, beside_us=two)


@contextmanager
def stub(session: Session, mode: str) -> Iterator[int]:
    """An upstream in trouble, and its port."""
    port = processes.free_port()
    command = [sys.executable, str(STUB), str(port), mode]
    log = session.work / f"{mode}.log"
    child = processes.start(mode, command, cores=session.cores.load, log=log)
    with processes.running(child, lambda: processes.http_status(port, "/ok") == 200):
        yield port


def _count(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count") as answer:
        return int(json.load(answer))
