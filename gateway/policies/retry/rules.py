"""When an attempt is made again, and after which pause. Pure: time and randomness are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, Literal

from gateway.message import RawHeaders
from gateway.upstream.repeat import IDEMPOTENT

Unsafe = Literal["never", "with_key", "always"]

# More would overflow nothing, but no client waits that long either.
_LONGEST_RETRY_AFTER: Final = 10**9


class Skip(StrEnum):
    """Why an attempt is not made again; a label of `gateway_retries_total`."""

    NOT_RETRYABLE = "not_retryable"
    CIRCUIT_OPEN = "circuit_open"
    NOT_SAFE = "not_safe"
    BODY_NOT_KEPT = "body_not_kept"
    DEADLINE = "deadline"
    BUDGET = "budget"
    CLIENT_GONE = "client_gone"
    ATTEMPTS = "attempts"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses with full jitter: anything from zero to a bound.

    The bound is `base`, doubled for each further retry, up to `longest`; both in seconds.
    """

    base: float
    longest: float

    def pause(self, retry: int, random: float) -> float:
        """Seconds before retry number `retry`, from 1 on; `random` is from [0, 1)."""
        # The exponent is bounded, because a float has an end.
        return random * min(self.longest, self.base * 2.0 ** min(retry - 1, 60))


@dataclass(frozen=True, slots=True)
class Failed:
    """What is known when an attempt has failed.

    `reason` is the word or status that makes it retryable, empty if it is not. `sent` is False if
    no byte of the request left. `retry_after` is what the answer asks for, in seconds.
    """

    reason: str
    method: str
    has_key: bool
    sent: bool
    can_repeat_body: bool
    retry_after: float = 0.0


def skip_for(failed: Failed, unsafe: Unsafe, attempts_left: int) -> Skip | None:
    """Why this can't be tried again, whatever the time; None if it can."""
    if not failed.reason:
        return Skip.NOT_RETRYABLE
    if attempts_left <= 0:
        return Skip.ATTEMPTS
    if not is_safe(failed, unsafe):
        return Skip.NOT_SAFE
    if not failed.can_repeat_body:
        return Skip.BODY_NOT_KEPT
    return None


def is_safe(failed: Failed, unsafe: Unsafe) -> bool:
    """Whether doing it again can't do anything twice (RFC 9110 section 9.2.2), or is meant to."""
    return (
        not failed.sent
        or failed.method in IDEMPOTENT
        or (unsafe == "with_key" and failed.has_key)
        or unsafe == "always"
    )


def retry_after(headers: RawHeaders, wall: float) -> float:
    """The seconds that Retry-After asks for (RFC 9110 section 10.2.3); 0 if it says nothing usable.

    `wall` is now, in Unix seconds.
    """
    value = next((value for name, value in headers if name == b"retry-after"), b"").strip()
    if value.isdigit():
        return float(min(int(value[:12]), _LONGEST_RETRY_AFTER))
    if not value:
        return 0.0
    try:
        moment: datetime = parsedate_to_datetime(value.decode("ascii"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - wall)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def fits(pause: float, now: float, deadline: float | None, until: float | None) -> bool:
    """Whether an attempt after `pause` seconds would begin before both moments."""
    at = now + pause
    return (deadline is None or at < deadline) and (until is None or at < until)
