"""The load generator: wrk, with its figures as numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Child, start

SCRIPT = Path(__file__).with_name("load.lua")
CONNECTIONS = 32


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. `failed` counts every answer but 2xx and 3xx, and every broken
    connection and time-out.
    """

    requests: int
    seconds: float
    failed: int
    p50_us: int
    p99_us: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def missing() -> str:
    """Why there can be no load, or the empty string."""
    return "" if shutil.which("wrk") else "wrk is not installed (Debian package wrk)"


def run(
    port: int,
    seconds: float,
    cores: frozenset[int],
    paths: Sequence[str] = ("/item",),
    headers: Sequence[str] = (),
    *,
    body: str = "",
    connections: int = CONNECTIONS,
) -> Load:
    """Keep connections busy for that long, and wait for the end. `headers` are lines.

    With a `body` it is posted.
    """
    command = _command(port, seconds, cores, paths, headers, body=body, connections=connections)
    finished = subprocess.run(command, check=True, capture_output=True, timeout=seconds + 30)
    return parse(finished.stdout.decode())


def begin(
    port: int, seconds: float, cores: frozenset[int], log: Path, *, path: str = "/item"
) -> Child:
    """The same in the background; `parse` the log once it has ended."""
    return start("wrk", _command(port, seconds, cores, (path,)), cores=cores, log=log)


def parse(output: str) -> Load:
    """The figures in what wrk printed; ValueError if it printed none."""
    line = next((line for line in output.splitlines() if line.startswith("{")), "")
    if not line:
        raise ValueError(f"wrk printed no figures: {output.strip()[-500:]}")
    figures = json.loads(line)
    failed = sum(figures[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    return Load(
        figures["requests"],
        figures["microseconds"] / 1e6,
        failed,
        figures["p50_us"],
        figures["p99_us"],
    )


def _command(
    port: int,
    seconds: float,
    cores: frozenset[int],
    paths: Sequence[str],
    headers: Sequence[str] = (),
    *,
    body: str = "",
    connections: int = CONNECTIONS,
) -> list[str]:
    pinned = ["taskset", "-c", ",".join(map(str, sorted(cores)))]
    shape = [
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{max(1, round(seconds))}s",
        "--timeout",
        "10s",
    ]
    return [
        *pinned,
        "wrk",
        *shape,
        *(part for line in headers for part in ("-H", line)),
        "-s",
        str(SCRIPT),
        f"http://127.0.0.1:{port}/item",
        "--",
        body,
        *paths,
    ]
