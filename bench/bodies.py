"""One gigabyte up and one down: how much memory grows, and how fast it goes beside nginx."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import serving
from bench.processes import Child
from bench.report import Row, Sample, at_least, at_most, not_judged
from bench.session import Session

HERE = Path(__file__).parent
GROWTH_MB = 16
SHARE_OF_NGINX = 0.5
ROUNDS = 3
MB = 1e6


def measure(session: Session) -> list[Row]:
    """Memory and throughput for both directions."""
    rows = []
    for direction in ("down", "up"):
        if reason := session.missing("nginx"):
            rows.append(not_judged(f"1 GB {direction}", "see README", reason))
        else:
            rows += _one_way(session, direction)
    return rows


def _one_way(session: Session, direction: str) -> list[Row]:
    growth: dict[str, list[float]] = defaultdict(list)
    speed: dict[str, list[float]] = defaultdict(list)
    path = "/big/body" if direction == "down" else "/upload"
    peers = [lockgate.peer(Setup(timeout="600s")), session.peers["nginx"]]
    with _upstream(session, direction) as upstream:
        for number in range(min(ROUNDS, session.rounds)):
            for peer in peers:
                with serving(peer, upstream, session.work, session.cores.proxy) as (child, job):
                    grown, seconds = _transfer(session, child, direction, job.port, path)
                growth[peer.name].append(grown)
                speed[peer.name].append(session.gigabyte / MB / seconds)
                session.say(
                    f"  round {number + 1} {peer.name} {direction}: "
                    f"{speed[peer.name][-1]:,.0f} MB/s, "
                    f"memory +{grown:.1f} MB"
                )
    ours, theirs = Sample(tuple(speed["lockgate"])), Sample(tuple(speed["nginx"]))
    grown_mb = Sample(tuple(growth["lockgate"]))
    size = f"{session.gigabyte / (1 << 30):g} GB"
    return [
        at_most(f"{size} {direction}: memory growth", max(grown_mb.readings), GROWTH_MB, " MB",
                ours=grown_mb, nginx=Sample(tuple(growth["nginx"]))),
        at_least(f"{size} {direction}: throughput against nginx", ours.median / theirs.median,
                 SHARE_OF_NGINX, " x", ours_mb_per_s=ours, nginx_mb_per_s=theirs),
    ]  # fmt: skip


@contextmanager
def _upstream(session: Session, direction: str) -> Iterator[int]:
    """An nginx with a large sparse file to fetch, or the sink for uploads."""
    if direction == "down":
        folder = session.work / "upstream" / "big"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "body").open("wb") as sparse:
            sparse.truncate(session.gigabyte)
        with session.upstream() as port:
            yield port
        return
    port = processes.free_port()
    command = [sys.executable, str(HERE / "sink.py"), str(port)]
    child = processes.start(
        "sink", command, cores=session.cores.load, log=session.work / "sink.log"
    )
    with processes.running(child, lambda: processes.http_status(port, "/item") == 200):
        yield port


def _transfer(
    session: Session, child: Child, direction: str, port: int, path: str
) -> tuple[float, float]:
    """Megabytes that memory grew by at its highest, and seconds."""
    child.reset_peak()
    before = child.resident_bytes()
    client = ["taskset", "-c", ",".join(map(str, sorted(session.cores.load))), sys.executable]
    client += [str(HERE / "transfer.py"), direction, str(port), path, str(session.gigabyte)]
    finished = subprocess.run(client, check=False, capture_output=True, timeout=180)
    if finished.returncode:
        why = finished.stderr.decode().strip().splitlines()[-1:]
        raise RuntimeError(f"{child.name} {direction}: {' '.join(why)}")
    return (child.peak_bytes() - before) / MB, float(finished.stdout)
