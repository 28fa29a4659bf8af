"""Reads one stream of another server into a route, as one consumer of a group.

An entry is confirmed (XACK) only once its event is durable. If this process dies between the two,
the entry is handed to another consumer, and the event told to be a repetition by the entry's id.
While the gateway's own store is away nothing more is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from gateway.clock import Clock
from gateway.delivery.entrance import Entrance
from gateway.delivery.queue import Queue, digest
from gateway.delivery.reception import Receipt
from gateway.delivery.sources import StreamInfo
from gateway.delivery.streams.group import Found, Group, Reading
from gateway.delivery.streams.shape import Shape
from gateway.errors import INTERNAL_ERROR, Rejection, StoreError
from gateway.observability.delivery import ENTRIES, STREAM_AGE, STREAM_PENDING, STREAM_UP
from gateway.observability.metrics import Metrics
from gateway.store.base import ReplyError
from gateway.store.script import Script

logger = logging.getLogger("gateway.delivery")

_HOLD: Final = Script.load("delivery_hold")
_SHORTEN: Final = Script.load("delivery_shorten")
_LEASE_S: Final = 15.0
# How soon a flag is seen that is on again.
_LOOK_S: Final = 0.5
_FIRST_S: Final = 0.1
_LAST_S: Final = 5.0
_AT_ONCE: Final = 100
_COUNT_EVERY_S: Final = 15.0
# How long entries are told from their repetitions: until they are confirmed, and a while longer,
# for a consumer that was handed one that another one just kept.
_KNOWN_S: Final = 7 * 86400.0
_CONFIRMED_S: Final = 3600.0
# Ids before this moment are no times: producers may number entries as they like.
_TIMES_BEGIN_MS: Final = 1_000_000_000_000


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream, as configured. If it is `ordered`, one gateway at a time reads it; none reads it
    while it is not `is_on`.
    """

    name: str
    route: str
    reading: Reading
    shape: Shape
    entrance: Entrance
    ordered: bool = False
    is_on: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True)
class Tools:
    """What the readers of a process share. `consumer` names the process in all groups."""

    queue: Queue
    clock: Clock
    random: Random
    metrics: Metrics
    consumer: str


class Reader:
    """See the module. The newest of its plans counts."""

    def __init__(self, name: str, tools: Tools) -> None:
        self.name = name
        self.plans: list[StreamPlan] = []
        self._tools = tools
        self._task: asyncio.Task[None] | None = None
        self._group: Group | None = None
        self._failed = False
        self._claim_at = 0.0
        self._count_at = 0.0
        self._unconfirmed: list[bytes] = []
        # Whether entries may have been handed to this process that it has not seen.
        self._unsure = False
        self._held_at = float("-inf")

    def start(self) -> None:
        """Begin, or go on with another plan. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Read nothing more. What was read and not confirmed is another one's later."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if self._group is not None:
            group, self._group = self._group, None
            await group.aclose()
            await self._let_go()
        for family in (STREAM_UP, STREAM_PENDING):
            self._tools.metrics.counts(family).drop(self.name)

    async def describe(self) -> StreamInfo:
        """How it is, for operators."""
        plan = self.plans[-1]
        reading = plan.reading
        pending: int | None = None
        try:
            pending = await Group(reading, self._tools.consumer).pending()
        except StoreError:
            pass  # it is down, and that is what the row says
        lease = self._tools.clock.monotonic() - self._held_at < _LEASE_S
        return StreamInfo(
            name=self.name,
            route=plan.route,
            address=reading.store.status().address,
            stream=reading.stream,
            group=reading.group,
            up=pending is not None and not self._failed,
            reading=not plan.ordered or lease,
            pending=pending,
        )

    # Reading.

    async def _work(self) -> None:
        failures = 0
        while True:
            plan = self.plans[-1]
            try:
                await self._turn(plan)
                failures = 0
                self._tell(plan, up=True)
            except StoreError as error:
                self._unsure = True
                self._tell(plan, up=False, why=error)
                await self._pause(failures)
                failures += 1
            except Exception:
                logger.exception("a stream's reader failed", extra={"stream": self.name})
                await asyncio.sleep(1.0)

    async def _pause(self, failures: int) -> None:
        pause = min(_LAST_S, _FIRST_S * 2 ** min(failures, 10))
        await asyncio.sleep(pause * (0.5 + self._tools.random.random() / 2))

    async def _turn(self, plan: StreamPlan) -> None:
        """One batch. Raises StoreError of the stream's server."""
        group = await self._grouped(plan)
        await self._confirm(plan, group)
        if not plan.is_on():
            await asyncio.sleep(_LOOK_S)
            return
        silent = plan.reading.claim_after
        if plan.ordered:
            held = await self._hold()
            if not held:
                await asyncio.sleep(_LEASE_S / 5)
                return
            if held == 2 or self._unsure:
                # Who reads alone takes over at once what was left, before anything that is newer.
                silent, self._claim_at = 0.0, 0.0
        now = self._tools.clock.monotonic()
        if now >= self._claim_at:
            self._claim_at = now + plan.reading.claim_after / 2
            async for found in group.claim(silent):
                await self._take(plan, group, found)
            self._unsure = False
        if now >= self._count_at:
            self._count_at = now + _COUNT_EVERY_S
            self._tools.metrics.counts(STREAM_PENDING).set(self.name, value=await group.pending())
        await self._take(plan, group, await group.read())

    async def _grouped(self, plan: StreamPlan) -> Group:
        group = self._group
        if group is None or group.reading != plan.reading:
            if group is not None:
                await group.aclose()
            group = self._group = Group(plan.reading, self._tools.consumer)
        return group

    def _tell(self, plan: StreamPlan, *, up: bool, why: StoreError | None = None) -> None:
        self._tools.metrics.counts(STREAM_UP).set(self.name, value=up)
        if up == (not self._failed):
            return
        self._failed = not up
        facts = {"stream": self.name, "address": str(plan.reading.store.status().address)}
        if up:
            logger.info("a stream is read again", extra=facts)
        else:
            reason = why.reply if isinstance(why, ReplyError) else why and why.detail
            logger.error("a stream can't be read: %s", reason, extra=facts)

    # Keeping.

    async def _take(self, plan: StreamPlan, group: Group, entries: Sequence[Found]) -> None:
        """Keep all of these, however long that takes, and confirm them."""
        if not entries:
            return
        # What was being waited for when the configuration changed is taken as the new one says.
        newest = self.plans[-1]
        if newest.reading == plan.reading:
            plan = newest
        if plan.ordered:
            entries = await self._keep_in_order(plan, entries)
        else:
            for begin in range(0, len(entries), _AT_ONCE):
                some = entries[begin : begin + _AT_ONCE]
                await asyncio.gather(*(self._keep(plan, entry) for entry in some))
        self._unconfirmed += [entry.id for entry in entries]
        await self._confirm(plan, group)

    async def _keep_in_order(self, plan: StreamPlan, entries: Sequence[Found]) -> Sequence[Found]:
        """Those that were kept: all, unless another gateway has taken over meanwhile."""
        for position, entry in enumerate(entries):
            late = self._tools.clock.monotonic() - self._held_at > _LEASE_S / 3
            if late and not await self._hold():
                return entries[:position]
            await self._keep(plan, entry)
        return entries

    async def _keep(self, plan: StreamPlan, entry: Found) -> None:
        failures = 0
        broken: Rejection | None = None
        while True:
            try:
                receipt = await self._admit(plan, entry, broken)
                break
            except StoreError:
                # The gateway's own store: it says by itself that it is away.
                await self._pause(failures)
                failures += 1
            except Exception as error:
                if broken is not None:
                    raise
                # A fault of the gateway's that this entry meets: it must not stand before others.
                logger.exception("an entry can't be taken", extra={"stream": self.name})
                broken = Rejection(INTERNAL_ERROR, type(error).__name__)
        self._count(entry, receipt)

    async def _admit(self, plan: StreamPlan, entry: Found, broken: Rejection | None) -> Receipt:
        now = self._tools.clock.monotonic()
        if broken is not None:
            exchange = plan.shape.bare(entry.id, entry.fields, now)
            invalid: Rejection | None = broken
        else:
            exchange, invalid = plan.shape.fill(entry.id, entry.fields, now)
        key = f"stream:{plan.name}:{entry.id.decode('latin-1')}"
        known = (_name(plan, entry.id), _KNOWN_S)
        return await plan.entrance.admit(exchange, f"stream:{plan.name}", key, known, invalid)

    def _count(self, entry: Found, receipt: Receipt) -> None:
        tools = self._tools
        result = "invalid" if receipt.quarantined else "accepted"
        tools.metrics.counts(ENTRIES).add(self.name, "duplicate" if receipt.duplicate else result)
        came = int(entry.id.partition(b"-")[0])
        if came > _TIMES_BEGIN_MS and not receipt.duplicate:
            age = max(0.0, tools.clock.wall() - came / 1000)
            tools.metrics.timings(STREAM_AGE).observe(self.name, seconds=age)

    async def _confirm(self, plan: StreamPlan, group: Group) -> None:
        if not self._unconfirmed:
            return
        await group.confirm(self._unconfirmed)
        ids, self._unconfirmed = self._unconfirmed, []
        names = [digest(plan.route, _name(plan, each)) for each in ids]
        known = max(_CONFIRMED_S, 2 * plan.reading.claim_after)
        try:
            await self._run(_SHORTEN, round(known * 1000), *names)
        except StoreError:
            pass  # they are known for longer than they need to be

    # Reading alone.

    async def _hold(self) -> int:
        """2 if this process reads alone from now on, 1 if it already did, 0 if another one does."""
        try:
            held: int = await self._run(
                _HOLD, f"stream:{self.name}", self._tools.consumer, round(_LEASE_S * 1000)
            )
        except StoreError:
            return 0
        if held:
            self._held_at = self._tools.clock.monotonic()
        return held

    async def _let_go(self) -> None:
        if not any(plan.ordered for plan in self.plans):
            return
        try:
            await self._run(_HOLD, f"stream:{self.name}", self._tools.consumer, 0)
        except StoreError:
            pass  # the lease ends by itself

    async def _run(self, script: Script, *args: Any) -> Any:
        queue = self._tools.queue
        return await queue.store.run(script, (queue.base,), args)


def _name(plan: StreamPlan, entry_id: bytes) -> str:
    """By what repetitions of an entry are told: the stream as it is known here, and its id."""
    return f"stream:{plan.name}:{plan.reading.stream}:{entry_id.decode('latin-1')}"
