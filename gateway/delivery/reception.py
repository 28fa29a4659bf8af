"""What the intake of a route is told, and what it tells: data, apart from what is compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.delivery.event import Event, Record
from gateway.expressions import Expression
from gateway.request_key import KeyRule


@dataclass(frozen=True, slots=True)
class Receiver:
    """One target, as the intake sees it: its name, and for which events it is."""

    name: str
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """What is kept of the events of a route. `secret_fields` are header names that are not; times
    are seconds. `callback` is the name of the target that is told at the end, or empty. `on_dead`
    is told of each target that an event is given up for at once.
    """

    route: str
    receivers: Sequence[Receiver]
    ordered_by: KeyRule | None = None
    secret_fields: frozenset[bytes] = frozenset()
    callback: str = ""
    keep: float = 3600.0
    on_dead: Callable[[str, Event, Record], None] | None = None


class Receipt(msgspec.Struct, frozen=True):
    """An event that is kept now, or was before (`duplicate`). `targets` says for each target what
    became of it: queued, skipped (its condition does not hold) or dead.
    """

    id: str
    duplicate: bool = False
    targets: tuple[tuple[str, str], ...] = ()
    quarantined: bool = False
