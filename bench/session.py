"""What all measurements of one run share: cores, peers, the upstream, how long and how often."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import load, processes
from bench.peers import caddy, envoy, httpx_proxy, lockgate, nginx
from bench.peers.peer import Peer
from bench.processes import Cores


@dataclass(frozen=True)
class Session:
    """`rounds` and `seconds` trade time for steadiness: BENCH_ROUNDS, BENCH_SECONDS."""

    cores: Cores
    work: Path
    venv: Path
    peers: dict[str, Peer]
    rounds: int
    seconds: float
    gigabyte: int
    idle_connections: int

    @classmethod
    def begin(cls, work: Path, venv: Path) -> Session:
        """Look at what is installed; nothing is started yet."""
        found = [
            lockgate.peer(),
            nginx.peer(),
            envoy.peer(venv),
            caddy.peer(venv),
            httpx_proxy.peer(venv),
        ]
        env = os.environ
        return cls(
            cores=Cores.pick(),
            work=work,
            venv=venv,
            peers={peer.name: peer for peer in found},
            rounds=int(env.get("BENCH_ROUNDS") or 5),
            seconds=float(env.get("BENCH_SECONDS") or 4),
            gigabyte=int(env.get("BENCH_BODY_BYTES") or 1 << 30),
            idle_connections=int(env.get("BENCH_IDLE_CONNECTIONS") or 10_000),
        )

    def missing(self, *names: str) -> str:
        """Why something that a measurement needs is not there, or the empty string."""
        reasons = [load.missing(), self.peers["nginx"].missing]  # nginx is the upstream as well
        reasons += [self.peers[name].missing for name in names]
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason))

    @contextmanager
    def upstream(self) -> Iterator[int]:
        """An nginx answering 1 KB of JSON, on the load's core; its port."""
        port = processes.free_port()
        work = self.work / "upstream"
        command = nginx.upstream_command(port, work)
        child = processes.start("upstream", command.argv, cores=self.cores.load, log=work / "log")
        with processes.running(child, lambda: processes.http_status(port, "/item") == 200):
            yield port

    def say(self, text: str) -> None:
        """Progress, for somebody who watches."""
        print(text, flush=True)
