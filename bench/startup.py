"""From start to ready, idle memory, and what loading many routes takes."""

from __future__ import annotations

import time

from bench import processes
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import Job
from bench.report import Row, Sample, at_most
from bench.session import Session

READY_S = 1.0
IDLE_MB = 60
LOAD_S = 5.0
ROUTES = 10_000
SETTLE_S = 1.0


def measure(session: Session) -> list[Row]:
    """A cold start with one route, and one with 10,000. Needs no peer and no load."""
    usual = [_start(session, Setup()) for _ in range(session.rounds)]
    many = [_start(session, Setup(routes=ROUTES)) for _ in range(min(3, session.rounds))]
    ready = Sample(tuple(seconds for seconds, _ in usual))
    idle = Sample(tuple(megabytes for _, megabytes in usual))
    loading = Sample(tuple(seconds for seconds, _ in many))
    session.say(f"  ready after {ready} s, {idle} MB idle; with {ROUTES:,} routes {loading} s")
    return [
        at_most("start to ready", ready.median, READY_S, " s", seconds=ready),
        at_most("idle memory, one process", idle.median, IDLE_MB, " MB", megabytes=idle),
        at_most(f"start to ready with {ROUTES:,} routes", loading.median, LOAD_S, " s",
                seconds=loading, megabytes=Sample(tuple(mb for _, mb in many))),
    ]  # fmt: skip


def _start(session: Session, setup: Setup) -> tuple[float, float]:
    """Seconds until it says that it is ready, and megabytes a moment later."""
    work = session.work / "start"
    work.mkdir(parents=True, exist_ok=True)
    job = Job(processes.free_port(), processes.free_port(), work, work / "access.log")
    command = lockgate.peer(setup).prepare(job)
    admin = lockgate.admin_port(job)
    began = time.monotonic()
    child = processes.start(
        "lockgate",
        command.argv,
        cores=session.cores.proxy,
        log=work / "errors.log",
        environ=command.environ,
    )
    with processes.running(child, lambda: processes.http_status(admin, "/readyz") == 200):
        seconds = time.monotonic() - began
        time.sleep(SETTLE_S)
        return seconds, child.resident_bytes() / 1e6
