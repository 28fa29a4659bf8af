"""The policy: one call to the store for each request, whatever the number of limits.

Without the store, within its time limit, each limit does what its `on_store_error` says. A store
that is slow or lost never makes a 429: that answer always comes from a bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from gateway.config.model_content import ConsumerConfig
from gateway.errors import (
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    STORE_UNAVAILABLE,
    ErrorCode,
    GatewayError,
    Rejection,
    StoreError,
)
from gateway.message import Exchange
from gateway.observability.families import RATE_LIMIT_DECISIONS, RATE_LIMIT_STORE_ERRORS, Counts
from gateway.observability.metrics import RouteSeries
from gateway.policies.base import BuildContext, Guard
from gateway.policies.rate_limit.config import RateLimitConfig
from gateway.policies.rate_limit.decide import Quota
from gateway.policies.rate_limit.local import Fallback
from gateway.policies.rate_limit.plan import NO_TIER, LocalPlan, Plan, RouteFacts, make_plans
from gateway.store.base import Store
from gateway.store.script import Script

SCRIPT: Final = Script.load("rate_limit")
_SECOND_US: Final = 1_000_000
# When to come back after a 503. Nobody knows when the store does; its own probes are this frequent.
_RETRY_STORE: Final = (b"retry-after", b"1")
_DEGRADED: Final = b"x-lockgate-ratelimit"


class RateLimitPolicy(Guard):
    """Refuses what exceeds a limit with 429."""

    name: ClassVar[str] = "rate_limit"
    Config: ClassVar[type[RateLimitConfig]] = RateLimitConfig

    def __init__(
        self,
        plans: Mapping[str, Plan],
        consumers: Mapping[str, ConsumerConfig],
        store: Store,
        fallback: Fallback,
        series: RouteSeries,
        store_errors: Counts,
    ) -> None:
        self._plans = plans
        self._plan = plans[NO_TIER]
        self._consumers = consumers
        self._has_tiers = len(plans) > 1
        self._run = store.run
        self._fallback = fallback
        self._series = series
        self._store_errors = store_errors

    @classmethod
    def build(cls, config: RateLimitConfig, context: BuildContext) -> RateLimitPolicy:
        """Compile the limits for each tier, and have a store."""
        store = context.store()
        metrics = context.metrics
        workers = context.server.workers
        plans = make_plans(
            config.limits,
            RouteFacts(context.route, store.key_prefix, metrics.counts(RATE_LIMIT_DECISIONS)),
            workers if isinstance(workers, int) else 1,
        )
        clock = context.clock
        fallback: Fallback = context.shared(("rate_limit", "local"), lambda: Fallback(clock))
        return cls(
            plans,
            context.config.consumers,
            store,
            fallback,
            metrics.route(context.route),
            metrics.counts(RATE_LIMIT_STORE_ERRORS),
        )

    async def check(self, exchange: Exchange) -> Rejection | None:
        """Take what the request costs from its buckets, or refuse it."""
        plan = self._plan_for(exchange) if self._has_tiers else self._plan
        keys = plan.keys(exchange)
        try:
            reply: list[int] = await self._run(SCRIPT, keys, plan.args)
        except StoreError as error:
            return self._without_store(exchange, plan, keys, error)
        if self._fallback.away:
            self._fallback.succeeded()
        if len(reply) == 3 and reply[0]:
            tally = plan.tallies[0]
            tally.values[tally.passed] = tally.values.get(tally.passed, 0) + 1
            if plan.write is not None:
                limit = plan.limits[0]
                whole, rest = reply[1], reply[2]
                reset_s = -(-limit.reset_us(whole, rest) // _SECOND_US)
                plan.write(exchange.reply_headers, 0, limit.remaining(whole, rest), reset_s)
            return None
        return self._decided(exchange, plan, reply, "store")

    def _plan_for(self, exchange: Exchange) -> Plan:
        principal = exchange.principal
        if principal is None:
            return self._plan
        tier: str | None = principal.tier
        if not tier:
            # A plugin's principal may not know it.
            consumer = self._consumers.get(principal.consumer)
            tier = None if consumer is None else consumer.tier
        return self._plans.get(tier or NO_TIER, self._plan)

    def _decided(
        self, exchange: Exchange, plan: Plan, reply: Sequence[int], by: str
    ) -> Rejection | None:
        """What a reply of the script, or of the local buckets, means for this request."""
        over = [at for at in range(len(plan.limits)) if not reply[3 * at]]
        violated = [at for at in over if plan.enforced[at]]
        reported = [at for at in over if not plan.enforced[at]]
        for at, tally in enumerate(plan.tallies):
            if at in reported:
                tally.add("reported", by)
            elif at in violated:
                tally.add("refused", by)
            elif not violated:
                tally.add("passed", by)
        for at in reported:
            self._report(exchange, plan, at)
        if not violated:
            _tell(exchange, plan, reply, plan.shown)
            return None
        longest = max(violated, key=lambda at: _retry_us(plan, reply, at))
        retry_s = max(1, -(-_retry_us(plan, reply, longest) // _SECOND_US))
        if plan.write is not None:
            self._tell_refusal(exchange, plan, reply, violated)
        return Rejection(
            _kind(plan, longest),
            f"the limit {plan.names[longest]} is {plan.rates[longest]}",
            [(b"retry-after", b"%d" % retry_s)],
            {"violated-policies": [plan.names[at] for at in violated]},
        )

    def _tell_refusal(
        self, exchange: Exchange, plan: Plan, reply: Sequence[int], violated: Sequence[int]
    ) -> None:
        shown = [at for at in violated if at in plan.shown]
        if not shown or plan.write is None:
            _tell(exchange, plan, reply, plan.shown)
            return
        at = max(shown, key=lambda at: _retry_us(plan, reply, at))
        remaining = plan.limits[at].remaining(*reply[3 * at + 1 : 3 * at + 3])
        retry_s = -(-_retry_us(plan, reply, at) // _SECOND_US)
        plan.write(exchange.reply_headers, at, remaining, retry_s)

    def _report(self, exchange: Exchange, plan: Plan, at: int) -> None:
        # Each limit has a mode of its own, which the chain, that sees one policy, can't know.
        code = _kind(plan, at).code
        self._series.report(self.name, code)
        exchange.reported = [*(exchange.reported or ()), f"{self.name}:{code}"]

    def _without_store(
        self, exchange: Exchange, plan: Plan, keys: tuple[bytes, ...], error: GatewayError
    ) -> Rejection | None:
        self._fallback.failed(error)
        self._store_errors.add(self._series.route)
        local = plan.local
        assert local is not None
        if local.refuses:
            for at in local.closed:
                plan.tallies[at].add("refused" if plan.enforced[at] else "reported", "none")
            return Rejection(STORE_UNAVAILABLE, "rate limits can't be checked now", [_RETRY_STORE])
        for at in (*local.opened, *local.closed):
            plan.tallies[at].add("passed", "none")
        if not local.counted:
            exchange.reply_headers.append((_DEGRADED, b"open"))
            return None
        exchange.reply_headers.append((_DEGRADED, b"local"))
        return self._locally(exchange, local, [keys[at] for at in local.counted])

    def _locally(
        self, exchange: Exchange, local: LocalPlan, keys: Sequence[bytes]
    ) -> Rejection | None:
        plan = local.plan
        reply = self._fallback.decide(plan.limits, plan.enforced, keys)
        return self._decided(exchange, plan, reply, "local")


def _kind(plan: Plan, at: int) -> ErrorCode:
    return QUOTA_EXCEEDED if isinstance(plan.limits[at], Quota) else RATE_LIMITED


def _retry_us(plan: Plan, reply: Sequence[int], at: int) -> int:
    return plan.limits[at].retry_us(reply[3 * at + 1], reply[3 * at + 2])


def _tell(exchange: Exchange, plan: Plan, reply: Sequence[int], places: Sequence[int]) -> None:
    """Tell of the limit that leaves fewest further requests."""
    if plan.write is None:
        return
    left = [(plan.limits[at].remaining(*reply[3 * at + 1 : 3 * at + 3]), at) for at in places]
    remaining, at = min(left, key=lambda each: each[0] // plan.limits[each[1]].cost)
    reset_us = plan.limits[at].reset_us(reply[3 * at + 1], reply[3 * at + 2])
    plan.write(exchange.reply_headers, at, remaining, -(-reset_us // _SECOND_US))
