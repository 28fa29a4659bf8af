"""What users write under `hedge:`."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from gateway.config.base import PolicyConfig
from gateway.config.types import Count, Percent, Whole, format_duration, parse_duration, refuse
from gateway.upstream.budget import DEFAULT_FLOOR, DEFAULT_SHARE

_QUANTILE: Final = re.compile(r"p([1-9][0-9](?:\.[0-9])?)")


def _after(value: object) -> str | float:
    if isinstance(value, str) and _QUANTILE.fullmatch(value):
        return value
    seconds = parse_duration(value)
    if seconds <= 0:
        raise refuse("positive", "must be more than zero")
    return seconds


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else format_duration(value)


After = Annotated[
    str | float,
    BeforeValidator(_after),
    PlainSerializer(_written, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?:p[1-9][0-9](?:\.[0-9])?|[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))$",
            "description": "A quantile of the route's latency such as p95, or a duration.",
            "examples": ["p95", "200ms"],
        },
        mode="validation",
    ),
]
"""`p95` and the like, or seconds."""


class HedgeConfig(PolicyConfig):
    """A read that takes long gets a second attempt elsewhere; the first good answer wins."""

    after: After = Field(
        default="p95",
        description="When a second attempt begins: a quantile of this route's latency, or a fixed "
        "time.",
    )
    max: Count = Field(default=1, le=3, description="Further attempts for one request.")
    budget: Percent | None = Field(
        default=DEFAULT_SHARE,
        description="Retries and hedges under way at once, as a share of the upstream's active "
        "requests; null for no bound.",
    )
    budget_floor: Whole = Field(
        default=DEFAULT_FLOOR, ge=0, description="How many the budget always allows at once."
    )
