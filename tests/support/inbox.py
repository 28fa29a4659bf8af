"""An upstream that takes events: it keeps what it was sent, and answers what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.support.gateway import eventually
from tests.support.scripted import Peer, Received, respond

Reply = Callable[[Received, int], bytes]


class Inbox:
    """A script for ScriptedUpstream. `replies` are given one after another, the last one again.

    `reply`, if set, is asked instead, with the request and how many came before it. While `go` is
    not set, answers wait. `most` is how many requests were under way at once.
    """

    def __init__(self, *replies: bytes) -> None:
        self.replies = replies or (respond(b"taken"),)
        self.reply: Reply | None = None
        self.got: list[Received] = []
        self.at: list[float] = []
        self.answered = 0
        self.under_way = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            number = len(self.got)
            self.got.append(request)
            self.at.append(asyncio.get_running_loop().time())
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await self.go.wait()
            finally:
                self.under_way -= 1
            if self.reply is not None:
                data = self.reply(request, number)
            else:
                data = self.replies[min(number, len(self.replies) - 1)]
            await peer.send(data)
            self.answered += 1

    async def until(self, count: int) -> None:
        """Wait for this many requests."""
        await eventually(lambda: len(self.got) >= count)

    def field(self, name: str) -> list[str | None]:
        """A header field of every request."""
        return [request.get(name) for request in self.got]

    def bodies(self) -> list[Any]:
        """The JSON bodies."""
        return [json.loads(request.body) for request in self.got]


def status(code: int, *fields: bytes, body: bytes = b"{}") -> bytes:
    """An answer with this status."""
    return respond(body, f"{code} Said", *fields)
