"""What goes into the queues and comes out of them: plain data, apart from what is compiled."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.delivery.audit_entry import OFF
from gateway.delivery.event import Head, Record
from gateway.message import NOTHING_REPEATS


class Lane(msgspec.Struct, frozen=True):
    """The queue of one target of one route."""

    route: str
    target: str

    @property
    def name(self) -> str:
        """As it stands in the keys."""
        return f"{self.route}/{self.target}"


class Entry(msgspec.Struct, frozen=True):
    """An event on its way to one target when it is accepted. `order` is a digest or empty.

    `state` is q, w (`delay` in seconds), x (`member` is the dead letter's, `record` says why) or n.
    """

    target: str
    state: str
    record: Record | None = None
    order: str = ""
    delay: float = 0.0
    member: str = ""


class Acceptance(msgspec.Struct, frozen=True):
    """All that is kept of a new event, at once. `repeats` and `also` are each as in Exchange.

    `keep` is how long the event stays once it is delivered, in seconds.
    """

    id: str
    head: Head
    body: bytes
    entries: list[Entry]
    repeats: tuple[str, float, str] = NOTHING_REPEATS
    also: tuple[str, float, str] = NOTHING_REPEATS
    callback: str = ""
    keep: float = 3600.0
    audit: bytes = OFF


class First(msgspec.Struct, frozen=True):
    """The event that was kept before one that repeats it; `same` if that is really the same."""

    id: str
    same: bool


class Taken(msgspec.Struct, frozen=True):
    """An event that was handed out. `fence` proves that it was; `accepted_at` is when it came to
    this target, in Unix seconds.
    """

    entry: bytes
    id: str
    fence: int
    head: bytes
    body: bytes
    record: bytes
    accepted_at: float


class Batch(msgspec.Struct, frozen=True):
    """What was taken, and when to come again: seconds until something is due (None: nothing), until
    the rate allows more (0: now). `newest` is where to wait for more: the last id of those that are
    new, and of those that are due again.
    """

    events: list[Taken]
    due: float | None
    wait: float
    newest: tuple[bytes, bytes]


class Rate(msgspec.Struct, frozen=True):
    """At most one event every `every` seconds, `burst` at once; 0 for no rate."""

    every: float = 0.0
    burst: int = 1


NO_RATE: Final = Rate()
