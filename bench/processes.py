"""Child processes of a measurement: started pinned, accounted from /proc, stopped for sure.

Knows nothing of proxies or of load; Linux only, because /proc is where the figures come from.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OPEN_FILES = 65_536
START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
# Handed out one after another; two measurements at once begin at different places.
_PORTS = iter(range(20_000 + os.getpid() % 8_000, 32_000))


@dataclass(frozen=True)
class Cores:
    """Who runs where. With two cores, load generator and upstream share the second."""

    proxy: frozenset[int]
    load: frozenset[int]

    @classmethod
    def pick(cls) -> Cores:
        """The first two cores that this process may use; RuntimeError if it has only one."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise RuntimeError("a measurement needs two cores: one for the proxy, one for the load")
        return cls(frozenset(usable[:1]), frozenset(usable[1:2]))

    @property
    def all(self) -> frozenset[int]:
        return self.proxy | self.load


class Child:
    """One started process and everything that it starts itself."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        """User and system time of the whole process tree so far."""
        return sum(_cpu_ticks(pid) for pid in process_tree(self.pid)) / TICKS_PER_S

    def resident_bytes(self) -> int:
        """Resident memory of the whole tree; shared pages count in every process."""
        return sum(_status_kib(pid, "VmRSS") for pid in process_tree(self.pid)) * 1024

    def peak_bytes(self) -> int:
        """Highest resident memory of the tree's processes since `reset_peak`."""
        return sum(_status_kib(pid, "VmHWM") for pid in process_tree(self.pid)) * 1024

    def reset_peak(self) -> None:
        """Let the peak start at what is resident now (proc(5): clear_refs, 5)."""
        for pid in process_tree(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """The end of what it printed, for a message about why it failed."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-2000:].decode(errors="replace").strip()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for the whole session if that takes too long."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    cores: frozenset[int],
    log: Path,
    environ: Mapping[str, str] | None = None,
    stdout: Path | None = None,
) -> Child:
    """Start a process in a session of its own, pinned, with many open files allowed.

    What it prints goes to `log`; its standard output goes to `stdout` instead if given.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors, (stdout or log).open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | dict(environ or {}),
            start_new_session=True,
            preexec_fn=lambda: _prepare(cores),  # noqa: PLW1509  no threads here
        )
    return Child(name, process, log)


@contextmanager
def running(child: Child, ready: Callable[[], bool]) -> Iterator[Child]:
    """The child for the length of a block: ready when it begins, gone when it ends."""
    try:
        wait_until(ready, child)
        yield child
    finally:
        child.stop()


def wait_until(ready: Callable[[], bool], child: Child, every_s: float = 0.005) -> float:
    """Wait for `ready`; seconds that took. RuntimeError if the child ends or takes too long."""
    began = time.monotonic()
    while not ready():
        if not child.alive():
            raise RuntimeError(f"{child.name} ended while starting: {child.last_words()}")
        if time.monotonic() - began > START_WITHIN_S:
            raise RuntimeError(
                f"{child.name} was not ready in {START_WITHIN_S:.0f} s: {child.last_words()}"
            )
        time.sleep(every_s)
    return time.monotonic() - began


def http_status(
    port: int, path: str, headers: Sequence[str] = (), *, timeout_s: float = 2.0
) -> int:
    """The status of one GET on loopback, or 0 if there was no answer. `headers` are lines."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    request = "\r\n".join([*lines, "", ""])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(request.encode())
            head = connection.recv(64)
    except OSError:
        return 0
    return int(head[9:12]) if head.startswith(b"HTTP/1.") and head[9:12].isdigit() else 0


def free_port() -> int:
    """A port of loopback that nobody listens on, another one at each call.

    It lies below those that the system gives to outgoing connections (ip(7): ip_local_port_range),
    so that no client of a running measurement can take it before its server does.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port that a measurement may use is taken")


def process_tree(root: int) -> list[int]:
    """The process and its descendants that are alive now."""
    children: dict[int, list[int]] = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        fields = _stat_fields(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name: state, ppid, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _cpu_ticks(pid: int) -> int:
    fields = _stat_fields(pid)
    # proc(5): utime and stime are fields 14 and 15 of the line, 11 and 12 behind the name.
    return int(fields[11]) + int(fields[12]) if fields else 0


def resident_kib() -> int:
    """Resident memory of this process."""
    return _status_kib(os.getpid(), "VmRSS")


def _status_kib(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def _prepare(cores: frozenset[int]) -> None:
    """In the child, before it becomes the program."""
    os.sched_setaffinity(0, cores)
    raise_open_files()


def raise_open_files() -> None:
    """Allow this process many open files, as far as the hard limit lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
