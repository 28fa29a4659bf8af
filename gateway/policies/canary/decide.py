"""Which side answers an exchange. Pure; the caller's point is given (`groups.point`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """The upstream beside `canary`, or the one in it."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an exchange: whether `unless` or `when` takes it, and the caller's point."""

    excepted: bool
    chosen: bool
    point: float


def decide(weight: float, facts: Facts) -> Side:
    """The side for an exchange; `weight` is the canary's share, from 0 to 1.

    Rules come before the weight, and `unless` before `when`: who must not meet the canary does not,
    whatever else is said of them.
    """
    if facts.excepted:
        return Side.STABLE
    if facts.chosen or facts.point < weight:
        return Side.CANARY
    return Side.STABLE
