"""An upstream that answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class SlowUpstream:
    """`arrived` is set when a request came; every answer waits for `release`."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.arrived.set()
                await self.release.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def config(self) -> str:
        """The part of a configuration that leads `/slow` here."""
        return f"""\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0", timeouts: {{drain: 20s}}}}
telemetry: {{access_log: null}}
upstreams: {{slow: {{targets: ["http://127.0.0.1:{self.port}"]}}}}
routes:
  - {{name: slow, match: {{path: /slow}}, upstream: slow}}
  - {{name: hello, match: {{path: /hello}}, respond: {{status: 200, json: {{say: hi}}}}}}
"""


@asynccontextmanager
async def slow_upstream() -> AsyncIterator[SlowUpstream]:
    """A running one; whatever still waits at the end is released."""
    upstream = SlowUpstream()
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        upstream.release.set()
        server.close()
