"""The place of a worker in the fleet, and what every worker is told."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from socket import socket
from typing import Final

from gateway.server.member import Member

_BACKOFF_BASE_S: Final = 0.1


@dataclass(slots=True)
class Slot:
    """The place of one worker: its sockets, who sits in it, and how often it was filled anew."""

    index: int
    sockets: list[socket]
    member: Member | None = None
    tending: asyncio.Task[None] | None = None
    failures: int = 0
    restarts: int = 0
    orphaned: bool = False

    def pause(self, longest: float) -> float:
        """Seconds before it is filled anew; more after each failure, `longest` at most."""
        if self.failures == 0:
            return 0.0
        pause: float = min(longest, _BACKOFF_BASE_S * 2.0 ** min(self.failures - 1, 20))
        # Workers that fell together should not rise together.
        return pause * (0.5 + random.random() / 2)  # noqa: S311 - no secret depends on it


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What every worker is told. `instance` is the same for all, so that all know the pseudonym."""

    instance: str
    stock: bool
