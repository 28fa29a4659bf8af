"""Which trouble an exchange gets. Pure; the draws are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of trouble and the share of exchanges, from 0 to 1, that get it."""

    kind: str
    share: float


def decide(shares: Sequence[Share], draw: float) -> str:
    """The kind for a draw from [0, 1), or "" for none.

    The kinds exclude each other, so their shares add up: of 5 % aborts and 5 % resets, one exchange
    in ten fails, and none does both. Raises ValueError if they add up to more than 1.
    """
    edge = 0.0
    for each in shares:
        edge += each.share
        if draw < edge:
            return each.kind
    if edge > 1.0 + 1e-9:
        raise ValueError("shares add up to more than 1")
    return ""
