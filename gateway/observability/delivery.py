"""The families of asynchronous routes: what came, what became of it, and what still waits."""

from __future__ import annotations

from typing import Final

from gateway.observability.snapshot import Declaration, Kind, Merge

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_SECONDS: Final = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
    14400.0, 86400.0,
)  # fmt: skip

ACCEPTED: Final = Declaration(
    "gateway_delivery_accepted_total", _C,
    "Events of asynchronous routes: accepted, duplicate (answered with the first one's id), "
    "quarantined, or the code of the refusal.",
    ("route", "result"),
)  # fmt: skip
ATTEMPTS: Final = Declaration(
    "gateway_delivery_attempts_total", _C,
    "Attempts to deliver, by how they ended: delivered, retried, dead, paused (the target is being "
    "spared; not counted as an attempt of the event), resumed (a flow that waits, or tries a step "
    "again), released (the gateway stopped) or stale (somebody else had taken over).",
    ("route", "target", "result"),
)  # fmt: skip
DEAD_LETTERS: Final = Declaration(
    "gateway_delivery_dead_letters_total", _C,
    "Events that were given up for a target, by the class of the reason.",
    ("route", "target", "reason"),
)  # fmt: skip
IN_FLIGHT: Final = Declaration(
    "gateway_delivery_in_flight", _G, "Attempts under way.", ("route", "target")
)
PACE: Final = Declaration(
    "gateway_delivery_concurrency", _G,
    "How many attempts may be under way now, over all workers: less than configured while a target "
    "fails or is being spared.",
    ("route", "target"),
)  # fmt: skip
DEPTH: Final = Declaration(
    "gateway_delivery_queue_depth", _G,
    "Events that are not settled yet for a target, by the store; those under way included.",
    ("route", "target"), merge=Merge.MAX,
)  # fmt: skip
OLDEST: Final = Declaration(
    "gateway_delivery_oldest_age_seconds", _G,
    "The age of the oldest event that is not settled for a target (lag); 0 if there is none.",
    ("route", "target"), merge=Merge.MAX,
)  # fmt: skip
HELD: Final = Declaration(
    "gateway_delivery_letters_held", _G, "Dead letters that are kept.", ("route",), merge=Merge.MAX
)
REPLAYED: Final = Declaration(
    "gateway_delivery_replayed_total", _C, "Dead letters that were sent on their way again.",
    ("route", "target"),
)  # fmt: skip
DISCARDED: Final = Declaration(
    "gateway_delivery_discarded_total", _C,
    "Dead letters that were thrown away: purged by somebody, kept long enough (retention), or more "
    "than dead_letter.max (max).",
    ("route", "cause"),
)  # fmt: skip
ALERTS: Final = Declaration(
    "gateway_delivery_alerts_total", _C,
    "Alerts of dead letters to telemetry.alerts.webhook: sent, or failed (not taken after some "
    "tries).",
    ("route", "result"),
)  # fmt: skip
OUTCOME: Final = Declaration(
    "gateway_delivery_outcome_seconds", _H,
    "From the acceptance of an event to its outcome for a target, by that: delivered or dead.",
    ("route", "target", "outcome"), _SECONDS,
)  # fmt: skip
ATTEMPT_TIME: Final = Declaration(
    "gateway_delivery_attempt_seconds", _H, "How long attempts took.", ("route", "target"), _SECONDS
)  # fmt: skip
STEPS: Final = Declaration(
    "gateway_delivery_steps_total", _C,
    "Attempts at steps of flows, by how they ended: done, skipped, waiting, retried, failed, "
    "expired, compensated, compensation_retried or compensation_failed.",
    ("route", "step", "result"),
)  # fmt: skip
STEP_TIME: Final = Declaration(
    "gateway_delivery_step_seconds", _H, "How long calls of flows took, compensations included.",
    ("route", "step"), _SECONDS,
)  # fmt: skip

AUDIT_DROPPED: Final = Declaration(
    "gateway_audit_dropped_total", _C,
    "Entries of the audit that were lost, because the store was away for too long.",
)  # fmt: skip
FIRINGS: Final = Declaration(
    "gateway_schedule_ticks_total", _C,
    "Ticks of schedules: fired, repeated (another gateway was first), passed (missed, and not "
    "fired by the schedule's rule), off (its flag was), invalid (fired, and a dead letter at once) "
    "or failed (tried again).",
    ("schedule", "result"),
)  # fmt: skip
FIRING_LAG: Final = Declaration(
    "gateway_schedule_lag_seconds", _H,
    "From the time of a tick, its jitter included, until its event was kept.",
    ("schedule",), _SECONDS,
)  # fmt: skip
TICK_DONE: Final = Declaration(
    "gateway_schedule_done_timestamp_seconds", _G,
    "The newest tick of a schedule that is done, or when it began to count, in Unix seconds.",
    ("schedule",), merge=Merge.MAX,
)  # fmt: skip
TICK_NEXT: Final = Declaration(
    "gateway_schedule_next_timestamp_seconds", _G,
    "When a schedule fires next, in Unix seconds; 0 for never.", ("schedule",), merge=Merge.MAX,
)  # fmt: skip
ENTRIES: Final = Declaration(
    "gateway_stream_entries_total", _C,
    "Entries that were read from streams: accepted, duplicate (kept before, and not confirmed) or "
    "invalid (dead letters at once).",
    ("stream", "result"),
)  # fmt: skip
STREAM_UP: Final = Declaration(
    "gateway_stream_up", _G, "Whether a stream can be read from by this process.", ("stream",),
    merge=Merge.MIN,
)  # fmt: skip
STREAM_AGE: Final = Declaration(
    "gateway_stream_age_seconds", _H,
    "How old entries of a stream were, by their ids, when they were kept.", ("stream",), _SECONDS,
)  # fmt: skip
STREAM_PENDING: Final = Declaration(
    "gateway_stream_pending", _G,
    "Entries of a stream that its group has handed out and that are not confirmed yet.",
    ("stream",), merge=Merge.MAX,
)  # fmt: skip

DELIVERY_FAMILIES: Final = (
    ACCEPTED, ATTEMPTS, DEAD_LETTERS, IN_FLIGHT, PACE, DEPTH, OLDEST, HELD, REPLAYED, DISCARDED,
    ALERTS, OUTCOME, ATTEMPT_TIME, STEPS, STEP_TIME, AUDIT_DROPPED, FIRINGS, FIRING_LAG, TICK_DONE,
    TICK_NEXT, ENTRIES, STREAM_UP, STREAM_AGE, STREAM_PENDING,
)  # fmt: skip
