"""All schedules of a process: looks which ticks have come, and fires them.

Every gateway does so, by the store's clock. That a tick becomes one event is seen to by the script
that keeps events: a firing's repetitions have the schedule's name and the tick in common. That none
is fired again later is seen to by the newest tick that is done, which never goes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from gateway.clock import Clock
from gateway.delivery.entrance import Entrance
from gateway.delivery.queue import Queue
from gateway.delivery.schedules.book import Book, Fired
from gateway.delivery.schedules.due import GRACE_S, Rule, find
from gateway.delivery.sources import ScheduleInfo
from gateway.errors import StoreError
from gateway.message import Exchange
from gateway.observability.delivery import FIRING_LAG, FIRINGS, TICK_DONE, TICK_NEXT
from gateway.observability.metrics import Metrics

logger = logging.getLogger("gateway.delivery")

# Longest time without a look: clocks jump, and a store is emptied, without telling.
_LOOK_S: Final = 15.0
_GATHER_S: Final = 0.05
_STORE_FIRST_S: Final = 0.1
_STORE_LAST_S: Final = 5.0
# How long firings are told from their repetitions. The newest tick that is done does the same for
# longer; this is for a gateway that is killed between the two.
_KNOWN_S: Final = 7 * 86400.0


def _always(exchange: Exchange) -> bool:
    del exchange
    return True


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. `key` is what the store knows it by; `make(tick, now)` gives the exchange of a
    firing, `now` being monotonic seconds; while it is not `is_on`, ticks pass.
    """

    route: str
    key: str
    rule: Rule
    make: Callable[[float, float], Exchange]
    entrance: Entrance
    is_on: Callable[[Exchange], bool] = _always

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.rule.name


class Timetable:
    """See the module. One for a process and store."""

    def __init__(self, queue: Queue, clock: Clock, random: Random, metrics: Metrics) -> None:
        self._book = Book(queue)
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._offers: dict[str, list[Sequence[Schedule]]] = {}
        self._changed = True
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ahead: set[str] = set()
        self._shown: set[str] = set()
        # What was found at the last look: with this newest tick, this is when the next one is due.
        self._found: dict[str, tuple[float, float | None]] = {}

    def offer(self, route: str, schedules: Sequence[Schedule]) -> None:
        """Fire these on the route from now on, in place of any others of that route."""
        self._offers.setdefault(route, []).append(schedules)
        self._look_again()

    def withdraw(self, route: str, schedules: Sequence[Schedule]) -> None:
        """Undo an offer; one that is not there is fine."""
        offers = self._offers.get(route, [])
        for position, offer in enumerate(offers):
            if offer is schedules:
                del offers[position]
                break
        if not offers:
            self._offers.pop(route, None)
        self._look_again()

    def _look_again(self) -> None:
        self._changed = True
        self._wake.set()

    async def start(self) -> None:
        """Begin. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def aclose(self) -> None:
        """Fire nothing more. What was being fired may have been kept."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def listing(self) -> list[ScheduleInfo]:
        """How far each schedule is. Raises StoreError."""
        schedules = self._schedules()
        if not schedules:
            return []
        now, lasts = await self._book.look([(each.key, each.route) for each in schedules])
        fired = await self._book.fired([each.key for each in schedules])
        return [
            _row(each, last, now, newest)
            for each, last, newest in zip(schedules, lasts, fired, strict=True)
        ]

    # Looking.

    def _schedules(self) -> list[Schedule]:
        return [each for offers in self._offers.values() for each in offers[-1]]

    async def _work(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                pause = await self._turn()
                failures = 0
            except StoreError:
                # The store says by itself that it is away.
                pause = min(_STORE_LAST_S, _STORE_FIRST_S * 2 ** min(failures, 10))
                pause *= 0.5 + self._random.random() / 2
                failures += 1
            except Exception:
                logger.exception("the schedules failed")
                pause = 1.0
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return
        # A change of the configuration is one of many routes.
        await asyncio.sleep(_GATHER_S)

    async def _turn(self) -> float:
        """Fire what is due. Gives the seconds until there is something to do."""
        await self._forget()
        schedules = self._schedules()
        self._show_only({each.name for each in schedules})
        if not schedules:
            return _LOOK_S
        began = self._clock.monotonic()
        now, lasts = await self._book.look([(each.key, each.route) for each in schedules])
        attended = [
            self._attend(each, last, now) for each, last in zip(schedules, lasts, strict=True)
        ]
        results = await asyncio.gather(*attended, return_exceptions=True)
        failed = [each for each in results if isinstance(each, BaseException)]
        if failed:
            raise failed[0]
        # A millisecond more, because both sides round.
        waits = [each - now + 0.001 for each in results if isinstance(each, float)]
        passed = self._clock.monotonic() - began
        return max(0.0, min([_LOOK_S, *waits]) - passed)

    async def _forget(self) -> None:
        """Have the store forget schedules that were taken out of the configuration."""
        if not self._changed:
            return
        self._changed = False
        self._found.clear()
        # While one configuration follows another, what either of them has stays.
        keys = {each.key for offers in self._offers.values() for offer in offers for each in offer}
        try:
            await self._book.forget(keys, self._offers.keys())
        except StoreError:
            self._changed = True
            raise

    def _show_only(self, names: set[str]) -> None:
        for name in self._shown - names:
            self._metrics.counts(TICK_DONE).drop(name)
            self._metrics.counts(TICK_NEXT).drop(name)
        self._shown = names

    # Firing.

    async def _attend(self, schedule: Schedule, last: float, now: float) -> float | None:
        """Fire its ticks that are due. Gives when the next one is."""
        name = schedule.name
        self._check_clock(name, last, now)
        known, next_at = self._found.get(schedule.key, (-1.0, None))
        if known == last and (next_at is None or now < next_at):
            return next_at
        due = find(schedule.rule, last, now)
        for tick in due.fire:
            await self._fire(schedule, tick, now)
        if due.passed:
            logger.warning(
                "ticks of a schedule passed without being fired",
                extra={"schedule": name, "ticks": due.passed},
            )
            self._metrics.counts(FIRINGS).add(name, "passed", amount=due.passed)
        if due.through is not None and due.through not in due.fire:
            await self._book.done(schedule.key, due.through)
        done = last if due.through is None else due.through
        self._metrics.counts(TICK_DONE).set(name, value=done)
        self._metrics.counts(TICK_NEXT).set(name, value=due.next_at or 0.0)
        self._found[schedule.key] = (done, due.next_at)
        return due.next_at

    async def _fire(self, schedule: Schedule, tick: float, now: float) -> None:
        name = schedule.name
        began = self._clock.monotonic()
        origin, key = f"schedule:{name}", f"schedule:{name}:{tick:.0f}"
        exchange = schedule.make(tick, began)
        if not schedule.is_on(exchange):
            await self._book.done(schedule.key, tick)
            self._metrics.counts(FIRINGS).add(name, "off")
            return
        try:
            receipt = await schedule.entrance.admit(exchange, origin, key, (key, _KNOWN_S))
            await self._book.done(schedule.key, tick, receipt.id)
        except StoreError:
            self._metrics.counts(FIRINGS).add(name, "failed")
            raise
        result = "invalid" if receipt.quarantined else "fired"
        self._metrics.counts(FIRINGS).add(name, "repeated" if receipt.duplicate else result)
        if not receipt.duplicate:
            late = now + self._clock.monotonic() - began - tick - schedule.rule.delay(tick)
            self._metrics.timings(FIRING_LAG).observe(name, seconds=max(0.0, late))

    def _check_clock(self, name: str, last: float, now: float) -> None:
        if last <= now + GRACE_S:
            self._ahead.discard(name)
        elif name not in self._ahead:
            self._ahead.add(name)
            logger.error(
                "the store's clock went back: a schedule waits until its newest tick is over again",
                extra={"schedule": name, "seconds": round(last - now)},
            )


def _row(schedule: Schedule, last: float, now: float, fired: Fired | None) -> ScheduleInfo:
    rule = schedule.rule
    ticks, next_at = rule.ticks, find(rule, last, now).next_at
    row = ScheduleInfo(
        name=schedule.name,
        route=schedule.route,
        cron=ticks.text,
        timezone=ticks.zone.key,
        missed=rule.missed,
        next=None if next_at is None else ticks.shown(next_at),
        done=ticks.shown(last),
    )
    if fired is not None:
        row.fired, row.fired_at = ticks.shown(fired.tick), ticks.shown(fired.at)
        row.event_id = fired.event_id
    return row
