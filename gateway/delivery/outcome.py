"""How an attempt ended, and what follows from that. Pure: time and randomness are passed in.

An upstream that answers 4xx will answer so again, except to 408, 425 and 429 (RFC 9110, 8470,
6585), which say that time may help. Everything else that fails is worth another attempt: also an
answer that is no HTTP, or a certificate that is not accepted, for somebody may mend that meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from gateway.errors import (
    BULKHEAD_FULL,
    CIRCUIT_OPEN,
    CONNECTION_LIMIT,
    NO_HEALTHY_TARGET,
    UPSTREAM_CREDENTIALS,
    ErrorCode,
    Source,
)

_AGAIN: Final = frozenset({408, 425, 429})
_CROWDED: Final = frozenset({BULKHEAD_FULL, CONNECTION_LIMIT})
_PAUSING: Final = _CROWDED | {CIRCUIT_OPEN, NO_HEALTHY_TARGET, UPSTREAM_CREDENTIALS}
"""What says that nothing was sent, and that it is no fault of the event."""


class Reason(StrEnum):
    """Why an event was given up for a target."""

    PERMANENT = "permanent"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    INVALID = "invalid"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The target took it. `status` is 0 for targets that have none."""

    status: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The target did not take it; `permanent` if it never will. `wait` is the least number of
    seconds until another attempt, as the target asks.
    """

    permanent: bool
    status: int = 0
    code: str = ""
    detail: str = ""
    answer: bytes = b""
    wait: float = 0.0
    reason: Reason = Reason.PERMANENT


@dataclass(frozen=True, slots=True)
class Paused:
    """Not tried, because the target is being spared; not counted. `wait` in seconds, 0: unknown.

    `crowded` if the target works, and as much is under way there as may be.
    """

    code: str
    wait: float = 0.0
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class StepNote:
    """What the audit is told of one step of a target that goes step by step. `at` is when it began
    (Unix seconds), `ms` how long it took, `attempt` which one of the step's it was.
    """

    step: str
    verdict: str
    at: float
    ms: float = 0.0
    attempt: int = 0
    status: int = 0
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Resumes:
    """It goes on after `wait` seconds with the progress that the record has now, which is written
    with it; not counted as an attempt. `failed` says that a step failed and is tried again.
    """

    wait: float
    note: StepNote | None = None
    failed: bool = False


Outcome = Delivered | Failed | Paused | Resumes


def judge_status(status: int, retry_after: bytes | None, now: float) -> Delivered | Failed:
    """What an answer means; `now` is Unix seconds."""
    if 200 <= status < 300:
        return Delivered(status)
    permanent = (300 <= status < 500 and status not in _AGAIN) or status == 501
    wait = 0.0 if permanent or retry_after is None else parse_retry_after(retry_after, now)
    return Failed(permanent, status, wait=wait)


def judge_failure(
    kind: ErrorCode, detail: str, retry_after: bytes | None, now: float
) -> Failed | Paused:
    """What an attempt without an answer means."""
    wait = 0.0 if retry_after is None else parse_retry_after(retry_after, now)
    if kind in _PAUSING:
        return Paused(kind.code, wait, kind in _CROWDED)
    permanent = not kind.transient and kind.source is not Source.UPSTREAM
    return Failed(permanent, code=kind.code, detail=detail, wait=wait)


def parse_retry_after(value: bytes, now: float) -> float:
    """Seconds to wait (RFC 9110 section 10.2.3: seconds or a date); 0 for what is neither."""
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


@dataclass(frozen=True, slots=True)
class RetryRule:
    """When a failed event is tried again. Times are seconds.

    The n-th retry waits `schedule[n - 1]`, the last entry for all that follow; without a schedule
    `base * factor ** (n - 1)`, at most `longest`, all of it drawn at random if `jitter` ("full
    jitter": M. Brooker, Exponential Backoff and Jitter, 2015).
    """

    attempts: int
    max_total: float
    schedule: tuple[float, ...] = ()
    base: float = 1.0
    factor: float = 2.0
    longest: float = 60.0
    jitter: bool = True

    def delay(self, made: int, draw: float) -> float:
        """Seconds until the next attempt after `made` of them; `draw` is from [0, 1)."""
        if self.schedule:
            return self.schedule[min(made, len(self.schedule)) - 1]
        # Beyond this exponent everything is as long as it gets.
        bound = min(self.longest, self.base * self.factor ** min(made - 1, 64))
        return bound * draw if self.jitter else bound


@dataclass(frozen=True, slots=True)
class Again:
    """Try once more in `delay` seconds."""

    delay: float


def decide(rule: RetryRule, made: int, age: float, failed: Failed, draw: float) -> Again | Reason:
    """What becomes of an event after `made` attempts of an epoch that began `age` seconds ago."""
    if failed.permanent:
        return failed.reason
    if made >= rule.attempts:
        return Reason.EXHAUSTED
    delay = max(rule.delay(made, draw), failed.wait)
    if age + delay > rule.max_total:
        return Reason.EXPIRED
    return Again(delay)
