"""What users write under `retry:`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.base import Model, PolicyConfig
from gateway.config.failures import Failure
from gateway.config.fields import EndToEndField
from gateway.config.types import Count, Duration, Percent, Size, Timeout, Whole
from gateway.upstream.budget import DEFAULT_FLOOR, DEFAULT_SHARE


class BackoffConfig(Model):
    """The pause before a retry: anything from zero to a bound that doubles (full jitter)."""

    base: Duration = Field(default=0.025, description="The bound before the first retry.")
    max: Duration = Field(default=1.0, description="The highest that the bound becomes.")


class RetryConfig(PolicyConfig):
    """Failed attempts are made again, bounded by number, time and budget, and only where safe."""

    attempts: Count = Field(
        default=3, le=20, description="Tries in all, the first one included; 1 retries nothing."
    )
    on: list[Failure] = Field(
        default=["connect", "reset", "timeout", 502, 503, 504, 429],
        description="What makes an attempt worth another.",
    )
    per_try_timeout: Timeout | None = Field(
        default=None,
        description="How long one attempt may take until the head of its answer is there; 504.",
    )
    backoff: BackoffConfig = Field(
        default_factory=BackoffConfig, description="The pauses between attempts."
    )
    max_total: Timeout | None = Field(
        default=10.0,
        description="From the first attempt on, the time within which retries begin and end.",
    )
    budget: Percent | None = Field(
        default=DEFAULT_SHARE,
        description="Retries under way at once, as a share of the upstream's active requests; null "
        "for no bound.",
    )
    budget_floor: Whole = Field(
        default=DEFAULT_FLOOR,
        ge=0,
        description="Retries that the budget always allows at once.",
    )
    unsafe: Literal["never", "with_key", "always"] = Field(
        default="with_key",
        description="Whether a method that is not idempotent (POST, PATCH) is retried when it may "
        "have reached the upstream: never, with_key if it has an Idempotency-Key, always.",
    )
    keep_body: Size = Field(
        default=64 * 1024,
        description="How much of a body that streams is kept in memory to be sent again.",
    )
    attempt_header: EndToEndField | None = Field(
        default=None, description="A field that tells the upstream the attempt's number, from 1."
    )
    timeout_header: EndToEndField | None = Field(
        default=None,
        description="A field that tells the upstream how many milliseconds are left; in the form "
        "of gRPC if it is grpc-timeout.",
    )
