"""What an idle keep-alive connection costs in memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import load
from bench.peers.peer import Peer, serving
from bench.report import Row, at_most, not_judged, reported
from bench.session import Session

LIMIT_KB = 12
SETTLE_S = 1.0
HOLD = Path(__file__).with_name("hold.py")


def measure(session: Session) -> list[Row]:
    """Ours against the limit; nginx and Envoy beside it, if they are here."""
    count = session.idle_connections
    what = f"{count:,} idle connections: each"
    if reason := session.missing():
        return [not_judged(what, f"<= {LIMIT_KB} KB", reason)]
    rows = []
    with session.upstream() as upstream:
        for name in ("lockgate", "nginx", "envoy"):
            peer = session.peers[name]
            if peer.missing:
                continue
            each = _each_kb(session, peer, upstream)
            session.say(f"  {name}: {each:.2f} KB a connection")
            if name == "lockgate":
                rows.append(at_most(what, each, LIMIT_KB, " KB"))
            else:
                rows.append(reported(f"{what}, {name}", f"{each:.2f} KB"))
    return rows


def _each_kb(session: Session, peer: Peer, upstream: int) -> float:
    count = session.idle_connections
    with serving(peer, upstream, session.work, session.cores.proxy) as (child, job):
        load.run(job.port, 1, session.cores.load)
        time.sleep(SETTLE_S)
        before = child.resident_bytes()
        cores = ",".join(map(str, sorted(session.cores.load)))
        client = subprocess.Popen(
            ["taskset", "-c", cores, sys.executable, str(HOLD), str(job.port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert client.stdout is not None
            if client.stdout.readline().strip() != f"held {count}".encode():
                raise RuntimeError(f"{peer.name} did not hold {count} connections")
            time.sleep(SETTLE_S)
            return (child.resident_bytes() - before) / 1000 / count
        finally:
            client.communicate(timeout=30)
