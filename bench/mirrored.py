"""What clients notice of a mirror that is dead: every request copied, nobody there.

The same load as everywhere, at saturation, in alternating rounds: without a mirror, with one whose
port is closed, and with one that accepts and never answers.
"""

from __future__ import annotations

from bench import load, processes
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import serving
from bench.report import Row, Sample, at_most, not_judged
from bench.resilience import stub
from bench.session import Session
from bench.throughput import WARM_UP_S

# What counts as unchanged: neighbouring readings of the plain proxy differ by as much.
UNCHANGED = 1.1


def measure(session: Session) -> list[Row]:
    """Latency beside the plain proxy, and errors."""
    if reason := session.missing():
        return [not_judged("mirror", "see README", reason)]
    with session.upstream() as upstream, stub(session, "stall") as silent:
        mirrors = {"plain": 0, "dead": processes.free_port(), "silent": silent}
        runs: dict[str, list[load.Load]] = {name: [] for name in mirrors}
        for _ in range(session.rounds):
            for name, port in mirrors.items():
                peer = lockgate.peer(Setup(mirror=port), f"lockgate-mirror-{name}")
                with serving(peer, upstream, session.work, session.cores.proxy) as (_, job):
                    load.run(job.port, WARM_UP_S, session.cores.load)
                    runs[name].append(load.run(job.port, session.seconds, session.cores.load))
    return [row for name in ("dead", "silent") for row in _rows(name, runs[name], runs["plain"])]


def _rows(name: str, runs: list[load.Load], plain: list[load.Load]) -> list[Row]:
    one, two = (Sample(tuple(each.p99_us for each in given)) for given in (plain, runs))
    failed = sum(each.failed for each in runs)
    what = f"every request copied to a {name} mirror"
    return [
        at_most(f"{what}: p99 against none", two.median / one.median, UNCHANGED, " x",
                plain_us=one, mirrored_us=two),
        at_most(f"{what}: failed requests", failed, 0, ""),
    ]  # fmt: skip
