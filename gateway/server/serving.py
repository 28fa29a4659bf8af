"""uvicorn's server, driven by this project: started, listened to and drained step by step.

uvicorn keeps what it does well (the protocol's wiring, WebSocket upgrades, its shutdown); signals,
exit codes and the order of things belong to the process around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Iterator
from socket import socket
from typing import Any

import uvicorn
from uvicorn.server import Server

from gateway.server.websocket import WebSocketProtocol

# The Date field of answers by uvicorn's own protocol changes once a second.
TICK_S = 1.0


class Listener(Server):
    """A set of listening sockets with the application behind them."""

    def __init__(
        self, app: Any, http: Any, *, tls: ssl.SSLContext | None = None, keep_alive: float = 75.0
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
                ws=WebSocketProtocol,
                ws_per_message_deflate=False,
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=max(1, round(keep_alive)),
            )
        )
        self._tls = tls
        self._ticking: asyncio.Task[None] | None = None
        self._adopted: dict[int, asyncio.Server] = {}
        self._own: list[socket] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield

    async def start(self, sockets: list[socket]) -> None:
        """Accept connections on `sockets`, which the listener owns from now on."""
        self.config.load()
        self.config.ssl = self._tls
        self.lifespan = self.config.lifespan_class(self.config)
        self._own = sockets
        await self.startup(sockets=sockets)
        await self.on_tick(0)
        self._ticking = asyncio.create_task(self._tick())

    async def adopt(self, key: int, sock: socket) -> None:
        """Accept on one more socket until `release(key)`; its owner keeps it open."""
        if key in self._adopted or self.should_exit:
            return
        loop = asyncio.get_running_loop()
        self._adopted[key] = await loop.create_server(
            self._protocol, sock=sock.dup(), ssl=self._tls, backlog=self.config.backlog
        )

    def release(self, key: int) -> None:
        """Stop accepting on an adopted socket; its connections stay."""
        server = self._adopted.pop(key, None)
        if server is not None:
            server.close()

    async def stop(self, timeout: float, force: asyncio.Event) -> None:
        """Stop accepting, let the requests in flight finish, and cut what is left then.

        `timeout` is in seconds; `force` ends the waiting at once.
        """
        self.should_exit = True
        if self._ticking is None:
            return
        self._ticking.cancel()
        for key in list(self._adopted):
            self.release(key)
        # uvicorn reads whole seconds; the time-out here is exact.
        self.config.timeout_graceful_shutdown = None
        shutdown = asyncio.create_task(self.shutdown(self._own))
        forced = asyncio.create_task(force.wait())
        await asyncio.wait({shutdown, forced}, timeout=timeout, return_when="FIRST_COMPLETED")
        forced.cancel()
        if not shutdown.done():
            await self._cut(shutdown)

    async def _cut(self, shutdown: asyncio.Task[None]) -> None:
        self.force_exit = True
        shutdown.cancel()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        # Cancelled requests still answer, release what they hold, and are logged.
        await asyncio.wait([shutdown, *tasks], timeout=1.0)
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.on_tick(0)

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=None,
        )
        return made


def url_of(sock: socket, scheme: str) -> str:
    """How a client reaches a bound socket: `http://127.0.0.1:8080`, or `unix:/path`."""
    name = sock.getsockname()
    if isinstance(name, str | bytes):
        return f"unix:{name if isinstance(name, str) else name.decode()}"
    host, port = name[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def close_all(sockets: Iterable[socket]) -> None:
    """Close sockets; those that are closed already stay so."""
    for each in sockets:
        each.close()
