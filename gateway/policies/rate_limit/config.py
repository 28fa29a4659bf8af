"""What users write under `rate_limit:`, one limit or a list of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    WithJsonSchema,
    model_validator,
)

from gateway.config.base import Model, RefusingPolicyConfig
from gateway.config.rates import AnyRate, Rate
from gateway.config.types import Count, Name, refuse

OnStoreError = Literal["local", "open", "closed"]
HeaderStyle = Literal["standard", "legacy", "none"]

PER_PATTERN: Final = r"^(?:consumer|ip|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+|claim:.+)$"
_PER: Final = re.compile(PER_PATTERN, re.ASCII)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
# What a full bucket may take to fill up again. The arithmetic is exact far beyond it.
_LONGEST_US: Final = 3660 * 86_400_000_000
MOST_LIMITS: Final = 16


def _per(value: str) -> str:
    if _PER.fullmatch(value):
        return value
    hint = ""
    for kind in ("header", "claim"):
        if value == kind:
            hint = f"say which, as in {kind}:{'X-Tenant' if kind == 'header' else 'tenant'}"
    raise refuse("per", "expected one of consumer, ip, route, header:NAME, claim:NAME", hint)


Per = Annotated[
    str,
    AfterValidator(_per),
    WithJsonSchema(
        {
            "type": "string",
            "description": "consumer, ip, route, header:NAME or claim:NAME.",
            "pattern": PER_PATTERN,
            "examples": ["consumer", "ip", "route", "header:X-Tenant", "claim:tenant"],
        },
        mode="validation",
    ),
]


class TierConfig(Model):
    """What callers of one tier get instead."""

    rate: AnyRate = Field(description="Their rate.")
    burst: Count | None = Field(
        default=None, description="Their burst; in proportion to the rate if left out."
    )


def _tier(value: Any) -> Any:
    return {"rate": value} if isinstance(value, str | Rate) else value


Tier = Annotated[TierConfig, BeforeValidator(_tier, json_schema_input_type=AnyRate | TierConfig)]


class LimitConfig(RefusingPolicyConfig):
    """How often one caller may call a route."""

    rate: AnyRate = Field(
        description="Requests in a stretch of time (100/s, 5000/m, 1000000/30d), or in each day or "
        "month of the calendar in UTC (10000/day, 200000/month)."
    )
    burst: Count | None = Field(
        default=None,
        description="Requests that may come at once after a pause; the rate's own number if left "
        "out. A quota by day or month has none.",
    )
    per: Per = Field(
        default="consumer",
        description="Who shares a bucket: consumer (the address, where nobody was proved), ip, "
        "route (everyone), header:NAME, claim:NAME.",
    )
    tiers: dict[Name, Tier] = Field(
        default={}, description="Other rates by the consumer's tier: {gold: 1000/s}."
    )
    cost: Count = Field(default=1, description="What one request takes from the bucket.")
    name: Name | None = Field(
        default=None,
        description="Its name in fields, problems and metrics; made of per and rate if left out.",
    )
    on_store_error: OnStoreError = Field(
        default="local",
        description="Without the store: local counts in the process, with its share of the rate; "
        "open lets everything pass; closed refuses with 503.",
    )
    replicas: Count = Field(
        default=1,
        description="Gateways that share the store, for the share of each while it is away. "
        "Workers are counted by themselves.",
    )
    headers: HeaderStyle = Field(
        default="standard",
        description="Fields that tell the caller: RateLimit and RateLimit-Policy, X-RateLimit-* "
        "(legacy), or none.",
    )

    @property
    def label(self) -> str:
        """Its name, or one made of what it is per and of its rate's stretch: `consumer-s`."""
        return self.name or _NOT_IN_NAMES.sub("-", f"{self.per}-{self.rate.window}").lower()

    @model_validator(mode="after")
    def _fits(self) -> LimitConfig:
        check_burst(self.rate, self.burst, self.cost, "")
        for tier, other in self.tiers.items():
            check_burst(other.rate, self.burst_of(tier), self.cost, f"tier {tier}: ")
            if other.burst is not None and other.rate.calendar:
                check_burst(other.rate, other.burst, self.cost, f"tier {tier}: ")
        return self

    def burst_of(self, tier: str) -> int | None:
        """The burst of a tier: its own, or the limit's in proportion; None for the rate's number.

        A quota by the calendar has none.
        """
        other = self.tiers[tier]
        if other.burst is not None or self.burst is None or other.rate.calendar:
            return None if other.rate.calendar else other.burst
        ours, theirs = self.rate, other.rate
        if ours.calendar:
            return None
        # burst x (their rate / ours), rounded up, in whole numbers
        above = self.burst * theirs.count * ours.period_us
        return max(self.cost, -(-above // (ours.count * theirs.period_us)))


def check_burst(rate: Rate, burst: int | None, cost: int, who: str) -> None:
    """What can never pass, or never fills up, is an error."""
    if rate.calendar and burst is not None:
        hint = f"leave burst out, or write {rate.count}/{'1d' if rate.calendar == 'day' else '30d'}"
        raise refuse("burst", f"{who}a quota by {rate.calendar} has no burst", hint)
    most = rate.count if burst is None else burst
    if cost > most:
        what = "the quota" if rate.calendar else "burst"
        message = f"{who}a request costs {cost} and {what} is {most}: none could ever pass"
        raise refuse("cost", message, f"lower cost, or raise {'rate' if burst is None else what}")
    if most * rate.period_us > _LONGEST_US * rate.count:
        raise refuse("burst", f"{who}the burst would take more than ten years to fill up again")


def _kind(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


class RateLimitConfig(
    RootModel[
        Annotated[
            Annotated[LimitConfig, Tag("one")]
            | Annotated[
                list[LimitConfig], Field(min_length=1, max_length=MOST_LIMITS), Tag("several")
            ],
            Discriminator(_kind),
        ]
    ]
):
    """How often a caller may call: one limit, or a list of limits that must all hold; 429."""

    model_config = ConfigDict(frozen=True)

    @property
    def limits(self) -> list[LimitConfig]:
        """The limits, in the order in which they were written."""
        return self.root if isinstance(self.root, list) else [self.root]

    @model_validator(mode="after")
    def _go_together(self) -> RateLimitConfig:
        seen: set[str] = set()
        for limit in self.limits:
            if limit.label in seen:
                hint = "give each a name of its own"
                raise refuse("name", f"two limits are called {limit.label}", hint)
            seen.add(limit.label)
        if len({limit.headers for limit in self.limits} - {"none"}) > 1:
            raise refuse("headers", "the limits of a route use one style of fields, or none")
        return self
