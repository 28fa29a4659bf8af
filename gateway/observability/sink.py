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
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

PIPE_BUF: Final = select.PIPE_BUF
_FILE_CHUNK: Final = 1 << 20
_RETRY_MIN_S: Final = 0.001
_RETRY_MAX_S: Final = 0.032
MAX_BUFFERED: Final = 4 << 20


class Writer(Protocol):
    """Where bytes go. `chunk` is the most that should be given to one `write`."""

    @property
    def chunk(self) -> int: ...

    def write(self, data: bytes) -> int:
        """Write without blocking and return how much went out. Raises OSError, BlockingIOError."""
        ...

    def close(self, timeout: float) -> None:
        """Let go, at most `timeout` seconds after being asked. May block for that long."""
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
        descriptor, self._descriptor = self._descriptor, -1  # its number may soon be another's
        if self._owned and descriptor >= 0:
            os.close(descriptor)


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
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        try:
            self._queue.put_nowait(data)
        except queue.Full:
            raise BlockingIOError from None
        return len(data)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                self._error = error  # told to the next write, which is dropped in this one's place

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
    """Writes blocks of whole lines and keeps what a slow reader can't take yet.

    Up to `max_buffered` bytes wait; lines that come then are dropped. What can't be written at all,
    on a full disk or into a closed pipe, is dropped as well. `on_dropped` is told how many.
    """

    def __init__(
        self,
        writer: Writer,
        on_dropped: Callable[[int], None],
        max_buffered: int = MAX_BUFFERED,
    ) -> None:
        self._writer = writer
        self._drop = on_dropped
        self._max = max_buffered
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._rest = b""  # of a line that went out in part: must go first, whatever is dropped
        self._retry: asyncio.TimerHandle | None = None
        self._pause = _RETRY_MIN_S

    def write(self, block: bytes) -> None:
        """Take whole lines, each with its line end. Must be called on the event loop's thread."""
        idle = not self._waiting and not self._rest
        if idle and len(block) <= self._writer.chunk and self._attempt(block):
            self._plan()  # nearly always nothing: all went out in one call
            return
        self._keep(block)
        if self._retry is None:
            self._drain()
            self._plan()

    def _keep(self, block: bytes) -> None:
        for line in block.splitlines(keepends=True):
            if self._waiting_bytes + len(line) > self._max:
                self._drop(1)
            else:
                self._waiting.append(line)
                self._waiting_bytes += len(line)

    def _plan(self) -> None:
        if self._retry is None and (self._waiting or self._rest):
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._again)

    def _again(self) -> None:
        self._retry = None
        before = self._waiting_bytes + len(self._rest)
        self._drain()
        # Soon if the reader reads, or a backlog would limit what goes through for ever.
        stuck = self._waiting_bytes + len(self._rest) == before
        self._pause = min(self._pause * 2, _RETRY_MAX_S) if stuck else _RETRY_MIN_S
        self._plan()

    def _drain(self) -> None:
        """Write what waits until it is gone or the reader is slow again."""
        while self._rest or self._waiting:
            if self._rest:
                rest = self._rest
                if self._attempt(rest) < len(rest):
                    return
                continue
            lines, size = self._next_batch()
            if not self._attempt(b"".join(lines)):
                self._waiting.extendleft(reversed(lines))
                self._waiting_bytes += size
                return

    def _next_batch(self) -> tuple[list[bytes], int]:
        """Take as many waiting lines as one write may carry, at least one, and their size."""
        lines: list[bytes] = []
        size = 0
        while self._waiting:
            more = len(self._waiting[0])
            if lines and size + more > self._writer.chunk:
                break
            lines.append(self._waiting.popleft())
            size += more
        self._waiting_bytes -= size
        return lines, size

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
            self._drop(data.count(b"\n"))
            self._rest = b""
            return len(data)
        if written:
            self._rest = data[written:]
        return written

    def replace(self, writer: Writer) -> None:
        """Go on with another writer, for log rotation; the old one is closed."""
        self._drain()
        if self._rest:  # the old file holds its beginning; the new one shall not begin with its end
            self._rest = b""
            self._drop(1)
        old, self._writer = self._writer, writer
        old.close(0.0)
        self._plan()

    async def aclose(self, within: float) -> None:
        """Write what is left, waiting at most `within` seconds for a slow reader, and let go.

        Safe to call twice.
        """
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        until = time.monotonic() + within
        self._drain()
        while (self._waiting or self._rest) and time.monotonic() < until:
            await asyncio.sleep(_RETRY_MIN_S * 5)
            self._drain()
        left = len(self._waiting) + bool(self._rest)
        if left:
            self._drop(left)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._rest = b""
        await asyncio.to_thread(self._writer.close, max(0.0, until - time.monotonic()))
