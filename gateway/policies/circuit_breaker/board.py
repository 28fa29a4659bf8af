"""All breakers of one process: what is told about them, and the orders that people give by hand.

It outlives every configuration that has a breaker, so that an order holds until it is taken back,
whatever is reloaded meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

from gateway.clock import Clock
from gateway.observability.metrics import Metrics
from gateway.observability.resilience import BREAKER_CHANGES, BREAKER_SINCE, BREAKER_STATE
from gateway.policies.circuit_breaker.machine import Breaker, Settings, State

logger = logging.getLogger("gateway.breaker")

_LEVELS: Final = {state: level for level, state in enumerate(State)}


class SharedBreaker:
    """A breaker that several routes may share, with its name: an upstream, and perhaps a route."""

    def __init__(self, board: Board, upstream: str, route: str, settings: Settings) -> None:
        self.upstream = upstream
        self.route = route
        self._board = board
        self.machine = Breaker(settings, board.clock.monotonic())
        self.machine.on_change = self._changed
        self._changed_at = board.clock.wall()
        board.attach(self)

    def _changed(self, breaker: Breaker) -> None:
        self._changed_at = self._board.clock.wall()
        self._board.changed(self)
        facts = {"upstream": self.upstream, "route": self.route, "reason": breaker.reason}
        of = f"{self.upstream} ({self.route})" if self.route else self.upstream
        level = logging.WARNING if breaker.state is State.OPEN else logging.INFO
        logger.log(level, "circuit breaker of %s: %s (%s)", of, breaker.state, breaker.reason,
                   extra=facts)  # fmt: skip

    def publish(self, metrics: Metrics) -> None:
        """Bring its gauges up to date."""
        labels = (self.upstream, self.route)
        level = _LEVELS[self.machine.state]
        metrics.counts(BREAKER_STATE).set(*labels, value=level)
        metrics.counts(BREAKER_SINCE).set(*labels, value=self._changed_at)

    def status(self) -> dict[str, Any]:
        """What the admin API shows."""
        breaker = self.machine
        return {
            "route": self.route,
            "state": breaker.state.value,
            "manual": breaker.manual is not None,
            "reason": breaker.reason,
            "since": self._changed_at,
            "calls": breaker.calls,
            "failures": breaker.failures,
            "slow": breaker.slow,
        }

    async def aclose(self) -> None:
        """Nobody uses it any more."""
        self.machine.on_change = None
        self._board.detach(self)


class Board:
    """Every breaker there is. `clock` is for those that ask when something changed."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self.clock = clock
        self._metrics = metrics
        self._breakers: list[SharedBreaker] = []
        self._orders: dict[tuple[str, str], State] = {}

    def attach(self, breaker: SharedBreaker) -> None:
        """A breaker was made; it follows the order that stands for its name."""
        self._breakers.append(breaker)
        breaker.publish(self._metrics)
        order = self._orders.get((breaker.upstream, breaker.route))
        breaker.machine.force(order, self.clock.monotonic())

    def detach(self, breaker: SharedBreaker) -> None:
        """A breaker is gone; its series go, unless another of its name has taken them over."""
        self._breakers.remove(breaker)
        labels = (breaker.upstream, breaker.route)
        if not any((each.upstream, each.route) == labels for each in self._breakers):
            for family in (BREAKER_STATE, BREAKER_SINCE):
                self._metrics.counts(family).drop(*labels)

    def changed(self, breaker: SharedBreaker) -> None:
        """Count a change of state."""
        breaker.publish(self._metrics)
        machine = breaker.machine
        labels = (breaker.upstream, breaker.route, machine.state.value, machine.reason)
        self._metrics.counts(BREAKER_CHANGES).add(*labels)

    def of(self, upstream: str) -> Iterator[SharedBreaker]:
        """The breakers of one upstream."""
        return (each for each in self._breakers if each.upstream == upstream)

    def order(self, upstream: str, route: str, state: State | None) -> bool:
        """Open or close a breaker by hand, or leave it to itself again. False if there is none."""
        found = [each for each in self.of(upstream) if each.route == route]
        if not found:
            return False
        if state is None:
            self._orders.pop((upstream, route), None)
        else:
            self._orders[upstream, route] = state
        for each in found:
            each.machine.force(state, self.clock.monotonic())
        return True
