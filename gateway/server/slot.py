"""The place of one worker process in a fleet."""

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
