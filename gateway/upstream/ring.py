"""Consistent hashing with bounded load: a key keeps its target while targets come and go.

Each target has points on a ring of 64-bit numbers; a key belongs to the first point behind its own
number. A target that leaves gives its keys to those behind its points, and no other key moves.
Nobody gets more than `1 + SLACK` times its share of what is active: a key that everybody asks for
overflows to the next target (Mirrokni, Thorup, Zadimoghaddam 2016). Every process computes the same
ring, so workers and gateways agree without a word.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from math import ceil, gcd
from typing import TYPE_CHECKING, Final

from gateway.upstream.balancer import PowerOfTwo
from gateway.upstream.target import Target

if TYPE_CHECKING:
    from gateway.message import Exchange

SLACK: Final = 0.25
# Shares then deviate by about 8 %; the bound on the load catches what is left.
POINTS: Final = 160
_MOST_POINTS: Final = 32_768
_SIZE: Final = 8
# Keys whose positions are remembered: hashing one costs more than all the rest.
_REMEMBERED: Final = 4096


def position(key: bytes) -> int:
    """Where a key stands on every ring."""
    return int.from_bytes(blake2b(key, digest_size=_SIZE).digest(), "big")


def _points(label: str, count: int) -> list[int]:
    """The points of a target; more of them begin with the same ones."""
    points: list[int] = []
    block = 0
    while len(points) < count:
        digest = blake2b(b"%d:%b" % (block, label.encode())).digest()
        points += [
            int.from_bytes(digest[at : at + _SIZE], "big") for at in range(0, len(digest), _SIZE)
        ]
        block += 1
    return points[:count]


class Ring:
    """Targets on a ring, by weight. `factors` give some of them only a part of their points."""

    __slots__ = ("_owners", "_points", "_targets", "_weight")

    def __init__(
        self, targets: Sequence[Target], factors: Mapping[Target, float] | None = None
    ) -> None:
        self._targets = [target for target in targets if target.weight]
        self._weight = sum(target.weight for target in self._targets)
        divisor = gcd(*(target.weight for target in self._targets)) or 1
        each = min(float(POINTS), _MOST_POINTS * divisor / max(1, self._weight))
        found: list[tuple[int, int]] = []
        for index, target in enumerate(self._targets):
            part = 1.0 if factors is None else factors.get(target, 1.0)
            # Fewer points make the whole ring smaller too; so many are that part of the share.
            share = target.weight / self._weight
            part = part * (1 - share) / (1 - part * share) if part < 1 else 1.0
            count = max(1, round(each * target.weight / divisor * part))
            found += [(point, index) for point in _points(target.label, count)]
        found.sort()
        self._points = [point for point, _ in found]
        self._owners = [self._targets[index] for _, index in found]

    def find(self, position: int, tried: Collection[Target] = ()) -> Target | None:
        """The target of the key at this position that has room and was not tried.

        None if each of them was tried.
        """
        left = len(self._targets)
        if tried:
            left = sum(target not in tried for target in self._targets)
        owners = self._owners
        count = len(owners) if left else 0
        start = bisect_right(self._points, position)
        total = -1
        passed: list[Target] = []
        for offset in range(count):
            target = owners[(start + offset) % count]
            if target in passed or target in tried:
                continue
            # An idle target always has room, so that a quiet ring is never added up.
            if not target.active:
                return target
            if total < 0:
                total = sum(each.active for each in self._targets)
            if target.active < self._room(target, total):
                return target
            passed.append(target)
            if len(passed) == left:
                break
        # All that is left is over its bound, because those below it were tried: take the first.
        return passed[0] if passed else None

    def _room(self, target: Target, total: int) -> int:
        """How many exchanges it may have at once, if there is one more than `total` in all."""
        return ceil((1 + SLACK) * (total + 1) * target.weight / self._weight)


class Hashed:
    """Chooses by a key of the exchange; one without the key goes to a target with little to do."""

    __slots__ = ("_key", "_positions", "_ring", "_without")

    def __init__(
        self,
        key: Callable[[Exchange], bytes],
        targets: Sequence[Target],
        random: random.Random,
        factors: Mapping[Target, float] | None = None,
    ) -> None:
        self._key = key
        self._ring = Ring(targets, factors)
        self._without = PowerOfTwo(targets, random)
        self._positions: dict[bytes, int] = {}

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """A target for an exchange without a key: sending all of those to one is no balance."""
        return self._without.choose(tried)

    def choose_for(self, exchange: Exchange, tried: Collection[Target] = ()) -> Target | None:
        """The target of the exchange's key, or the next one that was not tried and has room."""
        key = self._key(exchange)
        if not key:
            return self._without.choose(tried)
        positions = self._positions
        where = positions.get(key)
        if where is None:
            if len(positions) >= _REMEMBERED:
                positions.clear()
            where = positions[key] = position(key)
        return self._ring.find(where, tried)
