"""The families that retries, breakers, bulkheads and hedges keep."""

from __future__ import annotations

from typing import Final

from gateway.observability.snapshot import Declaration, Kind, Merge

RETRIES: Final = Declaration(
    "gateway_retries_total", Kind.COUNTER,
    "Attempts behind the first: made, by what made them necessary and whether they succeeded, or "
    "skipped, by the reason.",
    ("route", "upstream", "result", "reason"),
)  # fmt: skip
HEDGES: Final = Declaration(
    "gateway_hedges_total", Kind.COUNTER,
    "Second attempts made beside a slow first one, by how they ended, or skipped.",
    ("route", "upstream", "result"),
)  # fmt: skip
BREAKER_STATE: Final = Declaration(
    "gateway_circuit_breaker_state", Kind.GAUGE,
    "0 closed, 1 ramping, 2 half open, 3 open; the highest of all workers. The label route is "
    "empty where all routes to the upstream share it.",
    ("upstream", "route"), merge=Merge.MAX,
)  # fmt: skip
BREAKER_SINCE: Final = Declaration(
    "gateway_circuit_breaker_since_timestamp_seconds", Kind.GAUGE,
    "When the circuit breaker came into its state, in Unix seconds.",
    ("upstream", "route"), merge=Merge.MAX,
)  # fmt: skip
BREAKER_CHANGES: Final = Declaration(
    "gateway_circuit_breaker_transitions_total", Kind.COUNTER,
    "Changes of a circuit breaker's state, by the new one and the reason.",
    ("upstream", "route", "state", "reason"),
)  # fmt: skip
BULKHEAD_ACTIVE: Final = Declaration(
    "gateway_bulkhead_active", Kind.GAUGE, "Requests that hold a permit.", ("upstream", "route")
)
BULKHEAD_QUEUED: Final = Declaration(
    "gateway_bulkhead_queued", Kind.GAUGE, "Requests that wait for a permit.", ("upstream", "route")
)
BULKHEAD_LIMIT: Final = Declaration(
    "gateway_bulkhead_limit", Kind.GAUGE, "Permits there are, over all workers.",
    ("upstream", "route"),
)  # fmt: skip
BULKHEAD_WAITS: Final = Declaration(
    "gateway_bulkhead_waits_total", Kind.COUNTER,
    "Requests that had to wait for a permit, by how that ended: admitted, timeout, full or left.",
    ("upstream", "route", "result"),
)  # fmt: skip

RESILIENCE_FAMILIES: Final = (
    RETRIES, HEDGES, BREAKER_STATE, BREAKER_SINCE, BREAKER_CHANGES, BULKHEAD_ACTIVE,
    BULKHEAD_QUEUED, BULKHEAD_LIMIT, BULKHEAD_WAITS,
)  # fmt: skip
