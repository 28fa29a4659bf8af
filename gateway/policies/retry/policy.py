"""retry: what failed is tried again; see docs/policies/retry.md.

Every decision is in `rules.py`; here the attempts are made, and what they hold is given back. An
answer is retried before anything of it was passed on, or not at all: nothing is buffered.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import ClassVar, Final

from gateway.clock import Clock
from gateway.config.failures import statuses, words
from gateway.errors import CIRCUIT_OPEN, ClientError, GatewayError
from gateway.message import Exchange, Handler, Request, Response
from gateway.observability.families import Counts
from gateway.observability.resilience import RETRIES
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.retry.config import RetryConfig
from gateway.policies.retry.replay import ReplayBody
from gateway.policies.retry.rules import Backoff, Failed, Skip, fits, retry_after, skip_for
from gateway.upstream.budget import RetryBudget
from gateway.upstream.outcome import word_of

_KEY: Final = b"idempotency-key"


class RetryPolicy(Around):
    """Makes attempts until one is good, or there is no point or no permission."""

    name: ClassVar[str] = "retry"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[RetryConfig]] = RetryConfig

    def __init__(self, config: RetryConfig, context: BuildContext, budget: RetryBudget) -> None:
        self._config = config
        self._words = words(config.on)
        self._statuses = statuses(config.on)
        self._retries = config.attempts - 1
        self._per_try = config.per_try_timeout
        self._backoff = Backoff(config.backoff.base, config.backoff.max)
        self._budget = budget
        self._fields = _AttemptFields(config, context.clock) if _tells(config) else None
        self._clock = context.clock
        self._now = context.clock.monotonic
        self._random: Random = context.random
        self._counts: Counts = context.metrics.counts(RETRIES)
        self._labels = (context.route, context.upstream)

    @classmethod
    def build(cls, config: RetryConfig, context: BuildContext) -> RetryPolicy:
        """Bind the upstream's budget, which all its routes share whatever else they configure."""
        budget: RetryBudget = context.shared(("retry_budget", context.upstream), RetryBudget)
        return cls(config, context, budget)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward, and again if that failed. Raises what the last attempt raised."""
        budget = self._budget
        exchange.attempts_left = self._retries
        exchange.attempt_timeout = self._per_try
        request = exchange.request
        if request.body is None and request.stream is not None:
            self._keep(request)
        if self._fields is not None:
            self._fields.write(exchange)
        began = self._now()
        budget.active += 1
        try:
            try:
                response = await forward(exchange)
            except GatewayError as error:
                response = await self._again(exchange, forward, error, began)
            else:
                if response.status in self._statuses:
                    response = await self._again(exchange, forward, response, began)
        except BaseException:
            budget.active -= 1
            raise
        if response.body is None:
            response.on_close(budget.leave)
        else:
            budget.active -= 1
        if request.stream is not None and isinstance(request.stream, ReplayBody):
            request.stream.forget()
        return response

    def _keep(self, request: Request) -> None:
        declared = request.headers.get(b"content-length")
        limit = self._config.keep_body if self._retries else 0
        if declared is not None and declared.isdigit() and int(declared) > limit:
            limit = 0
        assert request.stream is not None
        request.stream = ReplayBody(request.stream, limit)

    async def _again(
        self,
        exchange: Exchange,
        forward: Handler,
        outcome: Response | GatewayError,
        began: float,
    ) -> Response:
        """Retry for as long as that is right. Gives back, or raises, the last attempt's outcome."""
        retry = 0
        while True:
            retry += 1
            reason = self._reason(outcome)
            pause = self._pause(exchange, outcome, reason, retry, began)
            if pause is None:
                if isinstance(outcome, GatewayError):
                    raise outcome
                return outcome
            try:
                if isinstance(outcome, Response):
                    outcome.close()
                outcome = await self._attempt(exchange, forward, pause, began)
            finally:
                self._budget.release()
            result = "failure" if self._failed(outcome) else "success"
            self._counts.add(*self._labels, result, reason)
            if isinstance(outcome, Response) and result == "success":
                return outcome

    def _reason(self, outcome: Response | GatewayError) -> str:
        """The word or status for which an outcome is retried; empty if it is not."""
        if isinstance(outcome, Response):
            return str(outcome.status) if outcome.status in self._statuses else ""
        word = word_of(outcome)
        return word if word in self._words else ""

    def _failed(self, outcome: Response | GatewayError) -> bool:
        return isinstance(outcome, GatewayError) or outcome.status in self._statuses

    def _pause(
        self,
        exchange: Exchange,
        outcome: Response | GatewayError,
        reason: str,
        retry: int,
        began: float,
    ) -> float | None:
        """Seconds until the next attempt, with a permit of the budget; None for no more of them."""
        request = exchange.request
        stream = request.stream
        error = outcome if isinstance(outcome, GatewayError) else None
        asked = 0.0
        if isinstance(outcome, Response):
            asked = retry_after(outcome.headers, self._clock.wall())
        failed = Failed(
            reason,
            request.method,
            _has_key(request),
            error is None or error.sent,
            not isinstance(stream, ReplayBody) or stream.can_restart,
            asked,
        )
        skip = skip_for(failed, self._config.unsafe, exchange.attempts_left or 0)
        pause = asked + self._backoff.pause(retry, self._random.random())
        if skip is None:
            longest = self._config.max_total
            until = None if longest is None else began + longest
            if not fits(pause, self._now(), exchange.deadline, until):
                skip = Skip.DEADLINE
            elif not self._budget.acquire(self._config.budget, self._config.budget_floor):
                skip = Skip.BUDGET
        elif error is not None and error.kind is CIRCUIT_OPEN:
            skip = Skip.CIRCUIT_OPEN
        elif isinstance(error, ClientError):
            skip = Skip.CLIENT_GONE
        if skip is None:
            return pause
        self._counts.add(*self._labels, "skipped", skip)
        return None

    async def _attempt(
        self, exchange: Exchange, forward: Handler, pause: float, began: float
    ) -> Response | GatewayError:
        """Wait, and make one more attempt at another target if there is one."""
        if pause:
            try:
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                if exchange.client_gone:
                    self._counts.add(*self._labels, "skipped", Skip.CLIENT_GONE)
                raise
        exchange.attempts += 1
        exchange.attempts_left = (exchange.attempts_left or 1) - 1
        if exchange.target:
            exchange.tried = {*(exchange.tried or ()), exchange.target}
        exchange.upstream_status = 0
        exchange.attempt_timeout = self._time_for(began)
        if self._fields is not None:
            self._fields.write(exchange)
        try:
            return await forward(exchange)
        except GatewayError as error:
            return error

    def _time_for(self, began: float) -> float | None:
        """How long a retry may take: what `max_total` leaves, and no longer than one attempt."""
        longest = self._config.max_total
        if longest is None:
            return self._per_try
        left = max(0.001, began + longest - self._now())
        return left if self._per_try is None else min(left, self._per_try)


def _has_key(request: Request) -> bool:
    key = request.headers.get(_KEY)
    return key is not None and bool(key.strip(b' \t"'))


def _tells(config: RetryConfig) -> bool:
    return config.attempt_header is not None or config.timeout_header is not None


class _AttemptFields:
    """Writes the fields that tell the upstream about an attempt."""

    __slots__ = ("_attempt", "_format", "_now", "_timeout")

    def __init__(self, config: RetryConfig, clock: Clock) -> None:
        self._attempt = _lower(config.attempt_header)
        self._timeout = _lower(config.timeout_header)
        self._format = b"%dm" if self._timeout == b"grpc-timeout" else b"%d"
        self._now = clock.monotonic

    def write(self, exchange: Exchange) -> None:
        """Set them on the request."""
        headers = exchange.request.headers
        if self._attempt is not None:
            headers.set(self._attempt, b"%d" % exchange.attempts)
        if self._timeout is None:
            return
        left = exchange.attempt_timeout
        if exchange.deadline is not None:
            until = exchange.deadline - self._now()
            left = until if left is None else min(left, until)
        if left is not None:
            # At least one: zero would be read as "no limit" by some, and as a mistake by others.
            headers.set(self._timeout, self._format % max(1, int(left * 1000)))


def _lower(name: str | None) -> bytes | None:
    return None if name is None else name.lower().encode("ascii")
