"""All lanes of a process: which there are, when they look into their queues, how full these are.

One blocking read serves all lanes that have nothing to do, and wakes them when something came in
through another process. What came in through this one wakes its lanes directly.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.model import GatewayConfig
from gateway.delivery import discard, tidy
from gateway.delivery.journal import Journal
from gateway.delivery.lane import LaneWorker
from gateway.delivery.plan import LanePlan, Means, RoutePlan
from gateway.delivery.queue import CALLBACK, Queue
from gateway.delivery.queued import Lane
from gateway.errors import StoreError
from gateway.observability.delivery import DEPTH, HELD, OLDEST
from gateway.observability.metrics import Metrics
from gateway.store.base import Channel, Store

logger = logging.getLogger("gateway.delivery")

# A lane that has become idle is part of the blocking read after this long at most.
_BLOCK_MS: Final = 250
_GAUGES_EVERY_S: Final = 5.0
_TRIM_EVERY_S: Final = 60.0
_LANES_EVERY_S: Final = 30.0
# What is under way when the gateway stops, or a route is gone, may take this long to end.
_GRACE_S: Final = 10.0
_HANDOVER_S: Final = 600.0
_RETRY_S: Final = 1.0
KIND: Final = "delivery"
"""What the keys of all dispatchers among the long-lived objects begin with."""

Chore = Callable[[], Awaitable[None]]
Listing = Callable[[], Awaitable[list[Any]]]


class Dispatcher:
    """See the module. Without `deliver` this process accepts events and leaves them to workers."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        clock: Clock,
        random: Random,
        metrics: Metrics,
        *,
        deliver: bool = True,
    ) -> None:
        self.queue = Queue(store, journal.retention)
        self.journal = journal
        self._store = store
        self._deliver = deliver
        self.metrics = metrics
        self.clock = clock
        self._lanes: dict[Lane, LaneWorker] = {}
        self._routes: dict[str, list[RoutePlan]] = {}
        self._watches: dict[str, list[asyncio.Future[None]]] = {}
        # What operators may ask of that works beside the lanes, by its name.
        self.listings: dict[str, Listing] = {}
        self._chores: dict[str, tuple[float, Chore]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._channel: Channel | None = None
        self._started = False
        self._stop_by = 0.0
        self._withdrawn_at = 0.0
        self._halted = False
        # Another one for each start: what a process held before it died is not this one's.
        self.consumer = f"worker-{secrets.token_hex(6)}"
        self._means = Means(
            self.queue, journal, clock, random, metrics, self.consumer, self._settled
        )

    # Plans.

    def offer(self, plan: LanePlan) -> None:
        """Deliver as this plan says, from now on. Another one may still be in use beside it."""
        worker = self._lanes.get(plan.lane)
        if worker is None:
            worker = self._lanes[plan.lane] = LaneWorker(plan.lane, self._means)
        worker.plans.append(plan)
        if self._deliver:
            worker.start()

    async def withdraw(self, plan: LanePlan) -> None:
        """Do not begin anything with this plan any more, and wait for what was begun."""
        worker = self._lanes.get(plan.lane)
        if worker is None or plan not in worker.plans:
            return
        worker.plans.remove(plan)
        if worker.plans:
            worker.wake()
            await worker.finish(plan, _HANDOVER_S)
            return
        now = self.clock.monotonic()
        if not self._halted and now > self._withdrawn_at + 1.0:
            # Plans that are withdrawn one after another share the time.
            self._stop_by = now + _GRACE_S
        await worker.stop()
        await worker.finish(plan, max(0.0, self._stop_by - self.clock.monotonic()))
        self._withdrawn_at = self.clock.monotonic()
        if not worker.plans and self._lanes.get(plan.lane) is worker:
            del self._lanes[plan.lane]

    async def halt(self, seconds: float) -> None:
        """Take nothing more, for the process ends. What is under way has so many seconds left, at
        most ten; what takes longer goes back into the queues.
        """
        self._halted = True
        grace = min(seconds, _GRACE_S)
        await asyncio.gather(*(worker.halt(grace) for worker in list(self._lanes.values())))

    def adopt(self, plan: RoutePlan) -> None:
        """Look after a route's events as this plan says; the newest one counts."""
        self._routes.setdefault(plan.route, []).append(plan)

    def release(self, plan: RoutePlan) -> None:
        """Do so no longer. Idempotent."""
        plans = self._routes.get(plan.route, [])
        if plan in plans:
            plans.remove(plan)
        if not plans:
            self._routes.pop(plan.route, None)

    def route(self, name: str) -> RoutePlan | None:
        """The plan of a route, None if it is not configured."""
        plans = self._routes.get(name)
        return plans[-1] if plans else None

    def routes(self) -> list[RoutePlan]:
        """Those of all routes that are configured."""
        return [plans[-1] for plans in self._routes.values()]

    def lanes(self) -> list[Lane]:
        """Those that are configured."""
        return list(self._lanes)

    def paused_for(self, lane: Lane) -> float:
        """Seconds until this process takes something from a lane whose target is being spared."""
        worker = self._lanes.get(lane)
        return worker.paused_for() if worker is not None else 0.0

    # Events.

    def wake(self, route: str, targets: Iterable[str]) -> None:
        """Something was put into these queues."""
        for target in targets:
            worker = self._lanes.get(Lane(route, target))
            if worker is not None:
                worker.wake()

    def watch(self, event_id: str) -> asyncio.Future[None]:
        """A future that is done when something of the event is settled by this process."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watches.setdefault(event_id, []).append(future)
        future.add_done_callback(lambda done: self._unwatch(event_id, done))
        return future

    def _unwatch(self, event_id: str, future: asyncio.Future[None]) -> None:
        watching = self._watches.get(event_id, [])
        if future in watching:
            watching.remove(future)
        if not watching:
            self._watches.pop(event_id, None)

    def _settled(self, route: str, event_id: str) -> None:
        self.wake(route, (CALLBACK,))
        for future in list(self._watches.get(event_id, ())):
            if not future.done():
                future.set_result(None)

    # Work beside the lanes.

    def every(self, name: str, seconds: float, chore: Chore) -> None:
        """Have something done again and again; a second one of this name replaces the first."""
        self._chores[name] = (seconds, chore)
        if self._started:
            self._restart(name)

    async def start(self) -> None:
        """Begin. Idempotent."""
        if self._started:
            return
        self._started = True
        self._store.require_durability()
        self.every("gauges", _GAUGES_EVERY_S, self._gauge)
        self.every("audit", _TRIM_EVERY_S, self._trim)
        self.every("letters", discard.EVERY_S, partial(discard.keep_in_bounds, self))
        self.every("tidy", tidy.EVERY_S, partial(tidy.tidy, self))
        self.every("lanes", _LANES_EVERY_S, self._tell_lanes)
        for name in self._chores:
            self._restart(name)
        if self._deliver:
            self._channel = self._store.channel()
            self._tasks["listen"] = asyncio.create_task(self._listen(self._channel))

    def _restart(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        self._tasks[name] = asyncio.create_task(self._repeat(*self._chores[name]))

    async def _repeat(self, seconds: float, chore: Chore) -> None:
        while True:
            try:
                await chore()
            except StoreError:
                pass  # said by the store itself
            except Exception:
                logger.exception("a chore of the queues failed")
            await asyncio.sleep(seconds)

    async def _listen(self, channel: Channel) -> None:
        """Wake lanes for what came in elsewhere."""
        while True:
            idle: dict[bytes, LaneWorker] = {}
            newest: list[bytes] = []
            for lane, worker in self._lanes.items():
                if worker.idle_since is not None:
                    newest += worker.idle_since
                    idle[self.queue.key("ready", lane.name)] = worker
                    # What another process gave back when it stopped.
                    idle[self.queue.key("again", lane.name)] = worker
            if not idle:
                await asyncio.sleep(_BLOCK_MS / 1000)
                continue
            try:
                found = await channel.call(
                    "XREAD", "COUNT", 1, "BLOCK", _BLOCK_MS, "STREAMS", *idle, *newest, timeout=5.0
                )
            except StoreError:
                await asyncio.sleep(_RETRY_S)
                continue
            for key, _ in found or ():
                if key in idle:
                    idle[key].wake()

    async def _gauge(self) -> None:
        now = self.clock.wall()
        depths, oldest = self.metrics.counts(DEPTH), self.metrics.counts(OLDEST)
        held = self.metrics.counts(HELD)
        for lane in self.lanes():
            count, since = await self.queue.depth(lane)
            depths.set(lane.route, lane.target, value=count)
            age = 0.0 if since is None else max(0.0, now - since)
            oldest.set(lane.route, lane.target, value=age)
        for route in {lane.route for lane in self.lanes()}:
            letters = await self._store.call("ZCARD", self.queue.key("dead", route))
            held.set(route, value=letters)

    async def _tell_lanes(self) -> None:
        """Have the store know the lanes, so that one that is configured no longer can be found."""
        names = [lane.name for lane in self.lanes()]
        if names:
            await self._store.call("SADD", self.queue.key("lanes"), *names)

    async def _trim(self) -> None:
        """Hold the audit to its number and its age."""
        key = self.queue.key("audit")
        await self._store.call("XTRIM", key, "MAXLEN", "~", self.journal.most)
        if self.journal.retention:
            now = int((await self._store.call("TIME"))[0])
            oldest = max(0, round((now - self.journal.retention) * 1000))
            await self._store.call("XTRIM", key, "MINID", "~", oldest)

    async def aclose(self) -> None:
        """Stop everything. What is under way stays in the queues."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._channel is not None:
            await self._channel.aclose()
        for worker in list(self._lanes.values()):
            await worker.stop()
            for plan in list(worker.plans):
                await worker.finish(plan, 0.0)
        self._lanes.clear()
        for futures in list(self._watches.values()):
            for future in list(futures):
                future.cancel()


def dispatcher_of(
    config: GatewayConfig,
    store: Store,
    shared: Callable[[tuple[object, ...], Callable[[], Any]], Any],
    clock: Clock,
    random: Random,
    metrics: Metrics,
) -> Dispatcher:
    """The dispatcher of a configuration's store, the same one for everybody; `shared` keeps it."""
    audit, deliver = config.telemetry.audit, config.server.deliver
    journal = Journal(audit.retention, audit.max) if audit is not None else Journal(0.0)
    dispatcher: Dispatcher = shared(
        (KIND, config.store, audit, deliver),
        lambda: Dispatcher(store, journal, clock, random, metrics, deliver=deliver),
    )
    return dispatcher
