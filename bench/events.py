"""Asynchronous routes: what accepting an event costs beside proxying, and how fast they leave.

The embedded engine runs on the gateway's core, as it does where nothing else is configured, and
every event that is answered with 202 has been written to disk (appendfsync always).
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import load
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import Job, serving
from bench.processes import Child
from bench.report import Row, Sample, at_least, not_judged, reported
from bench.session import Session

ACCEPTING = "accepting events, each on disk: rate against proxying, 64 connections, one core"
ACCEPTING_LIMIT = 0.4
DELIVERING = "delivering events: one worker, one core"
DELIVERING_LIMIT = 1500
CONNECTIONS = 64
BODY = '{"order_id": 4711, "customer": "c-000123", "total": 129.9, "lines": [{"sku": "a-1"}]}'
_DELIVERED = re.compile(
    rb'^gateway_delivery_attempts_total\{[^}]*result="delivered"[^}]*\} ([0-9.e+]+)$', re.MULTILINE
)
_FILL_S = 8.0
_DRAIN_LIMIT_S = 300.0


def measure(session: Session) -> list[Row]:
    """Both."""
    if reason := session.missing():
        return [
            not_judged(ACCEPTING, f">= {ACCEPTING_LIMIT} x", reason),
            not_judged(DELIVERING, f">= {DELIVERING_LIMIT}/s", reason),
        ]
    return [*_accepting(session), *_delivering(session)]


@contextmanager
def _gateway(
    session: Session, upstream: int, name: str, data: Path, *, deliver: bool
) -> Iterator[tuple[Child, Job]]:
    setup = Setup(events=str(data), deliver=deliver)
    peer = lockgate.peer(setup, name)
    with serving(peer, upstream, session.work, session.cores.proxy) as found:
        yield found


def _post(session: Session, job: Job, seconds: float) -> load.Load:
    seen = load.run(
        job.port,
        seconds,
        session.cores.load,
        ("/events",),
        ("Content-Type: application/json",),
        body=BODY,
        connections=CONNECTIONS,
    )
    if seen.failed or not seen.requests:
        raise RuntimeError(f"{seen.failed} of {seen.requests} events were not accepted")
    return seen


def _accepting(session: Session) -> list[Row]:
    proxied, accepted, cpu = [], [], []
    data = session.work / "accepting-store"
    with (
        session.upstream() as upstream,
        _gateway(session, upstream, "lockgate-accepting", data, deliver=False) as (child, job),
    ):
        load.run(job.port, 1.0, session.cores.load, connections=CONNECTIONS)
        _post(session, job, 1.0)
        for number in range(1, session.rounds + 1):
            plain = load.run(job.port, session.seconds, session.cores.load, connections=CONNECTIONS)
            before = child.cpu_seconds()
            seen = _post(session, job, session.seconds)
            cpu.append(1e6 * (child.cpu_seconds() - before) / seen.requests)
            proxied.append(plain.per_second)
            accepted.append(seen.per_second)
            session.say(
                f"  round {number}: {seen.per_second:,.0f} accepted/s, "
                f"{plain.per_second:,.0f} proxied/s, p99 {seen.p99_us / 1000:.1f} ms"
            )
    ours, theirs = Sample(tuple(accepted)), Sample(tuple(proxied))
    return [
        at_least(
            ACCEPTING, ours.median / theirs.median, ACCEPTING_LIMIT, " x",
            accepted=ours, proxied=theirs,
        ),
        reported(
            "the same: accepted",
            f"{ours.median:,.0f}/s, {Sample(tuple(cpu))} us CPU an event, engine included",
        ),
    ]  # fmt: skip


def _delivering(session: Session) -> list[Row]:
    data = session.work / "delivering-store"
    rates = []
    with session.upstream() as upstream:
        for number in range(1, session.rounds + 1):
            with _gateway(session, upstream, "lockgate-filling", data, deliver=False) as (_, job):
                # What came while the generator ended was accepted as well.
                before = _post(session, job, _FILL_S).requests
            with _gateway(session, upstream, "lockgate-delivering", data, deliver=True) as (_, job):
                rates.append(_drain(job, before))
            session.say(f"  round {number}: {rates[-1]:,.0f} delivered/s of {before:,}")
    rate = Sample(tuple(rates))
    return [at_least(DELIVERING, rate.median, DELIVERING_LIMIT, "/s", per_second=rate)]


def _drain(job: Job, expected: int) -> float:
    """Events a second, from the first look that found some to the one that found them all."""
    until = time.monotonic() + _DRAIN_LIMIT_S
    began, first = 0.0, 0.0
    while time.monotonic() < until:
        done, now = _delivered(job), time.monotonic()
        if not began and done:
            began, first = now, done
        if done >= expected:
            return (done - first) / max(now - began, 1e-9)
        time.sleep(0.1)
    raise RuntimeError(f"only {done:,.0f} of {expected:,} events were delivered")


def _delivered(job: Job) -> float:
    url = f"http://127.0.0.1:{lockgate.admin_port(job)}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = _DELIVERED.search(answer.read())
    except urllib.error.URLError:
        # The listener of requests, by which a gateway is found ready here, is there a bit sooner.
        return 0.0
    return float(found[1]) if found else 0.0
