"""One of several targets of an upstream: it answers, fails, hangs, dies and comes back by order.

async with Replica("a") as a, Replica("b") as b:
    ...                     # a.url and b.url go into the configuration
    a.status = 500          # from now on
    await a.die()           # nothing listens there any more, and connections are cut
    await a.revive()        # on the same port
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Self


class Replica:
    """A server on loopback, or on the unix socket `path`. Its answers' body is its name.

    Requests for /healthz are checks: they get `health`, all others `status`; both may hang, until
    the replica dies. `heads` are those of the checks, `requests` counts the others.
    """

    def __init__(
        self, name: str, *, path: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.status = 200
        self.health = 200
        self.hangs = False
        self.health_hangs = False
        self.requests = 0
        self.heads: list[bytes] = []
        self.port = 0
        self._path = path
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """What stands under `targets:`."""
        if self._path:
            return f"unix:{self._path}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def label(self) -> str:
        """What the gateway calls it."""
        return self.url.removeprefix("http://").removeprefix("https://")

    @property
    def checks(self) -> int:
        """How often its health was asked for."""
        return len(self.heads)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def revive(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._path:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
            return
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Stop listening, and cut every connection."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._open)
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.revive()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.die()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            del self._open[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        check = head.startswith(b"GET /healthz")
        if check:
            self.heads.append(head)
        else:
            self.requests += 1
        if self.health_hangs if check else self.hangs:
            await reader.read()
            return False
        status = self.health if check else self.status
        body = self.name.encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        return True
