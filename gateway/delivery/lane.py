"""One lane: takes events out of the queue of one target, has them delivered, and settles them.

A lane belongs to one process; the same lane in other processes takes from the same queue. What a
process holds when it dies is handed to others once its lease has lapsed. So an event is delivered
at least once, and each attempt carries the same idempotency key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import msgspec

from gateway.delivery.attempt import Attempt, Desk
from gateway.delivery.event import Event, Record, decode_head, decode_record
from gateway.delivery.pace import Pace
from gateway.delivery.plan import LanePlan, LaneSeries, Means
from gateway.delivery.queued import Batch, Lane, Taken
from gateway.errors import StoreError
from gateway.store.base import ReplyError

logger = logging.getLogger("gateway.delivery")

_BATCH: Final = 64
# Longest time without a look into the queue: for what came in ways that nobody tells of.
_LOOK_S: Final = 5.0
_STORE_FIRST_S: Final = 0.1
_STORE_LAST_S: Final = 5.0


class LaneWorker:
    """Works one lane off. The newest of its plans is what counts; without any it stands still."""

    def __init__(self, lane: Lane, means: Means) -> None:
        self.lane = lane
        self.plans: list[LanePlan] = []
        self.idle_since: tuple[bytes, bytes] | None = None
        self._means = means
        self._wake = asyncio.Event()
        self._pace = Pace(1)
        self._running: dict[asyncio.Task[None], tuple[LanePlan, Taken]] = {}
        self._loop: asyncio.Task[None] | None = None
        # The loop that takes events runs as long as this is what it began with.
        self._run = 0
        self._claimed_at = 0.0
        self._renewed_at = 0.0
        self._series = LaneSeries(lane, means.metrics)

    def start(self) -> None:
        """Begin, or go on with another plan. Idempotent."""
        if self._loop is None:
            self._run += 1
            self._loop = asyncio.get_running_loop().create_task(self._work(self._run))
        self.wake()

    def wake(self) -> None:
        """Look into the queue now."""
        self.idle_since = None
        self._wake.set()

    def paused_for(self) -> float:
        """Seconds until the next look, if the target is being spared; otherwise 0."""
        return max(0.0, self._pace.until - self._means.clock.monotonic())

    async def finish(self, plan: LanePlan, grace: float) -> None:
        """Wait until what was begun with this plan has ended, at most `grace` seconds; what goes on
        longer is cancelled, and goes back into the queue.
        """
        begun = {task for task, (its, _) in self._running.items() if its is plan}
        await self._finish(begun, grace, plan.lease)

    async def _finish(self, tasks: set[asyncio.Task[None]], grace: float, lease: float) -> None:
        until = self._means.clock.monotonic() + grace
        while tasks and (left := until - self._means.clock.monotonic()) > 0:
            _, tasks = await asyncio.wait(tasks, timeout=min(left, lease / 3))
            with contextlib.suppress(StoreError):
                await self._renew(self._means.clock.monotonic(), lease)
        for task in tasks:
            # Once: a second time would keep it from giving back what it holds.
            if not task.cancelling():
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def halt(self, grace: float) -> None:
        """Take nothing more, and finish what was begun, whatever its plan."""
        await self.stop()
        lease = min((plan.lease for plan in self.plans), default=_LOOK_S)
        await self._finish(set(self._running), grace, lease)

    async def stop(self) -> None:
        """Take nothing more. What was asked for is waited for: it would be held by nobody."""
        loop, self._loop = self._loop, None
        if loop is not None:
            self._run += 1
            self._wake.set()
            await asyncio.wait({loop})

    # Taking.

    async def _work(self, run: int) -> None:
        failures = 0
        while run == self._run:
            try:
                await self._turn(run)
                failures = 0
            except StoreError as error:
                self._say(error)
                pause = min(_STORE_LAST_S, _STORE_FIRST_S * 2 ** min(failures, 10))
                failures += 1
                await self._pause(run, pause * (0.5 + self._means.random.random() / 2))
            except Exception:
                logger.exception("a lane failed", extra={"lane": self.lane.name})
                await self._pause(run, 1.0)

    def _say(self, error: StoreError) -> None:
        # The store says by itself that it is away, but not that it does not like what it is asked.
        if isinstance(error, ReplyError) and not error.unavailable:
            logger.error(
                "the store refused a step", extra={"lane": self.lane.name, "reply": error.reply}
            )

    async def _turn(self, run: int) -> None:
        """Take what there is room for, or wait until there may be something."""
        self._wake.clear()
        means, pace = self._means, self._pace
        now = means.clock.monotonic()
        plan = self.plans[-1] if self.plans else None
        if plan is None:
            await self._wait(_LOOK_S)
            return
        await self._renew(now, plan.lease)
        if pace.limit != plan.concurrency:
            self._pace = pace = Pace(plan.concurrency)
        self._series.pace(pace.allowed)
        room = min(pace.room(len(self._running), now), _BATCH)
        if room < 1:
            paused = pace.until - now
            await self._wait(min(plan.lease / 3, paused) if paused > 0 else plan.lease / 3)
            return
        lease = 0.0
        if now - self._claimed_at >= plan.lease / 3:
            self._claimed_at, lease = now, plan.lease
        batch = await means.queue.take(self.lane, means.consumer, room, lease=lease, rate=plan.rate)
        if run != self._run:
            for taken in batch.events:
                await means.queue.settle(self.lane, taken, "later", None, delay=0.0)
            return
        # Replaced meanwhile: what is not begun with the old one need not be waited for.
        plan = self.plans[-1] if self.plans else plan
        for taken in batch.events:
            self._begin(plan, taken)
        if len(batch.events) < room:
            await self._rest(batch, plan)

    async def _rest(self, batch: Batch, plan: LanePlan) -> None:
        """Wait until there may be more than what was given."""
        pause = min(_LOOK_S, plan.lease / 3)
        if batch.due is not None:
            # A millisecond more, because both sides round.
            pause = min(pause, batch.due + 0.001)
        if batch.wait > 0:
            pause = min(batch.wait, plan.lease / 3)
        elif not self._wake.is_set():
            self.idle_since = batch.newest
        await self._wait(pause)
        self.idle_since = None

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _pause(self, run: int, seconds: float) -> None:
        """Wait, whatever comes in meanwhile, but not if it is time to stop."""
        until = self._means.clock.monotonic() + seconds
        while run == self._run and (left := until - self._means.clock.monotonic()) > 0:
            self._wake.clear()
            await self._wait(left)

    async def _renew(self, now: float, lease: float) -> None:
        if not self._running:
            self._renewed_at = now
        elif now - self._renewed_at >= lease / 3:
            self._renewed_at = now
            entries = [taken.entry for _, taken in self._running.values()]
            await self._means.queue.renew(self.lane, self._means.consumer, entries)

    # Delivering.

    def _begin(self, plan: LanePlan, taken: Taken) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(plan, taken))
        self._running[task] = (plan, taken)
        self._series.running(1)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._series.running(-1)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an attempt broke off", exc_info=error, extra={"lane": self.lane.name})

    async def _deliver(self, plan: LanePlan, taken: Taken) -> None:
        try:
            record = decode_record(taken.record)
            event = Event(taken.id, decode_head(taken.head), taken.body, taken.accepted_at)
        except msgspec.MsgspecError:
            # Written by a gateway that knows more than this one. It stays, for that one to take.
            logger.error("an event can't be read", extra={"event": taken.id})
            await self._settle(plan, taken, None, "later", delay=60.0)
            return
        desk = Desk(self._means, self._series, self._pace, self._settle)
        await Attempt(desk, plan, taken, event, record).run()

    async def _settle(
        self, plan: LanePlan, taken: Taken, record: Record | None, verdict: str, **how: object
    ) -> bool:
        """Write it down, however long the store is away: what was done must not be done again."""
        pause = _STORE_FIRST_S
        while True:
            try:
                return await self._means.queue.settle(
                    self.lane, taken, verdict, record, keep=plan.keep, **how
                )
            except StoreError as error:
                self._say(error)
                await asyncio.sleep(pause * (0.5 + self._means.random.random() / 2))
                pause = min(_STORE_LAST_S, pause * 2)
