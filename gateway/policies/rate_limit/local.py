"""Limits without the store: buckets in this process, and whether they are needed.

One `Fallback` is shared by all routes of a process and outlives reloads. Buckets are bounded: past
`MOST_BUCKETS`, the one that was used longest ago is forgotten, and starts full if it comes back.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.policies.rate_limit.decide import Limit, State, decide

logger = logging.getLogger("gateway.rate_limit")

MOST_BUCKETS: Final = 50_000
# The store counts as back when this long nothing failed: while it is slow, some calls succeed.
STEADY_S: Final = 1.0


class Fallback:
    """The buckets, and one log line when they begin to be needed and one when they no longer are.

    `away` is True from the first call that failed until calls have succeeded for a while.
    """

    __slots__ = ("_clock", "_failed_at", "_most", "_states", "away")

    def __init__(self, clock: Clock, most: int = MOST_BUCKETS) -> None:
        self.away = False
        self._clock = clock
        self._failed_at = 0.0
        self._most = most
        self._states: OrderedDict[bytes, State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def failed(self, error: GatewayError) -> None:
        """A decision had to be made without the store."""
        self._failed_at = self._clock.monotonic()
        if not self.away:
            self.away = True
            facts = {"reason": error.detail}
            logger.warning("rate limits are decided without the store", extra=facts)

    def succeeded(self) -> None:
        """The store decided. To be called while `away`."""
        if self._clock.monotonic() - self._failed_at >= STEADY_S:
            self.away = False
            logger.info("rate limits are decided by the store again")

    def decide(
        self, limits: Sequence[Limit], enforced: Sequence[bool], keys: Sequence[bytes]
    ) -> list[int]:
        """The decision from the buckets in this process, as the script would reply it."""
        states = self._states
        now_us = int(self._clock.wall() * 1e6)
        reply, changed = decide(limits, enforced, [states.get(key) for key in keys], now_us)
        for key, state in zip(keys, changed, strict=True):
            if state is not None:
                states[key] = state
                states.move_to_end(key)
        while len(states) > self._most:
            states.popitem(last=False)
        return reply
