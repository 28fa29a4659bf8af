"""Which target gets the next request. Pure state machines: no clock, no I/O, no exchange.

A balancer is asked with the targets that were tried already, so that a failed connect moves on to
another one. A target of weight 0 takes no traffic; the configuration sees to it that one has more.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from math import gcd
from typing import Final, Protocol

from gateway.upstream.target import Target

_MAX_CYCLE: Final = 10_000


class Balancer(Protocol):
    """Chooses among the targets it was built with."""

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """The target for the next attempt, or None if each of them is in `tried`."""
        ...


def smooth_cycle(weights: Sequence[int]) -> list[int]:
    """One whole period of smooth weighted round robin, as indices into `weights`.

    With weights 5, 1, 1 it is 0 0 1 0 2 0 0: no target gets its share in one burst. Weights are
    reduced to at most 10,000 turns in all; a weight above 0 keeps at least one.
    """
    divisor = gcd(*weights) or 1
    turns = [weight // divisor for weight in weights]
    total = sum(turns)
    if total > _MAX_CYCLE:
        turns = [max(1, turn * _MAX_CYCLE // total) if turn else 0 for turn in turns]
        total = sum(turns)
    current = [0] * len(turns)
    cycle = []
    for _ in range(total):
        for index, turn in enumerate(turns):
            current[index] += turn
        best = max(range(len(turns)), key=current.__getitem__)
        current[best] -= total
        cycle.append(best)
    return cycle


class RoundRobin:
    """Smooth weighted round robin. It starts anywhere, so that workers do not march in step."""

    __slots__ = ("_cycle", "_next", "_next_other")

    def __init__(self, targets: Sequence[Target], random: random.Random) -> None:
        self._cycle = [targets[i] for i in smooth_cycle([target.weight for target in targets])]
        self._next = self._next_other = random.randrange(len(self._cycle))

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """The next target in the cycle that was not tried."""
        cycle = self._cycle
        if not tried:
            self._next = (self._next + 1) % len(cycle)
            return cycle[self._next]
        # Stand-ins are taken from a rotation of their own: otherwise the turn behind a dead target
        # would always be used up, and the dead one asked twice as often.
        for _ in cycle:
            self._next_other = (self._next_other + 1) % len(cycle)
            target = cycle[self._next_other]
            if target not in tried:
                return target
        return None


class LeastRequests:
    """The target with the fewest active exchanges for its weight; ties take turns."""

    __slots__ = ("_next", "_targets")

    def __init__(self, targets: Sequence[Target], random: random.Random) -> None:
        self._targets = targets
        self._next = random.randrange(len(targets))

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """The least loaded target that was not tried."""
        targets = self._targets
        count = len(targets)
        self._next = first = (self._next + 1) % count
        best: Target | None = None
        lowest = 0.0
        for offset in range(count):
            target = targets[(first + offset) % count]
            if target.weight == 0 or target in tried:
                continue
            # One more than active, so that an idle target of weight 2 goes before one of weight 1.
            load = (target.active + 1) / target.weight
            if best is None or load < lowest:
                best, lowest = target, load
        return best


class PowerOfTwo:
    """Of two targets drawn by chance, the one with fewer active exchanges for its weight.

    Nearly as even as asking all of them, at the price of two, and without the stampede: many
    gateways with the same old news don't all choose the same target.
    """

    __slots__ = ("_count", "_limits", "_random", "_targets")

    def __init__(self, targets: Sequence[Target], random: random.Random) -> None:
        self._targets = [target for target in targets if target.weight]
        self._count = len(self._targets)
        self._random = random
        # The upper ends of the targets' shares of the weight; none if all weigh the same.
        weights = [target.weight for target in self._targets]
        self._limits = list(accumulate(weights)) if len({*weights}) > 1 else []

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """One of those that were not tried."""
        if tried:
            left = [target for target in self._targets if target not in tried]
            return PowerOfTwo(left, self._random).choose() if left else None
        count = self._count
        if count < 2:
            return self._targets[0] if count else None
        # The first by weight, the other by chance alone: among idle targets the first one wins, so
        # that the shares are the weights.
        first, second = self._random.random(), self._random.random()
        index = int(first * count)
        if self._limits:
            index = bisect_right(self._limits, first * self._limits[-1])
        other = int(second * (count - 1))
        if other >= index:
            other += 1
        one, two = self._targets[index], self._targets[other]
        return two if two.active * one.weight < one.active * two.weight else one


def make_balancer(kind: str, targets: Sequence[Target], random: random.Random) -> Balancer:
    """The balancer of this name but `hash`; a lone target needs no decision."""
    if not any(target.weight for target in targets):
        return Nobody()
    if len(targets) == 1:
        return Only(targets[0])
    kinds: dict[str, type[RoundRobin | LeastRequests | PowerOfTwo]]
    kinds = {"round_robin": RoundRobin, "least_requests": LeastRequests, "p2c": PowerOfTwo}
    return kinds[kind](targets, random)


class Only:
    """The one target there is."""

    __slots__ = ("_target",)

    def __init__(self, target: Target) -> None:
        self._target = target

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """The target, unless it was tried."""
        return None if self._target in tried else self._target


class Nobody:
    """No target can be used."""

    __slots__ = ()

    def choose(self, tried: Collection[Target] = ()) -> Target | None:
        """None."""
        return None
