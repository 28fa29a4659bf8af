"""When an issuer's keys are fetched, and how long old ones are good. Pure: `now` is passed in.

Times are monotonic seconds. Keys are *fresh* until the lifetime that the provider gave them
(bounded by `refresh`) has passed, and are fetched anew before that. If the provider can't be
reached they stay *usable* for `grace` longer; then it is as if there had never been any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MIN_LIFETIME_S: Final = 30.0
COOLDOWN_S: Final = 5.0
UNKNOWN_FOR_S: Final = 60.0
MAX_UNKNOWN: Final = 1024
# Fetched anew when this share of the lifetime has passed.
_AHEAD: Final = 0.8
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_MAX_AGE: Final = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})"?(?=$|[\s,;])', re.IGNORECASE)
_NO_STORE: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?=$|[\s,=])", re.IGNORECASE)


class Freshness:
    """The state of one source of keys. `failures` counts those since the last success."""

    def __init__(self, refresh: float, grace: float) -> None:
        self._refresh = refresh
        self._grace = grace
        self.failures = 0
        self._fresh_until = float("-inf")
        self._next = float("-inf")
        self._looked: float = float("-inf")
        self._unknown: dict[str, float] = {}

    def succeeded(self, now: float, headers: Mapping[str, str]) -> None:
        """A key set came, with these header fields."""
        lifetime = lifetime_of(headers, self._refresh)
        self.failures = 0
        self._fresh_until = now + lifetime
        self._next = now + lifetime * _AHEAD

    def failed(self, now: float) -> None:
        """None came: try again after a pause that doubles each time."""
        self._next = now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self.failures, 10))
        self.failures += 1

    @property
    def next_fetch(self) -> float:
        """When to fetch next; long past if never tried."""
        return self._next

    @property
    def usable_until(self) -> float:
        """Until when the keys that there are may be used."""
        return self._fresh_until + self._grace

    def is_due(self, now: float) -> bool:
        """Whether it is time to fetch."""
        return now >= self._next

    def may_look(self, now: float) -> bool:
        """Whether a key that is not known may be looked for now; if so, that is what happens next.

        However many names strangers make up, the provider is asked once in a while.
        """
        if now < self._looked + COOLDOWN_S:
            return False
        self._looked = now
        return True

    def is_unknown(self, now: float, kid: str) -> bool:
        """Whether this key was looked for lately, and not found."""
        return self._unknown.get(kid, float("-inf")) > now

    def note_unknown(self, now: float, kid: str) -> None:
        """The provider was asked, and has no such key."""
        if len(self._unknown) >= MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[kid] = now + UNKNOWN_FOR_S

    def forget_unknown(self) -> None:
        """The keys changed: what was not there may be there now."""
        self._unknown.clear()


def lifetime_of(headers: Mapping[str, str], most: float) -> float:
    """How long an answer may be used: what Cache-Control says, within bounds."""
    text = headers.get("cache-control", "")
    least = min(MIN_LIFETIME_S, most)
    if _NO_STORE.search(text):
        return least
    found = _MAX_AGE.search(text)
    if found is None:
        return most
    age = headers.get("age", "")
    spent = int(age) if age.isdigit() and len(age) < 10 else 0
    return min(most, max(least, float(int(found[1]) - spent)))
