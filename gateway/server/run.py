"""From settings to a running gateway: load, bind, choose one process or several, run to the exit.

The only place that knows all parts of the process; the command `run` is a thin shell around it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from socket import socket
from typing import TYPE_CHECKING, Any

from gateway import __version__, pauses
from gateway.clock import Clock, SystemClock
from gateway.config.types import Address
from gateway.observability.metrics import Metrics
from gateway.runtime import Loaded, Runtime
from gateway.server.bind import bind, unlink_unix
from gateway.server.exits import Exit
from gateway.server.factory import HttpFactory
from gateway.server.plane import Plane
from gateway.server.process import AdminPort, Process
from gateway.server.reload import issue_info, issue_line
from gateway.server.role import GATEWAY, Role
from gateway.server.serving import Listener, close_all, url_of
from gateway.server.settings import ServerSettings
from gateway.server.sources import load_configuration, worker_count
from gateway.settings import Settings, derive_instance, unknown_settings

if TYPE_CHECKING:
    from gateway.server.control import ProcessControl

logger = logging.getLogger("gateway")


def run(settings: Settings, *, stock: bool = False, role: Role = GATEWAY) -> Exit:
    """Run a process of this role until a signal ends it.

    `stock` serves with uvicorn's own HTTP implementation. Raises ConfigErrors, ConfigError and
    StartupError, each before anything was served.
    """
    began = time.time()
    loaded = load_configuration(settings, os.environ, role)
    for line in unknown_settings(os.environ):
        logger.warning("%s", line)
    for issue in loaded.configuration.warnings:
        logger.warning("%s", issue_line(issue_info(issue)))
    server = loaded.configuration.gateway.server
    workers = worker_count(settings, server)
    made: list[Address] = []
    sockets: list[socket] = []
    try:
        groups: list[list[socket]] = [[] for _ in range(workers)]
        if not role.worker:
            groups = bind(server.listen, "server.listen", workers)
            made.append(server.listen)
            sockets += [each for group in groups for each in group]
        admin: list[socket] = []
        if server.admin is not None:
            [admin] = bind(server.admin, "server.admin")
            made.append(server.admin)
            sockets += admin
        start = Start(settings, loaded, began, role, stock)
        return _serve(start, groups, admin)
    finally:
        close_all(sockets)
        for address in made:
            unlink_unix(address)


@dataclass(frozen=True, slots=True)
class Start:
    """What a process begins with: the configuration as it was loaded, from `began` on."""

    settings: Settings
    loaded: Loaded
    began: float
    role: Role
    stock: bool


def _serve(start: Start, groups: list[list[socket]], admin: list[socket]) -> Exit:
    import uvloop

    clock = SystemClock()

    async def main() -> Exit:
        plane, metrics = _plane(start, groups, clock)
        if len(groups) > 1:
            # Nothing is built in this process; each worker settles by itself.
            pauses.settle(len(start.loaded.configuration.gateway.routes))
        process = Process(
            start.settings,
            start.loaded,
            plane,
            _admin_port(admin) if admin else None,
            began=start.began,
            clock=clock,
            metrics=metrics,
            role=start.role,
        )
        return await process.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def _plane(start: Start, groups: list[list[socket]], clock: Clock) -> tuple[Plane, Metrics]:
    settings, stock = start.settings, start.stock
    # A worker is no hop that requests could come back to.
    listens = "" if start.role.worker else url_of(groups[0][0], "http")
    instance = settings.instance or derive_instance(listens)
    if len(groups) == 1:
        from gateway.server.local import LocalPlane

        runtime = Runtime(clock=clock, version=__version__, instance=instance)
        return LocalPlane(runtime, groups[0], stock=stock), runtime.metrics
    from gateway.server.fleet import Fleet
    from gateway.server.slot import FleetOptions

    metrics = Metrics(clock, __version__)
    options = FleetOptions(instance, stock)
    return Fleet(settings, groups, options, clock=clock, metrics=metrics), metrics


def _admin_port(sockets: list[socket]) -> AdminPort:
    def listener(control: ProcessControl) -> Listener:
        return Listener(AdminFront(control), HttpFactory(ServerSettings()))

    return AdminPort(sockets, url_of(sockets[0], "http"), listener)


class AdminFront:
    """The admin application with the token of the configuration that is served now."""

    def __init__(self, control: ProcessControl) -> None:
        # Starlette serves nothing else: a gateway without an admin listener does not load it.
        from gateway.admin.app import create_app

        self._control = control
        self._create = create_app
        self._token: str | None = None
        self._app = create_app(control, token=None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        secret = self._control.configuration.gateway.server.admin_token
        token = secret.get_secret_value() if secret is not None else None
        if token != self._token:
            self._app, self._token = self._create(self._control, token=token), token
        await self._app(scope, receive, send)
