"""What an answer from the cache costs, against fetching it from the upstream."""

from __future__ import annotations

from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.report import Row, Sample, at_most, not_judged, reported
from bench.session import Session
from bench.throughput import Contestant, alternate

LIMIT = 0.6
WHAT = "cache hit from memory against proxying it"


def measure(session: Session) -> list[Row]:
    """The same requests to the same gateway with and without a cache, in alternating rounds."""
    if reason := session.missing():
        return [not_judged(WHAT, f"<= {LIMIT} x", reason)]
    contestants = [
        Contestant(lockgate.peer(Setup(), "lockgate")),
        Contestant(lockgate.peer(Setup(cached=True), "lockgate-cached")),
    ]
    readings = alternate(session, contestants)
    proxied, cached = (
        Sample(tuple(reading.cpu_us for reading in readings[name]))
        for name in ("lockgate", "lockgate-cached")
    )
    share = cached.median / proxied.median
    return [
        at_most(WHAT, share, LIMIT, " x", cached_us=cached, proxied_us=proxied),
        reported("cache hit from memory", f"{cached} us CPU a request", cached_us=cached),
    ]
