"""The connections to one target: a LIFO stack of idle ones, a bound, and a queue behind the bound.

Every change of state here is synchronous; only `acquire` waits. A slot belongs to exactly one of:
an idle connection, a connection in use, a connect that is under way, a waiter it was granted to.
Bytes are the connection's business, target choice the balancer's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from gateway.batch import WriteBatch
from gateway.clock import Clock
from gateway.errors import CONNECTION_LIMIT, UPSTREAM_RESET, UpstreamError
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.connector import Connector
from gateway.upstream.target import Target

# Waiters allowed behind the bound, as a multiple of it: more would only wait to time out.
_QUEUE_FACTOR: Final = 4
# Seconds that a connection rests after an answer without a body (HEAD, 204, 304): a broken upstream
# sends the body all the same, a little later, and it must not meet the next exchange.
_REST_S: Final = 0.02


class Pool:
    """Connections to `target`: at most `limit` open, idle ones kept for `keep_alive` seconds.

    `body_idle` is how long a body may stand still in either direction, in seconds.
    """

    def __init__(
        self,
        target: Target,
        connector: Connector,
        clock: Clock,
        *,
        limit: int,
        keep_alive: float,
        body_idle: float,
    ) -> None:
        self.target = target
        self.clock = clock
        self.keep_alive = keep_alive
        self.body_idle = body_idle
        self.limit = limit
        self.batch = WriteBatch()
        self.open = 0
        self.idle: list[UpstreamConnection] = []
        self.connections: set[UpstreamConnection] = set()
        self.closing = False
        self._connector = connector
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self._waiters)

    def take(self, now: float, clean: bool) -> UpstreamConnection | None:
        """The idle connection used last, if there is one that is still good.

        `clean` asks for one on which no input waits. Only what can't be sent twice needs that: for
        anything else input shows before it is written (`Link.flush`), at no further system call.
        """
        idle = self.idle
        while idle:
            connection = idle.pop()
            good = now < connection.expires and connection.is_idle
            if good and not (clean and connection.has_input()):
                self.target.reuses += 1
                return connection
            connection.close()
        return None

    async def acquire(self) -> UpstreamConnection:
        """A connection that is ready: an idle one, a new one, or after waiting what comes free.

        Raises UpstreamError: CONNECTION_LIMIT if no slot came free in time, or what
        `Connector.connect` raises.
        """
        connection = self.take(self.clock.monotonic(), True)
        if connection is None:
            connection = await self._claim()
        return connection or await self._connect()

    async def _claim(self) -> UpstreamConnection | None:
        """A connection that another exchange hands over, or None for a slot to open one in."""
        if self.open < self.limit:
            self.open += 1
            return None
        connection = await self._wait()
        if connection is not None:
            self.target.reuses += 1
        return connection

    async def _connect(self) -> UpstreamConnection:
        """A new connection in a slot that the caller holds; the slot is given back on failure."""
        made: list[UpstreamConnection] = []

        def factory() -> UpstreamConnection:
            connection = UpstreamConnection(self)
            made.append(connection)
            return connection

        try:
            connection = await self._connector.connect(self.target, factory)
        except BaseException:
            for attempt in made:
                attempt.close(abort=True)
            self._pass_on_slot()
            raise
        if not connection.is_idle:
            self._pass_on_slot()
            label = self.target.label
            detail = f"{label}: the connection was closed as soon as it was open"
            raise UpstreamError(UPSTREAM_RESET, detail, next_hop=label, sent=False)
        self.connections.add(connection)
        self.target.connects += 1
        return connection

    async def connect_fresh(self) -> UpstreamConnection:
        """A connection that no exchange has used: what a retry after a stale one needs.

        Raises like `acquire`. An idle connection is closed for it if the bound is reached.
        """
        if self.open >= self.limit and self.idle:
            self.idle[0].close()
        connection = await self._claim()
        if connection is not None:
            # Its slot is what is wanted, not itself.
            self.connections.remove(connection)
            connection.close()
        return await self._connect()

    async def _wait(self) -> UpstreamConnection | None:
        """Queue up for what `_claim` gives."""
        if len(self._waiters) >= self.limit * _QUEUE_FACTOR:
            raise self._limit_error(f"{len(self._waiters)} requests wait already")
        self.target.waits += 1
        try:
            async with asyncio.timeout(self._connector.connect_timeout):
                while True:
                    granted = await self._grant()
                    if granted is None or (granted.is_idle and not granted.has_input()):
                        return granted
                    # It broke between being handed over and now; its slot went on with it.
                    granted.close()
                    if self.open < self.limit:
                        self.open += 1
                        return None
        except TimeoutError:
            waited = f"none came free within {self._connector.connect_timeout:g} s"
            raise self._limit_error(waited) from None

    async def _grant(self) -> UpstreamConnection | None:
        waiter: asyncio.Future[UpstreamConnection | None]
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                granted = waiter.result()
                if granted is None:
                    self._pass_on_slot()
                elif granted.is_idle:
                    self.release(granted, self.clock.monotonic())
            else:
                with suppress(ValueError):
                    self._waiters.remove(waiter)
            raise

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection whose exchange ended well."""
        if self.closing or connection.retired:
            connection.close()
            return
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.expires = now + connection.keep_alive
        self.idle.append(connection)

    def rest(self, connection: UpstreamConnection) -> None:
        """Like release, after a moment in which nothing more may arrive."""
        asyncio.get_running_loop().call_later(_REST_S, self._rested, connection)

    def _rested(self, connection: UpstreamConnection) -> None:
        if connection.is_idle:
            self.release(connection, self.clock.monotonic())

    def forget(self, connection: UpstreamConnection) -> None:
        """Note that a connection is gone; called by itself, once."""
        if connection in self.connections:
            self.connections.remove(connection)
            with suppress(ValueError):
                self.idle.remove(connection)
            self._pass_on_slot()

    def _pass_on_slot(self) -> None:
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.open -= 1

    def sweep(self, now: float, addresses: list[str]) -> None:
        """Close what was idle for too long, or leads where the target's name no longer points.

        `addresses` are the name's addresses, empty for no name or no answer.
        """
        for connection in list(self.connections):
            if addresses and connection.peer not in addresses:
                connection.retired = True
        for connection in list(self.idle):
            if connection.retired or now >= connection.expires:
                connection.close()

    def close(self) -> None:
        """Close idle connections now, the others when their exchange ends."""
        self.closing = True
        for connection in list(self.connections):
            if connection.is_idle:
                connection.close()

    def abort(self) -> None:
        """Cut every connection, in use or not."""
        for connection in list(self.connections):
            connection.fail(UPSTREAM_RESET, "the gateway is shutting down")

    def _limit_error(self, detail: str) -> UpstreamError:
        return UpstreamError(
            CONNECTION_LIMIT,
            f"{self.target.label}: {self.limit} connections are in use and {detail}",
            next_hop=self.target.label,
            sent=False,
        )

    def __repr__(self) -> str:
        """The counts, as tests assert on them: `1 active, 2 idle, 0 opening, 0 waiting`."""
        active = sum(not connection.is_idle for connection in self.connections)
        idle = len(self.connections) - active
        opening = self.open - len(self.connections)
        return (
            f"<Pool {self.target.label} {active} active, {idle} idle, {opening} opening, "
            f"{len(self._waiters)} waiting>"
        )
