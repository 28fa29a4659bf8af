"""Who calls and how often: the edge beside Envoy's, the limit's own share, a million callers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.peers import envoy, lockgate
from bench.peers.edge import make_edge
from bench.peers.lockgate import Setup
from bench.report import Row, Sample, at_most, not_judged, reported
from bench.session import Session
from bench.store import running_store, used_bytes
from bench.throughput import Contestant, Reading, alternate
from gateway.config import later

EDGE = "JWT + limit in the store + log: CPU against Envoy's with its local limit"
EDGE_LIMIT = 0.8
SHARE = "the limit's share, 32 requests at once"
SHARE_US = 10
DIFFERENCE = "the same, as the difference of two gateways over HTTP"
DECISIONS = 100_000
CONSUMERS = 1_000_000
MEMORY = f"{CONSUMERS:,} consumers with limits: the gateway's memory grows"
MEMORY_MIB = 8


def measure(session: Session) -> list[Row]:
    """All three."""
    return [*_edge(session), *_share(session), *_memory(session)]


def _edge(session: Session) -> list[Row]:
    must = f"<= {EDGE_LIMIT} x"
    if reason := session.missing("envoy"):
        return [not_judged(EDGE, must, reason)]
    if "auth" in later.POLICIES:
        return [not_judged(EDGE, must, "this version has no authentication")]
    edge = make_edge()
    with running_store(session.work / "store", session.cores.load) as (store, path):
        contestants = [
            Contestant(
                lockgate.peer(Setup(store=str(path), edge=edge), "lockgate-edge"),
                headers=(edge.header,),
                beside=store,
            ),
            Contestant(envoy.peer(session.venv, edge, "envoy-edge"), headers=(edge.header,)),
        ]
        readings = alternate(session, contestants)
    ours, theirs = (_cpu(readings[one.peer.name]) for one in contestants)
    return [
        at_most(
            EDGE, ours.median / theirs.median, EDGE_LIMIT, " x", ours_us=ours, theirs_us=theirs
        ),
        reported("the same: CPU a request", f"Lockgate {ours} us, Envoy {theirs} us"),
        _beside(readings["lockgate-edge"]),
    ]


def _share(session: Session) -> list[Row]:
    if reason := session.missing():
        return [not_judged(SHARE, f"<= {SHARE_US} us", reason)]
    with running_store(session.work / "store", session.cores.load) as (store, path):
        contestants = [
            Contestant(lockgate.peer(Setup(), "lockgate-without")),
            Contestant(lockgate.peer(Setup(store=str(path)), "lockgate-limited"), beside=store),
        ]
        readings = alternate(session, contestants)
    without, limited = (readings[one.peer.name] for one in contestants)
    # Round by round, because what else the machine does changes both alike.
    shares = Sample(
        tuple(with_.cpu_us - none.cpu_us for none, with_ in zip(without, limited, strict=True))
    )
    decided = _decisions(session)
    return [
        at_most(SHARE, decided.median, SHARE_US, " us", decided_us=decided),
        reported(DIFFERENCE, f"{shares} us", shares_us=shares,
                 without_us=_cpu(without), limited_us=_cpu(limited)),
        _beside(limited),
    ]  # fmt: skip


def _decisions(session: Session) -> Sample:
    """CPU of the policy and the store's client, in a process that does nothing else."""
    with running_store(session.work / "store", session.cores.load) as (_, path):
        config = _config(session, path, "1000000/s")
        rounds = [_consumers(session, config, DECISIONS) for _ in range(session.rounds)]
    return Sample(tuple(1e6 * (each["cpu"] - each["bare"]) / DECISIONS for each in rounds))


def _config(session: Session, store: Path, rate: str) -> Path:
    """The configuration of a gateway with nothing but this limit."""
    folder = session.work / "consumers"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "gateway.yaml"
    config.write_text(
        f"""\
version: 1
store: {{url: "unix://{store}", timeout: 10s}}
telemetry: {{access_log: null}}
routes:
  - name: bench
    match: {{path: /item}}
    respond: {{status: 204}}
    rate_limit: {{rate: {rate}, per: consumer}}
"""
    )
    return config


def _memory(session: Session) -> list[Row]:
    with running_store(session.work / "store", session.cores.load) as (_, path):
        empty = used_bytes(path)
        figures = _consumers(session, _config(session, path, "24/1d"), CONSUMERS)
        stored = used_bytes(path) - empty
    if figures["errors"] or figures["passed"] != CONSUMERS:
        raise RuntimeError(f"not every consumer was let through by the store: {figures}")
    grown = (figures["after"] - figures["before"]) / 1024
    each = stored / CONSUMERS
    return [
        at_most(MEMORY, grown, MEMORY_MIB, " MiB", **figures),
        reported("the same: memory of the store", f"{each:.0f} bytes a consumer"),
    ]


def _consumers(session: Session, config: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.consumers", str(config), str(count)]
    pinned = ["taskset", "-c", ",".join(map(str, sorted(session.cores.proxy)))]
    finished = subprocess.run([*pinned, *command], check=False, capture_output=True, timeout=300)
    if finished.returncode:
        raise RuntimeError(finished.stderr.decode()[-2000:])
    figures: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    session.say(f"  {figures['seconds']:.0f} s")
    return figures


def _cpu(readings: list[Reading]) -> Sample:
    return Sample(tuple(reading.cpu_us for reading in readings))


def _beside(readings: list[Reading]) -> Row:
    used = Sample(tuple(reading.beside_us for reading in readings))
    return reported("the same: CPU of the store, a request", f"{used} us", store_us=used)
