"""Real servers for the tests: the wheel's Valkey and the system's Redis, on sockets of their own.

Files are in the test's folder; a server that a test leaves running is killed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest

from gateway.clock import SystemClock
from gateway.config.model_store import StoreConfig
from gateway.observability.store_series import StoreSeries
from gateway.store.base import Store
from gateway.store.engine import find_binary
from gateway.store.opening import Engines, open_store

WAIT_S = 20.0
REDIS = shutil.which("redis-server") or ""
VALKEY = find_binary()
BINARIES = [
    pytest.param(VALKEY, id="valkey"),
    pytest.param(
        REDIS, id="redis", marks=pytest.mark.skipif(not REDIS, reason="there is no redis-server")
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie has ended, though nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Server:
    """A server process. `url` and `unix` are the two ways to it."""

    def __init__(self, binary: str, folder: Path, *options: str, port: int = 0) -> None:
        self.binary = binary
        self.folder = folder
        self.port = port or free_port()
        self.socket = folder / "s.sock"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        arguments = [self.binary, "--port", str(self.port), "--unixsocket", str(self.socket),
                     "--dir", str(self.folder), "--save", "", "--bind", "127.0.0.1",
                     "--logfile", str(self.folder / "log"), *self.options]  # fmt: skip
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)

    async def ready(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while not await self._pings():
                await asyncio.sleep(0.005)

    async def _pings(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            line = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        return bool(line) and not line.startswith(b"-LOADING")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def serving(binary: str, folder: Path, *options: str) -> AsyncIterator[Server]:
    server = Server(binary, folder, *options)
    server.start()
    try:
        if "--tls-port" not in options:
            await server.ready()
        yield server
    finally:
        server.kill()


def make_store(url: str, folder: Path, *, engines: Engines | None = None, **more: Any) -> Store:
    series = more.pop("series", None) or StoreSeries()
    # Patient, so that a busy machine fails no test that is not about time.
    config = StoreConfig.model_validate({"url": url, "timeout": "5s", **more})
    return open_store(
        config,
        folder,
        clock=SystemClock(),
        rng=random.Random(7),
        series=series,
        engines=engines,
    )


@asynccontextmanager
async def opened(url: str, folder: Path, **more: Any) -> AsyncIterator[Store]:
    store = make_store(url, folder, **more)
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server does not run for the length of the block, though it is there."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


HELLO = b"*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
Answer = Callable[[list[bytes]], bytes | None]


class _Answering(asyncio.Protocol):
    """Parses commands and writes what it is told; None closes the connection."""

    def __init__(self, answer: Answer, open_ones: set[asyncio.Transport], cut: int) -> None:
        self._answer = answer
        self._open = open_ones
        self._cut = cut
        self._reader = hiredis.Reader()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._open.add(transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while command := self._reader.gets():
            reply = self._reply(command)
            if reply is None:
                self._transport.close()
                return
            if self._cut:
                # In two pieces, the second a turn of the loop later.
                asyncio.get_running_loop().call_soon(self._write, reply)
            else:
                self._transport.write(reply)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply[: self._cut])
            self._transport.write(reply[self._cut :])

    def _reply(self, command: list[bytes]) -> bytes | None:
        if command[0] == b"HELLO":
            return HELLO
        if command[0] in (b"INFO", b"CONFIG"):
            return b"-NOPERM no\r\n"
        return self._answer(command)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)


@asynccontextmanager
async def answering(answer: Answer, *, cut: int = 0) -> AsyncIterator[str]:
    """A server that answers what it is told to, after a greeting that is always good. Its URL."""
    transports: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(answer, transports, cut), "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for transport in list(transports):
            transport.abort()
        async with asyncio.timeout(WAIT_S):
            while transports:
                await asyncio.sleep(0)
            await server.wait_closed()
