"""The life of a gateway process: start, announce, reload when told, drain, exit.

The same with one process and with workers; what differs is the plane that serves the traffic. The
admin listener is opened last and closed last, so that a drain can be watched to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from socket import socket
from typing import Any, Final

from gateway import compiled
from gateway.clock import Clock
from gateway.observability.metrics import Metrics
from gateway.runtime import Loaded
from gateway.server.control import ProcessControl
from gateway.server.exits import Exit
from gateway.server.plane import Plane
from gateway.server.reload import Reloader
from gateway.server.role import GATEWAY, Role
from gateway.server.serving import Listener
from gateway.server.signals import Signals
from gateway.server.watch import Watcher
from gateway.settings import Settings

logger = logging.getLogger("gateway")

_ADMIN_CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class AdminPort:
    """The admin listener's bound sockets, its URL, and what makes the listener on them."""

    sockets: list[socket]
    url: str
    listener: Callable[[ProcessControl], Listener]


class Process:
    """Runs one plane until a signal ends it."""

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded,
        plane: Plane,
        admin: AdminPort | None,
        *,
        began: float,
        clock: Clock,
        metrics: Metrics,
        role: Role = GATEWAY,
    ) -> None:
        self._settings = settings
        self._plane = plane
        self._admin = admin
        self._role = role
        self._reloader = Reloader(settings, loaded, began, plane.apply, clock, metrics, role=role)
        self._background: set[asyncio.Task[Any]] = set()
        self._listener: Listener | None = None

    async def run(self) -> Exit:
        """Serve until TERM or INT. Raises ConfigErrors or ConfigError if it can't start."""
        signals = Signals()
        signals.install()
        try:
            if not await self._start(signals):
                return Exit.OK
            await signals.stop.wait()
            return await self._drain(signals)
        finally:
            await self._close()
            signals.remove()

    async def _start(self, signals: Signals) -> bool:
        """Start everything; False if a signal came first."""
        starting = asyncio.create_task(self._reloader.start())
        await _first(_wait(starting), signals.stop.wait())
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return False
        starting.result()
        if self._admin is not None:
            self._listener = self._admin.listener(ProcessControl(self._plane, self._reloader))
            await self._listener.start(self._admin.sockets)
        await self._watch(signals)
        logger.info("running %s", compiled.description())
        for url in self._plane.addresses():
            logger.info("listening on %s", url)
        if self._role.worker:
            logger.info("delivering")
        if self._admin is not None:
            logger.info("admin listening on %s", self._admin.url)
        return True

    async def _watch(self, signals: Signals) -> None:
        """From here on, HUP and changed files reload."""
        signals.on_hangup = self._hangup
        if self._settings.watch == "off":
            return
        watcher = Watcher(
            self._reloader.served,
            lambda: self._reloader.reload("file"),
            polling=self._settings.watch == "polling",
        )
        self._spawn(watcher.run())

    def _hangup(self) -> None:
        self._plane.reopen_logs()
        self._spawn(self._reloader.reload("signal"))

    async def _drain(self, signals: Signals) -> Exit:
        timeout = self._reloader.configuration.gateway.server.timeouts.drain
        delay = self._settings.drain.delay
        logger.info("draining", extra={"delay_s": delay, "timeout_s": timeout})
        self._plane.withdraw()
        signals.on_hangup = None
        await self._stop_reloading()
        if delay:
            await _first(asyncio.sleep(delay), signals.force.wait())
        if not signals.force.is_set():
            await self._plane.drain(timeout, signals.force)
        if signals.force.is_set():
            logger.warning("forced to stop; requests in flight were cut")
            return Exit.FAILURE
        logger.info("drained")
        return Exit.OK

    async def _stop_reloading(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._reloader.aclose()

    async def _close(self) -> None:
        await self._stop_reloading()
        await self._plane.aclose()
        if self._listener is not None:
            await self._listener.stop(_ADMIN_CLOSE_S, asyncio.Event())

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _first(*waiting: Coroutine[Any, Any, Any]) -> None:
    """Wait for whichever comes first, and give up the others."""
    tasks = [asyncio.create_task(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
