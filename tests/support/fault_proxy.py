"""A TCP proxy that makes trouble on the way to an upstream, over real sockets.

    async with ScriptedUpstream(answer(OK)) as upstream, FaultProxy(upstream.port) as proxy:
        proxy.faults = Faults(latency=0.2)      # from now on; also for connections that are open
        ...                                     # proxy.url goes into the configuration

It knows no HTTP: bytes are delayed, slowed, swallowed, cut. What is set is read for every piece, so
a test may change it while an exchange is under way. Errors of either side just end a connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_PIECE = 16 * 1024


@dataclass(frozen=True)
class Faults:
    """What is wrong with the way. Nothing, if nothing is given.

    `latency` delays each piece, both ways, in seconds. `bandwidth` is that of answers, in bytes a
    second. `blackhole` swallows everything: connections open, and nothing moves. `reset_after` and
    `truncate_after` end an answer after so many bytes of a connection, with RST or with FIN; 0 does
    so before the first. `reset_requests` resets as soon as a request arrives, before it is passed
    on. `refuse` closes new connections at once.
    """

    latency: float = 0.0
    bandwidth: int | None = None
    blackhole: bool = False
    reset_after: int | None = None
    truncate_after: int | None = None
    reset_requests: bool = False
    refuse: bool = False


class FaultProxy:
    """Listens on loopback and connects to `port` there. `faults` may be replaced at any time."""

    def __init__(self, port: int, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.accepted = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._ways: set[_Way] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [way.task for way in self._ways if way.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """What stands under `targets:`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that clients hold at this moment."""
        return len(self._ways)

    def cut(self) -> None:
        """Reset every connection that is open."""
        for way in list(self._ways):
            way.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        way = _Way(self, reader, writer)
        self._ways.add(way)
        way.task = asyncio.current_task()
        try:
            await way.run(self._target)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._ways.discard(way)
            way.close()


class _Way:
    """One connection through the proxy."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._onward: asyncio.StreamWriter | None = None
        self._answered = 0
        self.task: asyncio.Task[None] | None = None

    async def run(self, port: int) -> None:
        """Relay until either side has ended."""
        if self._proxy.faults.refuse:
            return
        reader, self._onward = await asyncio.open_connection("127.0.0.1", port)
        up = asyncio.create_task(self._requests(self._onward))
        down = asyncio.create_task(self._answers(reader))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (up, down):
                each.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _requests(self, onward: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(_PIECE):
            faults = self._proxy.faults
            if faults.reset_requests:
                self.reset()
                return
            if await self._passes():
                onward.write(data)
                await onward.drain()

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_PIECE):
            if not await self._passes():
                continue
            faults = self._proxy.faults
            limits = [each for each in (faults.reset_after, faults.truncate_after)
                      if each is not None]  # fmt: skip
            left = min(limits) - self._answered if limits else None
            await self._write(data if left is None else data[: max(0, left)], faults.bandwidth)
            if left is not None and left < len(data):
                await self._end(resets=faults.reset_after is not None)
                return

    async def _passes(self) -> bool:
        """Whether a piece goes on, once it has waited for its time."""
        faults = self._proxy.faults
        if faults.latency:
            await asyncio.sleep(faults.latency)
        return not self._proxy.faults.blackhole

    async def _write(self, data: bytes, bandwidth: int | None) -> None:
        step = len(data) if not bandwidth else max(1, bandwidth // 20)
        for start in range(0, len(data), max(1, step)):
            piece = data[start : start + step]
            self._writer.write(piece)
            self._answered += len(piece)
            await self._writer.drain()
            if bandwidth:
                await asyncio.sleep(len(piece) / bandwidth)

    async def _end(self, *, resets: bool) -> None:
        if not resets:
            return
        # RST overtakes what the other side has not read yet; loopback needs a moment.
        await asyncio.sleep(0.02)
        self.reset()

    def reset(self) -> None:
        """Close with RST towards the client."""
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """Close both sides."""
        self._writer.close()
        if self._onward is not None:
            self._onward.close()
