"""When a token is good, when it is fetched anew, and when that is not tried again yet.

Pure: times are `Clock.monotonic` seconds, chance is a number from 0 to 1. The rules:

- A token is used until shortly before its end, so that it does not end on the way.
- At 80 % of its life, give or take, it is fetched anew while the old one goes on. The spread keeps
  many gateways from asking in the same second.
- After a failure the next try waits, twice as long each time. Whoever comes meanwhile gets the old
  token while that is good, else a refusal at once: an endpoint that is down is not asked more often
  because the gateway is busy.
- A token that an upstream refuses (401) is fetched anew at once, but not more often than every ten
  seconds: an upstream that refuses everything is no reason to ask for tokens without end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

REFRESH_AT: Final = 0.8
_SPREAD: Final = 0.1
# Left of a token's life when it is no longer sent: this, or a tenth of a life shorter than 50 s.
_MARGIN_S: Final = 5.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_REJECTIONS_EVERY_S: Final = 10.0
# A life that an endpoint does not tell (RFC 6749 section 5.1 only recommends that it does).
UNTOLD_LIFE_S: Final = 300.0
# Longer than any token should live; a year keeps the arithmetic sound.
_LONGEST_LIFE_S: Final = 31_536_000.0


@dataclass(slots=True)
class TokenState:
    """The token and what is known of it. `value` is what goes behind `Bearer `."""

    value: str = ""
    refresh_at: float = -math.inf
    unusable_at: float = -math.inf
    failures: int = 0
    not_before: float = -math.inf
    rejected_at: float = -math.inf

    def usable(self, now: float) -> bool:
        """Whether the token may be sent."""
        return now < self.unusable_at

    def wants_fetch(self, now: float) -> bool:
        """Whether a new one should be fetched, and may be by now."""
        return now >= self.refresh_at and now >= self.not_before

    def fetched(self, value: str, life: float | None, now: float, chance: float) -> None:
        """A new token came, good for `life` seconds from now; None if that was not told."""
        life = min(life or UNTOLD_LIFE_S, _LONGEST_LIFE_S)
        self.value = value
        self.unusable_at = now + life - min(_MARGIN_S, life / 10)
        self.refresh_at = now + life * (REFRESH_AT + _SPREAD * (chance - 0.5))
        self.failures = 0
        self.not_before = -math.inf

    def failed(self, now: float, chance: float) -> None:
        """No token came."""
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.not_before = now + pause * (0.75 + 0.5 * chance)

    def rejected(self, value: str, now: float) -> bool:
        """The upstream refused this token. Whether there is a newer one, or one may be fetched.

        It goes on being used until then: perhaps it is the upstream that is wrong.
        """
        if value != self.value:
            return self.usable(now)
        if now - self.rejected_at < _REJECTIONS_EVERY_S or now < self.not_before:
            return False
        self.rejected_at = now
        self.refresh_at = -math.inf
        return True

    def retry_after(self, now: float) -> int:
        """Whole seconds until the next try, at least one."""
        return max(1, math.ceil(max(0.0, self.not_before - now)))
