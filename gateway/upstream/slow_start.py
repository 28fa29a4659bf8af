"""Traffic for a target that has just come back grows from a tenth of its share to all of it.

Pure: the clock is passed in. A balancer that minds the load would do the opposite: nobody is as
idle as a target that was away, so it would get every request at once, with cold caches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gateway.upstream.balancer import Balancer
from gateway.upstream.target import Target

FIRST_SHARE: Final = 0.1
# Turns that a target may save up: without a bound it would get them in one burst.
_MOST_CREDIT: Final = 2.0


def factor(elapsed: float, window: float) -> float:
    """Which part of its share a target gets `elapsed` seconds after it came back."""
    if elapsed >= window:
        return 1.0
    return max(FIRST_SHARE, elapsed / window)


class Ramp:
    """Gives the ramping targets at most their part, whatever the balancer within would like.

    Every choice earns a ramping target a part of a turn: its share by weight times its factor. It
    is chosen only when it has a whole turn.
    """

    __slots__ = ("_credits", "_inner", "_shares", "factors")

    def __init__(
        self, inner: Balancer, targets: Sequence[Target], factors: Mapping[Target, float]
    ) -> None:
        self._inner = inner
        total = sum(target.weight for target in targets)
        self._shares = {target: target.weight / total for target in factors}
        # The first one is free: the sooner a probation is over, the better.
        self._credits = dict.fromkeys(factors, 1.0)
        self.factors = dict(factors)

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """What the balancer within chooses among those whose turn it may be."""
        earned = self._credits
        left_out = list(tried)
        for target, share in self._shares.items():
            credit = min(_MOST_CREDIT, earned[target] + share * self.factors[target])
            earned[target] = credit
            if credit < 1.0:
                left_out.append(target)
        chosen = self._inner.choose(left_out) if left_out else self._inner.choose()
        if chosen is None:
            # There is nobody else: better early than not at all.
            return self._inner.choose(tried)
        if chosen in earned:
            earned[chosen] -= 1.0
        return chosen
