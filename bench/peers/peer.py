"""What a peer is: a name, and how to start it for a given job.

One module beside this one for each proxy. All of them do the same work: pass every request to one
upstream over kept-alive connections, make a correlation ID, write a JSON access log into a file,
stream bodies both ways, with one worker.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import processes
from bench.processes import Child


@dataclass(frozen=True)
class Job:
    """What is asked of a proxy: listen here, pass on to there, keep files in `work`."""

    port: int
    upstream_port: int
    work: Path
    access_log: Path


@dataclass(frozen=True)
class Command:
    """How to start it. `stdout` is where standard output goes, if not to the log."""

    argv: Sequence[str | Path]
    environ: Mapping[str, str] = field(default_factory=dict)
    stdout: Path | None = None


@dataclass(frozen=True)
class Peer:
    """`prepare` writes the peer's configuration; `missing` says why it can't run here, or "".

    `logs` is False for a peer that writes no access log.
    """

    name: str
    version: str
    missing: str
    prepare: Callable[[Job], Command]
    logs: bool = True


@contextmanager
def serving(
    peer: Peer,
    upstream_port: int,
    work: Path,
    cores: frozenset[int],
    path: str = "/item",
    headers: Sequence[str] = (),
) -> Iterator[tuple[Child, Job]]:
    """The peer in front of the upstream for the length of a block, proved to answer 200."""
    folder = work / peer.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = Job(processes.free_port(), upstream_port, folder, folder / "access.log")
    command = peer.prepare(job)
    child = processes.start(
        peer.name,
        command.argv,
        cores=cores,
        log=folder / "errors.log",
        environ=command.environ,
        stdout=command.stdout,
    )
    with processes.running(child, lambda: processes.http_status(job.port, path, headers) == 200):
        yield child, job
