"""bulkhead: bounds how much of the gateway one upstream can hold; see docs/policies/bulkhead.md.

Who gets a permit is decided in `machine.py`, how many there are in adaptive mode in `gradient.py`.
Here requests wait and are woken. A permit is held to the end of the answer's body.
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import Any, ClassVar

from gateway.errors import BULKHEAD_FULL, Refused, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.observability.metrics import Metrics
from gateway.observability.resilience import (
    BULKHEAD_ACTIVE,
    BULKHEAD_LIMIT,
    BULKHEAD_QUEUED,
    BULKHEAD_WAITS,
)
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.bulkhead.config import BulkheadConfig
from gateway.policies.bulkhead.gradient import Gradient, GradientSettings
from gateway.policies.bulkhead.machine import Bulkhead


class SharedBulkhead:
    """A bulkhead that several routes may share, with its name: an upstream, and perhaps a route."""

    def __init__(
        self, scope: tuple[str, str], config: BulkheadConfig, metrics: Metrics, now: float
    ) -> None:
        self.upstream, self.route = scope
        self.gradient: Gradient | None = None
        limit = config.max_concurrent
        if limit == "adaptive":
            bounds = config.adaptive
            settings = GradientSettings(bounds.start, bounds.min, bounds.max, bounds.tolerance)
            self.gradient = Gradient(settings, now)
            limit = settings.start
        # In report mode nothing is delayed either: who would have to wait is reported.
        queue = config.max_queued if config.mode == "enforce" and config.queue_timeout else 0
        self.machine: Bulkhead[asyncio.Future[bool]] = Bulkhead(limit, queue)
        self._metrics = metrics
        metrics.before_snapshot.append(self._publish)

    def leave(self) -> None:
        """Give a permit back, and wake those whose turn it is."""
        granted = self.machine.leave()
        while granted:
            waiter = granted.pop(0)
            if waiter.done():
                # Its task was cancelled and has not noticed yet: the permit goes on to the next.
                granted += self.machine.leave()
            else:
                waiter.set_result(True)

    def learn(self, seconds: float, now: float) -> None:
        """Take the latency of an answer, in adaptive mode."""
        gradient, machine = self.gradient, self.machine
        if gradient is not None and gradient.sample(seconds, machine.active, now):
            machine.limit = gradient.limit

    def _publish(self) -> None:
        machine = self.machine
        labels = (self.upstream, self.route)
        for family, value in (
            (BULKHEAD_ACTIVE, machine.active),
            (BULKHEAD_QUEUED, machine.queued),
            (BULKHEAD_LIMIT, machine.limit),
        ):
            self._metrics.counts(family).set(*labels, value=value)

    def status(self) -> dict[str, Any]:
        """What the admin API shows."""
        machine = self.machine
        return {
            "route": self.route,
            "active": machine.active,
            "limit": machine.limit,
            "adaptive": self.gradient is not None,
            "queued": machine.queued,
            "max_queued": machine.max_queued,
        }

    async def aclose(self) -> None:
        """Nobody uses it any more; another of its name publishes from now on, or none."""
        hooks = self._metrics.before_snapshot
        self._metrics.before_snapshot = [each for each in hooks if each != self._publish]
        for family in (BULKHEAD_ACTIVE, BULKHEAD_QUEUED, BULKHEAD_LIMIT):
            self._metrics.counts(family).drop(self.upstream, self.route)


class BulkheadPolicy(Around):
    """Forwards with a permit, waits for one, or refuses."""

    name: ClassVar[str] = "bulkhead"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[BulkheadConfig]] = BulkheadConfig

    def __init__(
        self, config: BulkheadConfig, context: BuildContext, shared: SharedBulkhead
    ) -> None:
        self._shared = shared
        self._machine = shared.machine
        self._adapts = shared.gradient is not None
        self._queue_timeout = config.queue_timeout
        self._retry_after = b"%d" % max(1, ceil(config.queue_timeout))
        self._route = context.route
        self._upstream = context.upstream
        self._now = context.clock.monotonic
        self._waits = context.metrics.counts(BULKHEAD_WAITS)

    @classmethod
    def build(cls, config: BulkheadConfig, context: BuildContext) -> BulkheadPolicy:
        """Bind the bulkhead of the upstream, or the route's own if it has other settings."""
        scope = context.scope(cls.name, config)
        now = context.clock.monotonic()
        shared: SharedBulkhead = context.shared(
            ("bulkhead", *scope, config.model_dump_json()),
            lambda: SharedBulkhead(scope, config, context.metrics, now),
        )
        return cls(config, context, shared)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward once there is a permit. Raises Refused(BULKHEAD_FULL)."""
        machine = self._machine
        if machine.active < machine.limit and not machine.queued:
            machine.active += 1
        else:
            await self._wait()
        before = exchange.upstream_seconds
        try:
            response = await forward(exchange)
        except BaseException:
            self._shared.leave()
            raise
        if self._adapts:
            self._shared.learn(exchange.upstream_seconds - before, self._now())
        if response.body is None:
            response.on_close(self._shared.leave)
        elif machine.queued:
            self._shared.leave()
        else:
            machine.active -= 1
        return response

    async def _wait(self) -> None:
        """Wait for a permit. Cancelled, it leaves neither a hole in the queue nor a lost permit."""
        machine, route = self._machine, self._route
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        if not machine.wait(route, waiter):
            self._note("full")
            raise self._refusal("and no more may wait")
        timer = loop.call_later(self._queue_timeout, self._time_out, waiter)
        try:
            admitted = await waiter
        except BaseException:
            # Granted in the very moment in which the client left: the permit goes back. One that
            # was granted after that has gone on to the next by itself, see `leave`.
            left = machine.give_up(route, waiter)
            if not left and not waiter.cancelled() and waiter.result():
                self._shared.leave()
            self._note("left")
            raise
        finally:
            timer.cancel()
        self._note("admitted" if admitted else "timeout")
        if not admitted:
            raise self._refusal(f"and none came free within {self._queue_timeout:g} s")

    def _time_out(self, waiter: asyncio.Future[bool]) -> None:
        if self._machine.give_up(self._route, waiter) and not waiter.done():
            waiter.set_result(False)

    def _note(self, result: str) -> None:
        self._waits.add(self._upstream, self._shared.route, result)

    def _refusal(self, why: str) -> Refused:
        detail = f"{self._machine.limit} requests are at {self._upstream} already, {why}"
        return Refused(Rejection(BULKHEAD_FULL, detail, [(b"retry-after", self._retry_after)]))
