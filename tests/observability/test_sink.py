"""Writing lines without blocking: real pipes, files and sockets, slow and dead readers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.observability.sink import (
    PIPE_BUF,
    DescriptorWriter,
    LineSink,
    ThreadWriter,
    open_path,
    writer_for,
)

LINE = b'{"n":"' + b"x" * 90 + b'"}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe as small as the kernel allows, so that it is soon full."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BUF)
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


class Dropped:
    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, lines: int) -> None:
        self.lines += lines


def read_all(descriptor: int) -> bytes:
    """What is in the pipe now; the writer's end may still be open."""
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while piece := os.read(descriptor, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data


async def read_until(descriptor: int, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(30):
        while len(data) < size:
            data += read_all(descriptor)
            await asyncio.sleep(0.005)
    return data


async def test_a_full_pipe_drops_whole_lines_and_counts_them(pipe: tuple[int, int]) -> None:
    """Nothing blocks while nobody reads; what is read later is whole lines, and the sum fits."""
    reader, writer = pipe
    dropped = Dropped()
    sink = LineSink(writer_for(writer), dropped, max_buffered=50 * len(LINE))
    for _ in range(1000):
        sink.write(LINE)
    assert dropped.lines > 0
    kept = 1000 - dropped.lines
    assert kept >= 50
    data = await read_until(reader, kept * len(LINE))
    assert data == LINE * kept
    await sink.aclose(1.0)


async def test_a_slow_reader_gets_everything_that_was_kept(pipe: tuple[int, int]) -> None:
    """Lines that wait go out in order once the reader goes on, without a further line to push."""
    reader, writer = pipe
    dropped = Dropped()
    sink = LineSink(writer_for(writer), dropped)
    lines = [b'{"n":%d}\n' % number for number in range(5000)]
    for line in lines:
        sink.write(line)
    assert await read_until(reader, sum(map(len, lines))) == b"".join(lines)
    assert dropped.lines == 0
    await sink.aclose(1.0)


async def test_a_line_larger_than_the_pipe_arrives_whole(pipe: tuple[int, int]) -> None:
    """A line that goes out in parts is finished before anything else, even if lines are dropped."""
    reader, writer = pipe
    dropped = Dropped()
    large = b'"' + b"y" * (4 * PIPE_BUF) + b'"\n'
    sink = LineSink(writer_for(writer), dropped, max_buffered=len(large) + 10)
    sink.write(large)
    for _ in range(500):
        sink.write(LINE)
    assert dropped.lines > 0
    kept = 500 - dropped.lines
    data = await read_until(reader, len(large) + kept * len(LINE))
    assert data == large + LINE * kept
    await sink.aclose(1.0)


def test_the_shared_description_stays_blocking(pipe: tuple[int, int]) -> None:
    """O_NONBLOCK is set on a description of our own, never on the one others share."""
    writer = writer_for(pipe[1])
    assert os.get_blocking(pipe[1])
    assert isinstance(writer, DescriptorWriter)
    writer.close(0)


async def test_a_pipe_that_cannot_be_reopened_gets_a_thread(pipe: tuple[int, int]) -> None:
    """The writer thread takes the blocking; the loop drops when its queue is full."""
    reader, descriptor = pipe
    dropped = Dropped()
    sink = LineSink(ThreadWriter(descriptor), dropped, max_buffered=10 * len(LINE))
    for _ in range(5000):
        sink.write(LINE)
    assert dropped.lines > 0
    kept = 5000 - dropped.lines
    assert await read_until(reader, kept * len(LINE)) == LINE * kept
    await sink.aclose(5.0)


async def test_a_reader_that_left_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    """Writing into a closed pipe raises nothing; every line is counted as dropped."""
    reader, descriptor = pipe
    dropped = Dropped()
    writer = writer_for(descriptor)
    os.close(reader)
    sink = LineSink(writer, dropped)
    sink.write(LINE * 3)
    sink.write(LINE)
    assert dropped.lines == 4
    await sink.aclose(0.1)


async def test_closing_gives_up_on_a_reader_that_never_reads(pipe: tuple[int, int]) -> None:
    """`aclose` returns after its time and counts what was left."""
    reader, descriptor = pipe
    dropped = Dropped()
    sink = LineSink(writer_for(descriptor), dropped)
    for _ in range(200):
        sink.write(LINE)
    assert dropped.lines == 0
    await sink.aclose(0.05)
    assert dropped.lines > 0
    assert read_all(reader) == LINE * (200 - dropped.lines)
    await sink.aclose(0.05)


async def test_writing_after_the_close_touches_no_descriptor(pipe: tuple[int, int]) -> None:
    """A late line is dropped, and never lands in a file that got the old descriptor's number."""
    dropped = Dropped()
    sink = LineSink(writer_for(pipe[1]), dropped)
    await sink.aclose(0.1)
    sink.write(LINE)
    assert dropped.lines == 1
    assert read_all(pipe[0]) == b""


async def test_a_socket_is_never_blocked_on() -> None:
    """A socket as stdout, as systemd gives, is written without touching its flags."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        dropped = Dropped()
        sink = LineSink(writer_for(theirs.fileno()), dropped, max_buffered=10 * len(LINE))
        for _ in range(5000):
            sink.write(LINE)
        assert dropped.lines > 0
        assert theirs.getblocking()
        kept = 5000 - dropped.lines
        ours.settimeout(0)
        data = b""
        async with asyncio.timeout(30):
            while len(data) < kept * len(LINE):
                try:
                    data += ours.recv(65536)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
        assert data == LINE * kept
        await sink.aclose(1.0)


async def test_files_are_appended_to_and_replaced(tmp_path: Path) -> None:
    """After a rotation new lines are in the new file, and the old one has all of its own."""
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    dropped = Dropped()
    sink = LineSink(open_path(path), dropped)
    sink.write(b"one\n")
    path.rename(tmp_path / "access.log.1")
    sink.write(b"two\n")
    sink.replace(open_path(path))
    sink.write(b"three\n")
    await sink.aclose(1.0)
    assert (tmp_path / "access.log.1").read_bytes() == b"before\none\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert dropped.lines == 0


async def test_a_full_disk_drops_lines() -> None:
    """ENOSPC is counted and raises nothing."""
    dropped = Dropped()
    sink = LineSink(open_path(Path("/dev/full")), dropped)
    sink.write(LINE * 2)
    assert dropped.lines == 2
    await sink.aclose(0.1)
