"""What users write under `circuit_breaker:`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.base import RefusingPolicyConfig
from gateway.config.failures import Failure
from gateway.config.types import Count, Duration, Ratio, Timeout


class CircuitBreakerConfig(RefusingPolicyConfig):
    """An upstream that fails too often, or is too slow, gets no calls for a while; 503."""

    failure_ratio: Ratio = Field(
        default=0.5, gt=0, description="The share of failed calls at which it opens."
    )
    failures: list[Failure] = Field(
        default=["connect", "tls", "reset", "timeout", "invalid", 500, 502, 503, 504],
        description="What counts as a failed call. What the client does never counts.",
    )
    slow_call: Timeout | None = Field(
        default=None,
        description="Calls whose answer's head takes this long are slow; null for none.",
    )
    slow_ratio: Ratio = Field(
        default=0.8, gt=0, description="The share of slow calls at which it opens."
    )
    min_requests: Count = Field(
        default=20, description="Calls within the window before any share means anything."
    )
    window: Timeout = Field(default=10.0, description="How far back calls are counted.")
    open_for: Timeout = Field(
        default=15.0, description="How long nothing is sent before it is tried again."
    )
    probes: Count = Field(
        default=3, description="Calls that are then let through, and must all be good."
    )
    ramp: Duration = Field(
        default=10.0,
        description="The time over which traffic then comes back, from a tenth to all of it.",
    )
