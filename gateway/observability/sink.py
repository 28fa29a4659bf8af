"""Lines to a file descriptor, without ever blocking the event loop.

Owns the buffer, the writing and the dropping; knows nothing of what a line says. A line is either
written whole or dropped whole and counted. A pipe shared by several processes gets writes of at
most PIPE_BUF bytes, which the kernel keeps in one piece.

`O_NONBLOCK` belongs to the open file description, which stdout shares with the parent process and
with every other child of it: setting it there would break them. So a pipe or terminal is opened a
second time through /proc, which makes a description of our own; where that can't be done a thread
does the writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import socket
import stat
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final, Protocol

PIPE_BUF: Final = select.PIPE_BUF
_FILE_CHUNK: Final = 1 << 20
_RETRY_S: Final = 0.02
MAX_BUFFERED: Final = 4 << 20


class Writer(Protocol):
    """Where bytes go. `chunk` is the most that should be given to one `write`."""

    chunk: int

    def write(self, data: bytes) -> int:
        """Write without blocking and return how much went out. Raises OSError, BlockingIOError."""
        ...

    def close(self, timeout: float) -> None:
        """Let go, at most `timeout` seconds after being asked."""
        ...


class DescriptorWriter:
    """A descriptor that never blocks: a file, or a description of our own with O_NONBLOCK."""

    def __init__(self, descriptor: int, chunk: int, owned: bool) -> None:
        self.chunk = chunk
        self._descriptor = descriptor
        self._owned = owned

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self, timeout: float) -> None:
        if self._owned:
            os.close(self._descriptor)


class SocketWriter:
    """A stream socket as stdout: one call can be told not to block."""

    chunk = _FILE_CHUNK

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self, timeout: float) -> None:
        self._socket.close()


class ThreadWriter:
    """A descriptor that may block, written by a thread of its own. Holds 64 writes at most."""

    chunk = PIPE_BUF

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        try:
            self._queue.put_nowait(data)
        except queue.Full:
            raise BlockingIOError from None
        return len(data)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            with contextlib.suppress(OSError):  # a closed pipe: nobody is there to be told
                while data:
                    data = data[os.write(self._descriptor, data) :]

    def close(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
            self._thread.join(max(0.0, until - time.monotonic()))


def writer_for(descriptor: int) -> Writer:
    """The writer that suits an inherited descriptor, such as 1 or 2."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return DescriptorWriter(descriptor, _FILE_CHUNK, owned=False)
    if stat.S_ISSOCK(mode):
        return SocketWriter(descriptor)
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return ThreadWriter(descriptor)
    return DescriptorWriter(own, PIPE_BUF, owned=True)


def open_path(path: Path) -> Writer:
    """Append to a file, which is made if it is not there. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o640)
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return DescriptorWriter(descriptor, _FILE_CHUNK if regular else PIPE_BUF, owned=True)


class LineSink:
    """Collects the lines of one turn of the event loop and writes them together.

    When the reader is slow, up to `max_buffered` bytes wait; lines that come then are dropped and
    counted in `dropped`. A disk that is full drops what could not be written.
    """

    def __init__(self, writer: Writer, max_buffered: int = MAX_BUFFERED) -> None:
        self._writer = writer
        self._max = max_buffered
        self._fresh: list[bytes] = []
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._rest = b""  # of a line that went out in part: must go first, whatever is dropped
        self._retry: asyncio.TimerHandle | None = None
        self._scheduled = False
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Take a line, without its line end. Must be called on the event loop."""
        self._fresh.append(line)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        lines = self._fresh
        self._fresh = []
        if not self._waiting and not self._rest:
            data = b"\n".join(lines) + b"\n"
            if len(data) <= self._writer.chunk:
                # Nearly always: everything in one call, and nothing to remember.
                if self._attempt(data) == len(data):
                    return
                if not self._rest:
                    self._keep(lines)
                self._plan()
                return
        self._keep(lines)
        if self._retry is None:
            self._drain()
            self._plan()

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            size = len(line) + 1
            if self._waiting_bytes + size > self._max:
                self.dropped += 1
            else:
                self._waiting.append(line)
                self._waiting_bytes += size

    def _plan(self) -> None:
        if self._waiting or self._rest:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._again)

    def _again(self) -> None:
        self._retry = None
        self._drain()
        self._plan()

    def _drain(self) -> None:
        """Write what waits until it is gone or the reader is slow again."""
        while self._rest or self._waiting:
            if self._rest:
                rest = self._rest
                if self._attempt(rest) < len(rest):
                    return
                continue
            batch, size = 0, 0
            for line in self._waiting:
                if batch and size + len(line) + 1 > self._writer.chunk:
                    break
                batch += 1
                size += len(line) + 1
            lines = [self._waiting[position] for position in range(batch)]
            if not self._attempt(b"\n".join(lines) + b"\n"):
                return
            for _ in range(batch):
                self._waiting.popleft()
            self._waiting_bytes -= size

    def _attempt(self, data: bytes) -> int:
        """Write, and remember in `_rest` what is left of data that went out in part.

        Returns 0 if nothing went out and it is worth trying again. What failed for good is counted
        as dropped and reported as written.
        """
        try:
            written = self._writer.write(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.dropped += data.count(b"\n")
            self._rest = b""
            return len(data)
        self._rest = data[written:]
        return written

    def replace(self, writer: Writer) -> None:
        """Go on with another writer, for log rotation; the old one is closed."""
        self._finish(0.0)
        old, self._writer = self._writer, writer
        old.close(0.0)

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, waiting at most `timeout` seconds for a slow reader, and let go."""
        self._finish(timeout)
        left = len(self._waiting) + bool(self._rest)
        self.dropped += left
        self._waiting.clear()
        self._rest = b""
        self._writer.close(timeout)

    def _finish(self, timeout: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._keep(self._fresh)
        self._fresh = []
        until = time.monotonic() + timeout
        self._drain()
        while (self._waiting or self._rest) and time.monotonic() < until:
            time.sleep(0.005)
            self._drain()
