"""Serves traffic in this process: the runtime, the listener, and what a reload changes there.

The only process with `workers: 1`, and the inside of every worker otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from socket import socket
from typing import TYPE_CHECKING, Any, Final

from gateway import pauses
from gateway.admin import describe
from gateway.admin.control import (
    BreakerOrder,
    Check,
    DeliveryAnswer,
    DeliveryCall,
    Explanation,
    FlagOrder,
    FlagOutcome,
    Purge,
    PurgeInfo,
    RouteInfo,
    WorkerInfo,
)
from gateway.app import Gateway
from gateway.config.loader import Configuration
from gateway.errors import ErrorCode
from gateway.flags.board import KIND as FLAGS
from gateway.flags.board import FlagBoard
from gateway.observability.snapshot import Snapshot as MetricsSnapshot
from gateway.policies.cache import KEY as CACHE
from gateway.policies.circuit_breaker import KEY as BOARD
from gateway.policies.mirror import KEY as MIRROR
from gateway.runtime import Loaded, Runtime, Snapshot
from gateway.server.factory import HttpFactory
from gateway.server.orders import carry_out
from gateway.server.serving import Listener, url_of
from gateway.server.settings import ServerSettings
from gateway.server.tls import TlsFront, server_context
from gateway.store.base import Store, StoreStatus

if TYPE_CHECKING:
    from gateway.policies.cache.state import CacheState

logger = logging.getLogger("gateway.server")

_LAG_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration built and started, but not serving yet."""

    snapshot: Snapshot
    tls: ssl.SSLContext | None


class LocalPlane:
    """The data path of one process. It owns `sockets`, which are bound, and `runtime`.

    Without sockets it serves no requests, and is there for what is done without them: deliveries.
    `stock` puts uvicorn's own HTTP implementation in front instead of the lean protocol. `settle`
    is told after each swap how many routes there are, see pauses.py; it concerns the whole process.
    """

    def __init__(
        self,
        runtime: Runtime,
        sockets: list[socket],
        *,
        stock: bool = False,
        settle: Callable[[int], None] = pauses.settle,
    ) -> None:
        self.runtime = runtime
        self._sockets = sockets
        self._stock = stock
        self._settle = settle
        self._server = ServerSettings(on_refused=self._refused)
        self._http = HttpFactory(self._server, runtime.clock)
        self._listener: Listener | None = None
        self._tls: TlsFront | None = None
        self._lag: asyncio.Task[None] | None = None
        self._withdrawn = False
        runtime.metrics.before_snapshot.append(self._gauges)

    async def apply(self, loaded: Loaded) -> int:
        """Serve `loaded`; the first time, open the listener. Raises ConfigError."""
        prepared = await self.prepare(loaded, self.runtime.generation + 1)
        await self.commit(prepared)
        return self.runtime.generation

    async def prepare(self, loaded: Loaded, generation: int) -> Prepared:
        """Build and start everything beside what serves. Raises ConfigError."""
        tls = loaded.configuration.gateway.server.tls
        # Blocking reads of three small files, and first, because nothing must be undone then.
        context = server_context(tls) if tls is not None else None
        return Prepared(await self.runtime.prepare(loaded, generation), context)

    async def commit(self, prepared: Prepared) -> None:
        """Serve what was prepared."""
        self.runtime.commit(prepared.snapshot)
        self._follow(prepared.snapshot.configuration)
        if self._listener is None:
            await self._begin(prepared)
        elif self._tls is not None and prepared.tls is not None:
            self._tls.replace(prepared.tls)
        self._settle(len(prepared.snapshot.routes))

    async def abandon(self, prepared: Prepared) -> None:
        """Undo `prepare`."""
        await self.runtime.abandon(prepared.snapshot)

    def addresses(self) -> Sequence[str]:
        server = self.runtime.snapshot.configuration.gateway.server
        scheme = "http" if server.tls is None else "https"
        # Sockets of one port (one for each worker) are one address.
        return list(dict.fromkeys(url_of(each, scheme) for each in self._sockets))

    def ready(self) -> bool:
        if self._withdrawn:
            return False
        if not self._sockets:
            # All that such a process does needs the store.
            return self.runtime.ready and not self.store_trouble()
        return self._listener is not None

    def checks(self) -> Sequence[Check]:
        detail = "draining" if self._withdrawn else ""
        name = "listener" if self._sockets else "deliveries"
        checks = [Check(name, self.ready(), detail)]
        trouble = self.store_trouble()
        if trouble is not None:
            # No reason to take traffic away: what needs a store says what it does without one.
            checks.append(Check("store", not trouble, trouble))
        return checks

    def store_trouble(self) -> str | None:
        """What is wrong with the store, "" if nothing is; None if nothing needs one."""
        status = self._store_status()
        if status is None:
            return None
        if status.state == "up":
            return ""
        return f"{status.state}: {status.last_error}" if status.last_error else status.state

    def withdraw(self) -> None:
        self._withdrawn = True
        self.runtime.ready = False
        # From now on every answer is the last one on its connection.
        self._http.draining = True

    async def drain(self, timeout: float, force: asyncio.Event) -> None:
        self.withdraw()
        # Beside the requests, the work that no client waits for comes to its end.
        halting = asyncio.ensure_future(self.runtime.halt(timeout))
        if self._listener is not None:
            await self._listener.stop(timeout, force)
        forced = asyncio.ensure_future(force.wait())
        await asyncio.wait({halting, forced}, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        halting.cancel()

    async def aclose(self) -> None:
        if self._lag is not None:
            self._lag.cancel()
        if self._listener is not None:
            await self._listener.stop(0.0, asyncio.Event())
        for each in self._sockets:
            each.close()
        await self.runtime.aclose()

    async def adopt(self, key: int, sock: socket) -> None:
        """Also accept connections on the socket of another worker, until `release(key)`."""
        if self._listener is not None:
            await self._listener.adopt(key, sock)

    def release(self, key: int) -> None:
        """Leave the socket to its worker again."""
        if self._listener is not None:
            self._listener.release(key)

    def reopen_logs(self) -> None:
        """Open the access log's file anew, after it was rotated."""
        log = self.runtime.snapshot.access_log
        if log is None:
            return
        try:
            log.reopen()
        except OSError as error:
            logger.error("can't open the access log anew: %s", error)

    async def routes(self) -> Sequence[RouteInfo]:
        return describe.route_infos(self.runtime.snapshot)

    async def upstreams(self) -> Sequence[dict[str, Any]]:
        return describe.upstream_infos(self.runtime)

    async def order_breaker(self, order: BreakerOrder) -> bool:
        boards = [board for _, board in self.runtime.known(BOARD[0])]
        if not boards:
            return False
        # Here, as in `purge`: a gateway without them need not have their modules in memory.
        from gateway.policies.circuit_breaker.machine import State

        state = None if order.state == "auto" else State(order.state)
        return any(board.order(order.upstream, order.route, state) for board in boards)

    async def mirrors(self) -> Sequence[dict[str, Any]]:
        return [each.status() for _, each in self.runtime.known(MIRROR)]

    async def store(self) -> Sequence[dict[str, Any]]:
        status = self._store_status()
        return [asdict(status)] if status is not None else []

    def _store_status(self) -> StoreStatus | None:
        """How the store of what serves now is; None if nothing needs one."""
        runtime = self.runtime
        for key in runtime.snapshot.keys if runtime.generation else ():
            if key[0] == "store":
                store: Store = runtime.long_lived(key)
                return store.status()
        return None

    async def flags(self) -> Sequence[dict[str, Any]]:
        gateway = self.runtime.snapshot.configuration.gateway
        board = self._flag_board()
        return board.status(gateway) if board is not None else []

    async def order_flag(self, order: FlagOrder, *, tell: bool = True) -> FlagOutcome:
        board = self._flag_board()
        flags = self.runtime.snapshot.configuration.gateway.flags
        if board is None or order.name not in flags:
            return FlagOutcome("unknown")
        return await carry_out(board, flags[order.name], order, tell=tell)

    def _flag_board(self) -> FlagBoard | None:
        """The board of what serves now; None without flags."""
        keys = self.runtime.snapshot.keys
        boards = [each for key, each in self.runtime.known(FLAGS) if key in keys]
        return boards[0] if boards else None

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer:
        # Here, because it takes memory that only asynchronous routes should cost.
        from gateway.delivery.dispatcher import KIND
        from gateway.server.desk import answer

        keys = self.runtime.snapshot.keys
        found = [each for key, each in self.runtime.known(KIND) if key in keys]
        return await answer(found[0] if found else None, call)

    async def explain(self, method: str, url: str) -> Explanation:
        return describe.explain(self.runtime.snapshot, method, url)

    async def purge(self, what: Purge, *, tell: bool = True) -> PurgeInfo:
        state: CacheState | None = self.runtime.long_lived(CACHE)
        if state is None:
            return PurgeInfo(removed=0)
        from gateway.policies.cache.entry import Selector

        selector = Selector(what.route, what.prefix, what.tag, what.all)
        removed = state.memory.purge(selector)
        return PurgeInfo(removed, await state.tell(selector) if tell else "none")

    async def metrics_snapshot(self) -> MetricsSnapshot:
        # In a thread: with thousands of busy routes it copies for a tenth of a second.
        return await asyncio.to_thread(self.runtime.metrics.snapshot)

    async def workers(self) -> Sequence[WorkerInfo]:
        snapshot = self.runtime.snapshot
        fingerprint = snapshot.configuration.fingerprint
        return [WorkerInfo(os.getpid(), snapshot.generation, self.ready(), fingerprint)]

    async def _begin(self, first: Prepared) -> None:
        if self._lag is None:
            self._lag = asyncio.create_task(self._measure_lag())
        if self._sockets:
            await self._open(first)
        self.runtime.ready = True

    async def _open(self, first: Prepared) -> None:
        server = first.snapshot.configuration.gateway.server
        if first.tls is not None:
            self._tls = TlsFront(first.tls)
        listener = Listener(
            Gateway(self.runtime),
            "auto" if self._stock else self._http,
            tls=self._tls.context if self._tls is not None else None,
            keep_alive=server.timeouts.keep_alive,
        )
        await listener.start(self._sockets)
        self._listener = listener

    def _follow(self, configuration: Configuration) -> None:
        """Have connections, open ones too, go by the limits and time-outs of `configuration`."""
        server, own = configuration.gateway.server, self._server
        own.head_bytes = server.limits.headers
        own.header_count = server.limits.header_count
        own.target_bytes = server.limits.target
        own.connections = server.limits.connections
        own.headers_timeout = server.timeouts.headers
        own.body_idle_timeout = server.timeouts.body_idle
        own.keep_alive_timeout = server.timeouts.keep_alive

    def _refused(self, kind: ErrorCode, detail: str, client: str) -> None:
        self.runtime.metrics.refused(kind.code)
        logger.info("refused", extra={"code": kind.code, "detail": detail, "client": client})

    def _gauges(self) -> None:
        metrics = self.runtime.metrics
        if self._listener is not None:
            metrics.connections_open = len(self._listener.server_state.connections)

    async def _measure_lag(self) -> None:
        """Note how late the event loop is: what one busy piece of code does to everybody."""
        monotonic, metrics = self.runtime.clock.monotonic, self.runtime.metrics
        while True:
            before = monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            metrics.loop_lag = max(metrics.loop_lag, monotonic() - before - _LAG_EVERY_S)
