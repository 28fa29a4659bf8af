"""A worker process: the local plane, led by the supervising process over a channel.

It drains and exits when it is told to, on TERM, and when the supervisor is gone. INT and HUP are
the supervisor's business, though a terminal sends them to the whole group.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from socket import socket
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.admin.control import BreakerOrder, DeliveryCall
from gateway.clock import SystemClock
from gateway.runtime import Runtime
from gateway.server.channel import Channel, open_channel
from gateway.server.engines import RemoteEngines
from gateway.server.exits import Exit
from gateway.server.local import LocalPlane, Prepared
from gateway.server.log import configure_logging
from gateway.server.orders import Build, Explain, FlagCall, Launch, PurgeOrder, unpack
from gateway.server.serving import close_all

logger = logging.getLogger("gateway.workers")

BEATS: Final = 10
"""How many heartbeats fit into the time after which a worker without any is given up."""


class Worker:
    """One worker's side of the conversation. `shared` are the sockets of all, by slot."""

    def __init__(self, slot: int, shared: list[list[socket]]) -> None:
        self._slot = slot
        self._shared = shared
        self._plane: LocalPlane | None = None
        self._prepared: Prepared | None = None
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._drain_timeout = 0.0
        self._beating: asyncio.Task[None] | None = None
        self._channel: Channel | None = None

    async def run(self, end: socket) -> Exit:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._channel = channel = await open_channel(end, {
            "start": self._start,
            "prepare": self._prepare,
            "commit": self._commit,
            "abandon": self._abandon,
            "withdraw": self._withdraw,
            "drain": self._drain,
            "adopt": self._adopt,
            "release": self._release,
            "reopen_logs": self._reopen_logs,
            "routes": self._routes,
            "upstreams": self._upstreams,
            "mirrors": self._mirrors,
            "flags": self._flags,
            "order_flag": self._order_flag,
            "store": self._store,
            "order_breaker": self._order_breaker,
            "delivery": self._delivery,
            "explain": self._explain,
            "metrics": self._metrics,
            "purge": self._purge,
        })  # fmt: skip
        gone = asyncio.create_task(channel.gone.wait())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({gone, stop}, return_when="FIRST_COMPLETED")
        try:
            await self._finish(orphaned=gone.done())
        finally:
            gone.cancel()
            stop.cancel()
            if self._beating is not None:
                self._beating.cancel()
            signal.setitimer(signal.ITIMER_REAL, 0)
            await channel.aclose()
        return Exit.OK

    async def _finish(self, *, orphaned: bool) -> None:
        plane = self._plane
        if plane is None:
            return
        if orphaned:
            logger.error("the supervising process is gone; draining")
        elif self._channel is not None:
            # The others take over what arrives from now on.
            self._channel.notify("leaving")
        for each in self._shared:
            close_all(each)
        server = plane.runtime.snapshot.configuration.gateway.server
        await plane.drain(self._drain_timeout or server.timeouts.drain, self._force)
        if self._channel is not None:
            # The last word: what was counted since the last scrape.
            self._channel.notify("metrics", await plane.metrics_snapshot())
        await plane.aclose()

    async def _start(self, payload: msgspec.Raw) -> None:
        launch = msgspec.json.decode(payload, type=Launch)
        configure_logging(launch.log_level)
        self._beating = asyncio.create_task(self._beat(launch.heartbeat))
        assert self._channel is not None
        runtime = Runtime(
            clock=SystemClock(),
            version=__version__,
            instance=launch.instance,
            engines=RemoteEngines(self._channel),
        )
        own = [each.dup() for each in self._shared[self._slot]]
        plane = LocalPlane(runtime, own, stock=launch.stock)
        try:
            loaded = await asyncio.to_thread(unpack, launch.build)
            await plane.commit(await plane.prepare(loaded, launch.build.generation))
            for order in launch.breakers:
                await plane.order_breaker(order)
            for flag in launch.flags:
                await plane.order_flag(flag, tell=False)
        except BaseException:
            await plane.aclose()
            raise
        self._plane = plane
        self._show()

    async def _prepare(self, payload: msgspec.Raw) -> None:
        build = msgspec.json.decode(payload, type=Build)
        plane = self._serving()
        await self._give_up()
        loaded = await asyncio.to_thread(unpack, build)
        self._prepared = await plane.prepare(loaded, build.generation)

    async def _commit(self, _: msgspec.Raw) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise RuntimeError("nothing was prepared")
        await self._serving().commit(prepared)

    async def _abandon(self, _: msgspec.Raw) -> None:
        await self._give_up()

    async def _give_up(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._serving().abandon(prepared)

    async def _withdraw(self, _: msgspec.Raw) -> None:
        self._serving().withdraw()

    async def _drain(self, payload: msgspec.Raw) -> None:
        self._drain_timeout = msgspec.json.decode(payload, type=float)
        self._stop.set()

    async def _adopt(self, payload: msgspec.Raw) -> None:
        slot = msgspec.json.decode(payload, type=int)
        for position, sock in enumerate(self._shared[slot]):
            await self._serving().adopt(slot * 100 + position, sock)

    async def _release(self, payload: msgspec.Raw) -> None:
        slot = msgspec.json.decode(payload, type=int)
        for position, _ in enumerate(self._shared[slot]):
            self._serving().release(slot * 100 + position)

    async def _reopen_logs(self, _: msgspec.Raw) -> None:
        self._serving().reopen_logs()

    async def _routes(self, _: msgspec.Raw) -> Any:
        return await self._serving().routes()

    async def _upstreams(self, _: msgspec.Raw) -> Any:
        return await self._serving().upstreams()

    async def _mirrors(self, _: msgspec.Raw) -> Any:
        return await self._serving().mirrors()

    async def _flags(self, _: msgspec.Raw) -> Any:
        return await self._serving().flags()

    async def _order_flag(self, payload: msgspec.Raw) -> Any:
        call = msgspec.json.decode(payload, type=FlagCall)
        return await self._serving().order_flag(call.order, tell=call.tell)

    async def _store(self, _: msgspec.Raw) -> Any:
        return await self._serving().store()

    async def _order_breaker(self, payload: msgspec.Raw) -> Any:
        order = msgspec.json.decode(payload, type=BreakerOrder)
        return await self._serving().order_breaker(order)

    async def _delivery(self, payload: msgspec.Raw) -> Any:
        return await self._serving().delivery(msgspec.json.decode(payload, type=DeliveryCall))

    async def _explain(self, payload: msgspec.Raw) -> Any:
        asked = msgspec.json.decode(payload, type=Explain)
        return await self._serving().explain(asked.method, asked.url)

    async def _metrics(self, _: msgspec.Raw) -> Any:
        return await self._serving().metrics_snapshot()

    async def _purge(self, payload: msgspec.Raw) -> Any:
        order = msgspec.json.decode(payload, type=PurgeOrder)
        return await self._serving().purge(order.what, tell=order.tell)

    def _serving(self) -> LocalPlane:
        if self._plane is None:
            raise RuntimeError("the worker has not started")
        return self._plane

    async def _beat(self, limit: float) -> None:
        """Show that the event loop runs, to the supervisor and to the kernel.

        If the supervisor is gone as well, nobody would notice a loop that hangs; an alarm that is
        not put off in time then ends the process.
        """
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        while True:
            signal.setitimer(signal.ITIMER_REAL, limit * 2)
            self._show()
            await asyncio.sleep(limit / BEATS)

    def _show(self) -> None:
        if self._channel is not None:
            self._channel.notify("beat", self._plane and self._plane.store_trouble())


def main(slot: int, channel: int, shared: list[list[int]]) -> None:
    """The entry of a worker process; the arguments name inherited file descriptors."""
    import uvloop

    sockets = [[socket(fileno=number) for number in numbers] for numbers in shared]
    end = socket(fileno=channel)
    configure_logging("info")

    async def serve() -> Exit:
        return await Worker(slot, sockets).run(end)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(serve())
    sys.exit(int(code))
