"""The place of a worker in the fleet, and what every worker is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from socket import socket

from gateway.server.member import Member


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


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What every worker is told. `instance` is the same for all, so that all know the pseudonym."""

    instance: str
    stock: bool
