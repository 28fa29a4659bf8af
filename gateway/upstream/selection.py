"""Makes the balancer that a configuration names, for the targets that can be used just now."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from gateway.upstream.balancer import Balancer, Only, make_balancer
from gateway.upstream.hash_key import make_key
from gateway.upstream.ring import Hashed
from gateway.upstream.slow_start import Ramp
from gateway.upstream.target import Target


class Selection:
    """What stays the same whenever the usable targets change: the kind, the key, the randomness."""

    def __init__(self, kind: str, random: random.Random) -> None:
        self._kind = kind
        self._random = random
        self._key = make_key(kind) if kind.startswith("hash(") else None

    @property
    def hashes(self) -> bool:
        """Whether slow start is a matter of the ring, so that each of its steps needs a new one."""
        return self._key is not None

    def make(
        self, targets: Sequence[Target], factors: Mapping[Target, float] | None = None
    ) -> Balancer | Hashed:
        """A balancer for these targets; `factors` are parts of the shares of ramping ones."""
        usable = [target for target in targets if target.weight]
        if self._key is not None and len(usable) > 1:
            return Hashed(self._key, usable, self._random, factors)
        kind = "p2c" if self._key is not None else self._kind
        balancer = (
            Only(usable[0]) if len(usable) == 1 else make_balancer(kind, targets, self._random)
        )
        return Ramp(balancer, usable, factors) if factors else balancer
