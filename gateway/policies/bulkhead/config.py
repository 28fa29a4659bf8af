"""What users write under `bulkhead:`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gateway.config.base import Model, RefusingPolicyConfig
from gateway.config.types import Count, Duration, Whole, refuse


class AdaptiveConfig(Model):
    """Bounds of a limit that finds itself."""

    start: Count = Field(default=20, description="The limit to begin with.")
    min: Count = Field(default=5, description="It never falls below this.")
    max: Count = Field(default=1000, description="It never rises above this.")
    tolerance: float = Field(
        default=1.5,
        ge=1.0,
        le=10.0,
        description="How much slower than usual answers may become before the limit shrinks.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> AdaptiveConfig:
        if not self.min <= self.start <= self.max:
            raise refuse("adaptive", "min, start and max must not fall in this order")
        return self


class BulkheadConfig(RefusingPolicyConfig):
    """An upstream gets so many requests at once; the next ones wait in a short queue; 503."""

    max_concurrent: Count | Literal["adaptive"] = Field(
        default=100,
        description="Requests at the upstream at once, for each worker; adaptive finds the number "
        "by how latency changes.",
    )
    adaptive: AdaptiveConfig = Field(
        default_factory=AdaptiveConfig, description="Bounds for max_concurrent: adaptive."
    )
    max_queued: Whole = Field(
        default=50, ge=0, description="Requests that may wait; further ones are refused at once."
    )
    queue_timeout: Duration = Field(default=0.5, description="How long each of them may wait.")
