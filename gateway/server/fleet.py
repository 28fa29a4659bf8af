"""Serves traffic in worker processes, and keeps them running.

Every worker has a slot with listening sockets of its own, so that the kernel spreads connections
evenly. The sockets are this process's: when a worker is gone, the others accept there until its
successor does.

A configuration is applied in two phases: all workers build it, then all swap; if one can't, none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from socket import socket
from typing import Any, Final, TypeVar

from gateway.admin.control import (
    BreakerOrder,
    Check,
    ControlUnavailable,
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
from gateway.clock import Clock
from gateway.errors import ConfigError
from gateway.observability.metrics import Metrics
from gateway.observability.snapshot import Aggregator, Snapshot
from gateway.runtime import Loaded
from gateway.server.asking import ASK_S, CALL_S, LOST, Asking
from gateway.server.channel import ChannelClosed
from gateway.server.engines import FleetEngines
from gateway.server.member import Member, spawn, start, store_checks
from gateway.server.orders import BreakerOrders, Build, Explain, Launch, PurgeOrder, pack
from gateway.server.serving import close_all, url_of
from gateway.server.slot import FleetOptions, Slot
from gateway.settings import Settings

logger = logging.getLogger("gateway.workers")

T = TypeVar("T")

# A worker that served this long has not failed "again" when it ends.
_STEADY_S: Final = 60.0
# What a worker needs beyond the drain to close its logs and pools.
_CLOSE_MARGIN_S: Final = 3.0


class Fleet:
    """The plane of a supervising process. `groups` holds the bound sockets of each worker; where
    they are empty, workers deliver alone.
    """

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[list[socket]],
        options: FleetOptions,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._options = options
        self._clock = clock
        self._metrics = metrics
        self._slots = [Slot(index, group) for index, group in enumerate(groups)]
        self._aggregator = Aggregator(clock)
        self._engines = FleetEngines()
        self._generation = 0
        self._loaded: Loaded | None = None
        self._build: Build | None = None
        self._numbers = 0
        self._breakers = BreakerOrders()
        self._flags: dict[str, FlagOrder] = {}
        self._asking = Asking(self._serving)
        self._swap = asyncio.Lock()
        self._stopping = False

    # The configuration.

    async def apply(self, loaded: Loaded) -> int:
        """Have every worker serve `loaded`, or none. Raises ConfigErrors or ConfigError."""
        async with self._swap:
            build = await asyncio.to_thread(pack, loaded, self._generation + 1)
            if self._build is None:
                self._build, self._loaded = build, loaded
                await self._start_all()
            else:
                await self._replace(build)
            self._build, self._loaded, self._generation = build, loaded, build.generation
            gateway = loaded.configuration.gateway
            self._metrics.config_loaded(self._generation)
            self._aggregator.retain({each.name for each in gateway.routes}, set(gateway.upstreams))
            return self._generation

    async def _start_all(self) -> None:
        launches = [asyncio.create_task(self._launch(slot)) for slot in self._slots]
        try:
            await asyncio.gather(*launches)
        except BaseException:
            for launch in launches:
                launch.cancel()
            await asyncio.gather(*launches, return_exceptions=True)
            raise
        for slot in self._slots:
            self._enter(slot)

    async def _replace(self, build: Build) -> None:
        members = self._serving()
        prepared = await asyncio.gather(
            *(self._prepare(member, build) for member in members), return_exceptions=True
        )
        refused = [each for each in prepared if isinstance(each, BaseException)]
        if refused:
            await self._asking.tell(members, "abandon")
            raise next((each for each in refused if isinstance(each, ConfigError)), refused[0])
        await asyncio.gather(*(self._commit(member, build) for member in members))

    async def _prepare(self, member: Member, build: Build) -> None:
        """Raises what the worker says; a worker that is gone says nothing."""
        try:
            async with asyncio.timeout(self._settings.worker.start_timeout):
                await member.channel.call("prepare", build)
        except ChannelClosed:
            # Its successor will build the new configuration, or fail on its own.
            member.ready = False

    async def _commit(self, member: Member, build: Build) -> None:
        if not member.ready:
            return
        try:
            async with asyncio.timeout(ASK_S * 5):
                await member.channel.call("commit")
        except LOST as error:
            # Too late to take the others back: this one starts over with the new configuration.
            logger.error("worker %d did not swap (%r)", member.pid, error)
            member.ready = False
            member.kill()
        else:
            member.generation = build.generation

    # Workers that come and go.

    async def _launch(self, slot: Slot) -> None:
        """Fill the slot with a worker that serves. Raises what keeps it from doing so."""
        self._numbers += 1
        groups = [each.sockets for each in self._slots]
        member = await spawn(
            self._numbers,
            slot.index,
            groups,
            on_snapshot=self._aggregator.update,
            on_leaving=lambda index: self._hand_over(self._slots[index]),
            engines=self._engines,
        )
        assert self._build is not None
        limits = self._settings.worker
        launch = Launch(
            build=self._build,
            instance=self._options.instance,
            log_level=self._settings.log_level,
            heartbeat=limits.heartbeat,
            stock=self._options.stock,
            breakers=list(self._breakers),
            flags=list(self._flags.values()),
        )
        await start(member, launch, limits.start_timeout)
        slot.member = member

    def _enter(self, slot: Slot) -> None:
        assert slot.member is not None
        slot.member.ready = True
        slot.tending = asyncio.create_task(self._tend(slot))

    async def _tend(self, slot: Slot) -> None:
        """Keep the slot filled until the fleet stops."""
        while True:
            member = slot.member
            assert member is not None
            since = self._clock.monotonic()
            cause = await member.gone(self._settings.worker.heartbeat)
            member.ready = False
            self._aggregator.remove(member.number)
            self._engines.gone(member.number)
            if self._stopping:
                return
            slot.restarts += 1
            steady = self._clock.monotonic() - since >= _STEADY_S
            slot.failures = 0 if steady else slot.failures + 1
            facts = {"worker": slot.index, "restarts": slot.restarts}
            logger.error("worker %d %s; starting another", member.pid, cause, extra=facts)
            self._hand_over(slot)
            await self._refill(slot)
            self._take_back(slot)

    async def _refill(self, slot: Slot) -> None:
        while True:
            await asyncio.sleep(slot.pause(self._settings.worker.backoff_max))
            try:
                await self._launch(slot)
                await self._catch_up(slot)
            except (ConfigError, *LOST) as error:
                slot.failures += 1
                if slot.member is not None and slot.member.alive:
                    slot.member.kill()
                logger.error("worker %d does not start: %s", slot.index, str(error) or repr(error))
            else:
                return

    async def _catch_up(self, slot: Slot) -> None:
        """Let the new worker take part, with the configuration that the others serve by now."""
        member = slot.member
        assert member is not None
        async with self._swap:
            if self._build is not None and member.generation != self._build.generation:
                await self._prepare(member, self._build)
                await member.channel.call("commit")
                member.generation = self._build.generation
            member.ready = True
        logger.info("worker %d serves", member.pid, extra={"worker": slot.index})

    def _hand_over(self, slot: Slot) -> None:
        if not slot.orphaned and not self._stopping:
            slot.orphaned = True
            self._notify_others(slot, "adopt")

    def _take_back(self, slot: Slot) -> None:
        slot.orphaned = False
        self._notify_others(slot, "release")
        # What fell out of its slot while this one was away is looked after from here on.
        for other in self._slots:
            if other.orphaned and slot.member is not None:
                slot.member.channel.notify("adopt", other.index)

    def _notify_others(self, slot: Slot, what: str) -> None:
        for member in self._serving():
            if member.slot != slot.index:
                member.channel.notify(what, slot.index)

    def reopen_logs(self) -> None:
        for member in self._serving():
            member.channel.notify("reopen_logs")

    # The end.

    def withdraw(self) -> None:
        self._stopping = True
        for member in self._serving():
            member.channel.notify("withdraw")

    async def drain(self, timeout: float, force: asyncio.Event) -> None:
        self.withdraw()
        for slot in self._slots:
            if slot.member is not None and slot.member.alive:
                slot.member.channel.notify("drain", timeout)
            elif slot.tending is not None:
                # The seat is empty, and must not be filled again.
                slot.tending.cancel()
            close_all(slot.sockets)
        ended = asyncio.create_task(self._all_ended())
        forced = asyncio.create_task(force.wait())
        limit = timeout + _CLOSE_MARGIN_S
        await asyncio.wait({forced, ended}, timeout=limit, return_when="FIRST_COMPLETED")
        forced.cancel()
        if not ended.done():
            logger.warning("killing workers that did not end in time")
            self._kill_all()
            await asyncio.wait({ended}, timeout=_CLOSE_MARGIN_S)

    async def _all_ended(self) -> None:
        tasks = [each.tending for each in self._slots if each.tending is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        self._stopping = True
        self._kill_all()
        tasks = [each.tending for each in self._slots if each.tending is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_MARGIN_S)
        for task in tasks:
            task.cancel()
        for slot in self._slots:
            close_all(slot.sockets)
            if slot.member is not None:
                await slot.member.channel.aclose()
        await self._engines.aclose()

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.member is not None and slot.member.alive:
                slot.member.kill()

    # For the admin application.

    def addresses(self) -> Sequence[str]:
        assert self._loaded is not None
        scheme = "http" if self._loaded.configuration.gateway.server.tls is None else "https"
        found = [url_of(sock, scheme) for slot in self._slots for sock in slot.sockets]
        return list(dict.fromkeys(found))

    def ready(self) -> bool:
        serving = self._serving()
        if not any(slot.sockets for slot in self._slots):
            # All that such workers do needs the store.
            serving = [each for each in serving if not each.store]
        return not self._stopping and bool(serving)

    def checks(self) -> Sequence[Check]:
        serving, all_ = len(self._serving()), len(self._slots)
        restarts = sum(slot.restarts for slot in self._slots)
        detail = f"{serving} of {all_} serve, {restarts} restarted"
        if self._stopping:
            detail += ", draining"
        workers = Check("workers", serving > 0 and not self._stopping, detail)
        return [workers, *store_checks(self._serving())]

    async def workers(self) -> Sequence[WorkerInfo]:
        assert self._loaded is not None
        fingerprint = self._loaded.configuration.fingerprint
        return [
            WorkerInfo(
                pid=slot.member.pid,
                generation=slot.member.generation,
                ready=slot.member.ready,
                fingerprint=fingerprint if slot.member.generation == self._generation else "",
                error="" if slot.member.ready else "does not serve",
            )
            for slot in self._slots
            if slot.member is not None
        ]

    async def routes(self) -> Sequence[RouteInfo]:
        return await self._asking.any("routes", None, list[RouteInfo])

    async def explain(self, method: str, url: str) -> Explanation:
        return await self._asking.any("explain", Explain(method, url), Explanation)

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer:
        return await self._asking.any("delivery", call, DeliveryAnswer, CALL_S)

    async def upstreams(self) -> Sequence[dict[str, Any]]:
        """The upstreams as each worker sees them; `worker` tells whose view a mapping is."""
        return await self._asking.views("upstreams")

    async def mirrors(self) -> Sequence[dict[str, Any]]:
        return await self._asking.views("mirrors")

    async def store(self) -> Sequence[dict[str, Any]]:
        return await self._asking.views("store")

    async def purge(self, what: Purge, *, tell: bool = True) -> PurgeInfo:
        """Have every worker forget; the first to be asked tells the store."""
        shared, removed = "none", 0
        for member in self._serving():
            order = PurgeOrder(what, tell)
            answer = await self._asking.ask(member, "purge", order, PurgeInfo)
            if answer is not None:
                removed += answer.removed
                shared, tell = (answer.shared, False) if tell else (shared, False)
            elif member.alive:
                raise ControlUnavailable(f"worker {member.pid} may still have what was purged")
        return PurgeInfo(removed, shared)

    async def order_breaker(self, order: BreakerOrder) -> bool:
        asked = (self._asking.ask(each, "order_breaker", order, bool) for each in self._serving())
        found = any(await asyncio.gather(*asked))
        if found:
            self._breakers.note(order)
        return found

    async def flags(self) -> Sequence[dict[str, Any]]:
        return await self._asking.any("flags", None, list[dict[str, Any]])

    async def order_flag(self, order: FlagOrder, *, tell: bool = True) -> FlagOutcome:
        return await self._asking.order_flag(order, self._flags, tell=tell)

    async def metrics_snapshot(self) -> Snapshot:
        members = self._serving()
        answers = await asyncio.gather(
            *(self._asking.ask(each, "metrics", None, Snapshot) for each in members)
        )
        for member, answer in zip(members, answers, strict=True):
            # It may have died since, and its last word be counted already.
            if answer is not None and member.alive:
                self._aggregator.update(member.number, answer)
        # Reloads are counted here alone; number 0 is no worker's.
        self._aggregator.update(0, self._metrics.snapshot())
        return self._aggregator.total()

    def _serving(self) -> list[Member]:
        return [each.member for each in self._slots if each.member and each.member.ready]
