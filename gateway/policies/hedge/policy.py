"""hedge: a second attempt for reads that are slower than most; see docs/policies/hedge.md.

What "slower than most" means is in `quantile.py`, how a race ends in `race.py`. Here is when a
further attempt begins: one timer for all races of a route, since they become due in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import ClassVar, Final

from gateway.errors import GatewayError
from gateway.message import NO_BODY, Exchange, Handler, Response
from gateway.observability.resilience import HEDGES
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.hedge.config import HedgeConfig
from gateway.policies.hedge.quantile import Quantile
from gateway.policies.hedge.race import Race, Twin, is_good
from gateway.upstream.budget import RetryBudget

# Safe methods whose answers are asked for without a body (RFC 9110 section 9.2.1).
_READS: Final = frozenset({"GET", "HEAD"})


class HedgePolicy(Around):
    """Forwards, and once more beside that if it takes too long."""

    name: ClassVar[str] = "hedge"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[HedgeConfig]] = HedgeConfig

    def __init__(
        self, config: HedgeConfig, context: BuildContext, budget: RetryBudget, latency: Quantile
    ) -> None:
        self._config = config
        self._budget = budget
        self._latency = latency
        self._fixed = config.after if isinstance(config.after, float) else None
        self._now = context.clock.monotonic
        self._queue: deque[Race] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._counts = context.metrics.counts(HEDGES)
        self._labels = (context.route, context.upstream)
        self._cancelled: set[asyncio.Task[Twin]] = set()

    @classmethod
    def build(cls, config: HedgeConfig, context: BuildContext) -> HedgePolicy:
        """Bind the upstream's budget and the route's latency, which outlives a reload."""
        budget: RetryBudget = context.shared(("retry_budget", context.upstream), RetryBudget)
        q = float(config.after[1:]) / 100 if isinstance(config.after, str) else 0.95
        key = ("route_latency", context.route, context.upstream, q)
        latency: Quantile = context.shared(key, lambda: Quantile(q))
        return cls(config, context, budget, latency)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward; give back or raise what ended the race."""
        request = exchange.request
        if (
            request.method not in _READS
            or request.body != NO_BODY
            or exchange.subprotocols is not None
        ):
            return await forward(exchange)
        before = exchange.upstream_seconds
        delay = self._fixed or self._latency.value
        if delay is None:
            response = await forward(exchange)
            self._latency.add(exchange.upstream_seconds - before)
            return response
        race = self._enter(exchange, forward, delay)
        try:
            response = await forward(exchange)
        except BaseException as error:
            race.exchange = None
            if not race.twins:
                raise
            response = await self._decide(race, exchange, error)
        else:
            race.exchange = None
            if race.twins:
                response = await self._decide(race, exchange, response)
        if self._fixed is None:
            self._latency.add(exchange.upstream_seconds - before)
        return response

    def _enter(self, exchange: Exchange, forward: Handler, delay: float) -> Race:
        task = exchange.work or exchange.task or asyncio.current_task()
        race = Race(exchange, forward, task, self._now() + delay)
        queue = self._queue
        while queue and queue[0].exchange is None:
            queue.popleft()
        queue.append(race)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)
        return race

    def _fire(self) -> None:
        """Begin the attempts that are due, and set the timer for the next one."""
        self._timer = None
        now, queue = self._now(), self._queue
        while queue:
            race = queue[0]
            if race.exchange is not None and race.due > now:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(race.due - now, self._fire)
                return
            queue.popleft()
            if race.exchange is not None:
                self._launch(race, race.exchange)

    def _launch(self, race: Race, exchange: Exchange) -> None:
        if not exchange.target:
            # It still waits for a permit of ours: a second one would only wait behind it.
            return
        if not self._budget.acquire(self._config.budget, self._config.budget_floor):
            self._counts.add(*self._labels, "budget")
            return
        exchange.attempts += 1
        task = asyncio.get_running_loop().create_task(self._attempt(race, exchange))
        # Not in the coroutine: a task that is cancelled before its first step never gets there.
        task.add_done_callback(self._attempted)
        race.twins = (*race.twins, task)
        delay = self._fixed or self._latency.value
        if len(race.twins) < self._config.max and delay is not None:
            race.due = self._now() + delay
            self._queue.append(race)

    async def _attempt(self, race: Race, exchange: Exchange) -> Twin:
        twin = Twin(exchange.fork(asyncio.current_task()))
        try:
            twin.outcome = await race.forward(twin.exchange)
        except GatewayError as error:
            twin.outcome = error
        if not twin.is_good:
            twin.close()
        elif race.exchange is not None:
            race.win(twin)
        return twin

    def _attempted(self, _: asyncio.Task[Twin]) -> None:
        self._budget.release()

    async def _decide(
        self, race: Race, exchange: Exchange, first: Response | BaseException
    ) -> Response:
        """The first attempt has ended, by itself or interrupted, and there were others."""
        winner = race.winner
        if winner is not None:
            alone = race.take_back()
            if not alone and isinstance(first, asyncio.CancelledError):
                # The client left, or the deadline passed, in the same moment.
                winner = None
        elif _is_open(first):
            try:
                winner = await race.first_good()
            except BaseException:
                if isinstance(first, Response):
                    first.close()
                self._end(race, None)
                raise
        self._end(race, winner)
        if winner is not None:
            if isinstance(first, Response):
                first.close()
            self._counts.add(*self._labels, "won")
            return winner.take_over(exchange)
        if not isinstance(first, asyncio.CancelledError):
            self._counts.add(*self._labels, "lost")
        if isinstance(first, Response):
            return first
        raise first

    def _end(self, race: Race, winner: Twin | None) -> None:
        race.drop_twins(winner)
        for task in race.twins:
            if not task.done():
                # Held until it has noticed: the loop itself keeps no task alive.
                self._cancelled.add(task)
                task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Twin]) -> None:
        self._cancelled.discard(task)
        if not task.cancelled() and task.exception() is None:
            task.result().close()


def _is_open(first: Response | BaseException) -> bool:
    """Whether a further attempt may still do better than the first one did."""
    if isinstance(first, Response):
        return not is_good(first)
    return isinstance(first, GatewayError)
