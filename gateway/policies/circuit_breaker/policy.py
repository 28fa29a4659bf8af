"""circuit_breaker: refuses calls to an upstream that fails; see docs/policies/circuit_breaker.md.

When it opens and closes is decided in `machine.py`. Here an attempt's end is put into its words:
a failure, a success, or nothing that the upstream is to blame for.
"""

from __future__ import annotations

from asyncio import CancelledError
from math import ceil, inf
from random import Random
from typing import ClassVar

from gateway.config.failures import statuses, words
from gateway.errors import CIRCUIT_OPEN, Refused, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.circuit_breaker import KEY
from gateway.policies.circuit_breaker.board import Board, SharedBreaker
from gateway.policies.circuit_breaker.config import CircuitBreakerConfig
from gateway.policies.circuit_breaker.machine import REFUSED, Settings, State
from gateway.upstream.outcome import word_of


class CircuitBreakerPolicy(Around):
    """Asks the breaker before each attempt and tells it how the attempt ended."""

    name: ClassVar[str] = "circuit_breaker"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[CircuitBreakerConfig]] = CircuitBreakerConfig

    def __init__(
        self, config: CircuitBreakerConfig, context: BuildContext, shared: SharedBreaker
    ) -> None:
        self._breaker = shared.machine
        self._words = words(config.failures)
        self._statuses = statuses(config.failures)
        self._slow_call = config.slow_call or inf
        self._upstream = context.upstream
        self._now = context.clock.monotonic
        self._random: Random = context.random

    @classmethod
    def build(cls, config: CircuitBreakerConfig, context: BuildContext) -> CircuitBreakerPolicy:
        """Bind the breaker of the upstream, or the route's own if it has other settings."""
        board: Board = context.shared(KEY, lambda: Board(context.clock, context.metrics))
        upstream, route = context.scope(cls.name, config)
        shared: SharedBreaker = context.shared(
            ("circuit_breaker", upstream, route, config.model_dump_json()),
            lambda: SharedBreaker(board, upstream, route, _settings(config)),
        )
        return cls(config, context, shared)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward if the breaker allows it. Raises Refused(CIRCUIT_OPEN)."""
        breaker = self._breaker
        permit = breaker.epoch
        if not breaker.is_open_to_all:
            permit = breaker.admit(self._now(), self._random.random())
            if permit == REFUSED:
                raise self._refusal()
        before = exchange.upstream_seconds
        try:
            response = await forward(exchange)
        except BaseException as error:
            self._failed(exchange, permit, before, error)
            raise
        breaker.record(
            permit,
            self._now(),
            response.status in self._statuses,
            exchange.upstream_seconds - before >= self._slow_call,
        )
        return response

    def _failed(self, exchange: Exchange, permit: int, before: float, error: BaseException) -> None:
        if isinstance(error, CancelledError):
            blamed = "timeout" in self._words and _was_out_of_time(exchange, before)
        else:
            blamed = word_of(error) in self._words
        if blamed:
            self._breaker.record(permit, self._now(), failed=True, slow=False)
        else:
            self._breaker.cancel(permit)

    def _refusal(self) -> Refused:
        breaker = self._breaker
        wait = max(1, ceil(breaker.retry_after(self._now())))
        state = "was opened by hand" if breaker.manual else f"is {breaker.state.value}"
        if breaker.state is State.HALF_OPEN:
            state = "lets only a few calls through"
        detail = f"the circuit breaker of {self._upstream} {state}"
        return Refused(Rejection(CIRCUIT_OPEN, detail, [(b"retry-after", b"%d" % wait)]))


def _settings(config: CircuitBreakerConfig) -> Settings:
    return Settings(
        failure_ratio=config.failure_ratio,
        slow_ratio=config.slow_ratio,
        min_requests=config.min_requests,
        window=config.window,
        open_for=config.open_for,
        probes=config.probes,
        ramp=config.ramp,
    )


def _was_out_of_time(exchange: Exchange, before: float) -> bool:
    """Whether the deadline passed, and the upstream is to blame: it had most of the time.

    A retry that began just before the deadline, and a request that waited in a queue of ours until
    then, say nothing about the upstream.
    """
    if not exchange.timed_out or exchange.deadline is None:
        return False
    waited = exchange.upstream_seconds - before
    return waited * 2 >= exchange.deadline - exchange.started
