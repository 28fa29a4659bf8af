"""A store for measurements: a Valkey of its own, so that its CPU and memory are seen apart."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from bench.processes import Child
from gateway.store.engine import find_binary


@contextmanager
def running_store(work: Path, cores: frozenset[int]) -> Iterator[tuple[Child, Path]]:
    """The server for the length of a block, and its socket. Nothing is written to disk."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "store.sock"
    path.unlink(missing_ok=True)
    command: list[str | Path] = [
        find_binary(),
        "--port",
        "0",
        "--unixsocket",
        path,
        "--save",
        "",
        "--dir",
        work,
    ]
    child = processes.start("store", command, cores=cores, log=work / "log")
    with processes.running(child, lambda: _answers(path)):
        yield child, path


def ask(path: Path, command: str) -> bytes:
    """The reply to one inline command, as it came."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(command.encode("ascii") + b"\r\n")
        return connection.recv(65_536)


def used_bytes(path: Path) -> int:
    """What the server says its data takes."""
    for line in ask(path, "INFO memory").splitlines():
        if line.startswith(b"used_memory:"):
            return int(line.partition(b":")[2])
    raise RuntimeError("the store does not say how much memory it uses")


def _answers(path: Path) -> bool:
    try:
        return ask(path, "PING").startswith(b"+PONG")
    except OSError:
        return False
