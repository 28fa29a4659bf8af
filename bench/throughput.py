"""CPU per request of each proxy, and what more workers and more routes do to it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import Peer, serving
from bench.processes import Child
from bench.report import Row, Sample, Verdict, at_most, not_judged, reported
from bench.session import Session

WARM_UP_S = 1.0
PLAIN = "proxied GET: CPU against {}"
LIMITS = {"envoy": 0.6, "nginx": 2.8}
TIMES_LESS_THAN_HTTPX = 40
ROUTES = 10_000


@dataclass(frozen=True)
class Reading:
    """One round of one proxy."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    beside_us: float = 0.0


@dataclass(frozen=True)
class Contestant:
    """A proxy with the paths that it is asked for, and header lines that go with every request.

    The CPU of a process `beside` it that works for it is measured too, and kept apart.
    """

    peer: Peer
    paths: Sequence[str] = ("/item",)
    headers: Sequence[str] = ()
    beside: Child | None = None


def compare(session: Session) -> list[Row]:
    """Every proxy that is here, in alternating rounds."""
    if reason := session.missing():
        return [not_judged("proxied GET", "see README", reason)]
    contestants = [Contestant(peer) for peer in session.peers.values() if not peer.missing]
    readings = alternate(session, contestants)
    rows = [_against(session, readings, name, limit) for name, limit in LIMITS.items()]
    rows.append(_against_httpx(session, readings))
    for name, of_peer in readings.items():
        rows.append(_describe(f"proxied GET: {name}", of_peer))
    return rows


def many_routes(session: Session) -> list[Row]:
    """10,000 routes against 10, and how long it takes to load them."""
    what = f"{ROUTES:,} routes against 10: more CPU"
    if reason := session.missing():
        return [not_judged(what, "<= 5 %", reason)]
    few, many = Setup(routes=10), Setup(routes=ROUTES)
    contestants = [
        Contestant(lockgate.peer(few, "lockgate-10"), few.paths()),
        Contestant(lockgate.peer(many, "lockgate-10000"), many.paths()),
    ]
    readings = alternate(session, contestants)
    cpu = {name: _sample(of_peer).median for name, of_peer in readings.items()}
    more = 100 * (cpu["lockgate-10000"] / cpu["lockgate-10"] - 1)
    return [at_most(what, more, 5, " %", cpu_us=cpu)]


def workers(session: Session) -> list[Row]:
    """Two workers against one, nobody pinned to one core: load and upstream take their share."""
    what = "2 workers against 1, on 2 cores"
    if reason := session.missing():
        return [not_judged(what, "-", reason)]
    both = session.cores.all
    per_second: dict[str, list[float]] = defaultdict(list)
    with session.upstream() as upstream:
        for _ in range(session.rounds):
            for count in (1, 2):
                peer = lockgate.peer(Setup(workers=count), f"lockgate-{count}w")
                with serving(peer, upstream, session.work, both) as (_, job):
                    load.run(job.port, WARM_UP_S, both)
                    seen = load.run(job.port, session.seconds, both)
                per_second[peer.name].append(seen.per_second)
    one, two = (Sample(tuple(per_second[f"lockgate-{count}w"])) for count in (1, 2))
    figure = f"{two.median / one.median:.2f} x ({one.median:,.0f} -> {two.median:,.0f} requests/s)"
    return [reported(what, figure, one=one, two=two)]


def alternate(session: Session, contestants: Sequence[Contestant]) -> dict[str, list[Reading]]:
    """A B C, A B C, ...: so that what else the machine does falls on all of them alike.

    All of them are up the whole time; the ones not asked are idle.
    """
    readings: dict[str, list[Reading]] = defaultdict(list)
    with ExitStack() as stack:
        upstream = stack.enter_context(session.upstream())
        ready = []
        for one in contestants:
            child, job = stack.enter_context(
                serving(
                    one.peer, upstream, session.work, session.cores.proxy, one.paths[0], one.headers
                )
            )
            load.run(job.port, WARM_UP_S, session.cores.load, one.paths, one.headers)
            ready.append((one, child, job))
        for number in range(1, session.rounds + 1):
            for one, child, job in ready:
                reading = _measure(session, one, child, job.port)
                readings[one.peer.name].append(reading)
                session.say(
                    f"  round {number} {one.peer.name}: {reading.cpu_us:.1f} us CPU a request, "
                    f"{reading.per_second:,.0f}/s"
                )
        for one, _, job in ready:
            if one.peer.logs:
                _expect_log(one.peer.name, job.access_log)
    return dict(readings)


def _measure(session: Session, one: Contestant, child: Child, port: int) -> Reading:
    before, beside = child.cpu_seconds(), _cpu_of(one.beside)
    seen = load.run(port, session.seconds, session.cores.load, one.paths, one.headers)
    used, used_beside = child.cpu_seconds() - before, _cpu_of(one.beside) - beside
    if seen.failed or not seen.requests:
        raise RuntimeError(f"{one.peer.name}: {seen.failed} of {seen.requests} requests failed")
    return Reading(
        1e6 * used / seen.requests,
        seen.per_second,
        seen.p50_us,
        seen.p99_us,
        1e6 * used_beside / seen.requests,
    )


def _cpu_of(child: Child | None) -> float:
    return 0.0 if child is None else child.cpu_seconds()


def _expect_log(name: str, access_log: Path) -> None:
    """Make sure that the proxy did write JSON lines; without them the comparison means nothing."""
    with access_log.open("rb") as lines:
        first = lines.readline()
    if not isinstance(json.loads(first or b"null"), dict):
        raise RuntimeError(f"{name} wrote no JSON access log to {access_log}")


def _sample(readings: Sequence[Reading]) -> Sample:
    return Sample(tuple(reading.cpu_us for reading in readings))


def _describe(what: str, readings: Sequence[Reading]) -> Row:
    cpu = _sample(readings)
    rate = Sample(tuple(reading.per_second for reading in readings))
    p50 = Sample(tuple(reading.p50_us for reading in readings))
    p99 = Sample(tuple(reading.p99_us for reading in readings))
    figure = f"{cpu} us CPU a request, {rate.median:,.0f}/s, p99 {p99.median / 1000:.1f} ms"
    return reported(what, figure, cpu_us=cpu, per_second=rate, p50_us=p50, p99_us=p99)


def _against(session: Session, readings: dict[str, list[Reading]], name: str, limit: float) -> Row:
    what = PLAIN.format(name)
    if name not in readings:
        return not_judged(what, f"<= {limit} x", session.peers[name].missing)
    ours, theirs = _sample(readings["lockgate"]), _sample(readings[name])
    return at_most(what, ours.median / theirs.median, limit, " x", ours_us=ours, theirs_us=theirs)


def _against_httpx(session: Session, readings: dict[str, list[Reading]]) -> Row:
    name = "starlette+httpx"
    what = f"proxied GET: times less CPU than {name}"
    must = f">= {TIMES_LESS_THAN_HTTPX} x"
    if name not in readings:
        return not_judged(what, must, session.peers[name].missing)
    ours, theirs = _sample(readings["lockgate"]), _sample(readings[name])
    times = theirs.median / ours.median
    verdict: Verdict = "ok" if times >= TIMES_LESS_THAN_HTTPX else "MISSED"
    return Row(what, must, f"{times:.0f} x", verdict, {"ours_us": ours, "theirs_us": theirs})
