"""What all connections of one server share, and the callable that makes their protocol objects.

`HttpFactory(settings)` is given to `uvicorn.Config(http=...)`, which takes any callable there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.batch import WriteBatch
from gateway.clock import Clock, SystemClock
from gateway.server.cycle import Cycle
from gateway.server.protocol import HttpProtocol
from gateway.server.settings import ServerSettings

Serve = Callable[[Cycle], Coroutine[Any, Any, None]]


class HttpFactory:
    """One per server. `in_flight` counts requests whose answer is not complete.

    `draining` makes every answer the last one on its connection; uvicorn's shutdown sets it.
    """

    def __init__(self, settings: ServerSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.logger = logging.getLogger("gateway.server")
        self.batch = WriteBatch()
        self.in_flight = 0
        self.draining = False
        self.state: ServerState = ServerState()
        self.app_state: dict[str, Any] = {}
        self._date_line = b""
        self._date_until = 0.0

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpProtocol:
        """The protocol object of one new connection, as uvicorn asks for it."""
        if server_state is not self.state:
            self._bind(config, server_state, app_state)
        return HttpProtocol(self)

    def _bind(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.app: Any = config.loaded_app
        # An application may offer more than ASGI: to be handed the cycle itself. It is found only
        # where nothing is wrapped around the application.
        self.serve: Serve | None = getattr(self.app, "serve", None)
        self.root_path = config.root_path
        self.state = server_state
        self.app_state = app_state
        self.loop = asyncio.get_running_loop()

    @property
    def open_connections(self) -> int:
        """Client connections that are open now, WebSockets included."""
        return len(self.state.connections)

    def date_line(self) -> bytes:
        """The Date field (RFC 9110 section 6.6.1) as a line, made once a second."""
        now = self.clock.wall()
        # Outside the second for which it was made, in both directions: wall clocks are set back.
        if not self._date_until - 1.0 <= now < self._date_until:
            self._date_line = b"date: %b\r\n" % formatdate(now, usegmt=True).encode("ascii")
            self._date_until = float(int(now)) + 1.0
        return self._date_line
