"""Senders as they are: each sends its events in order, each one again until it got a 202."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE_S = 6.0


@dataclass(slots=True)
class Accepted:
    """What senders were promised: the event's id by (key, number). `asked` counts requests."""

    events: dict[tuple[str, int], str] = field(default_factory=dict)
    poisoned: set[tuple[str, int]] = field(default_factory=set)
    asked: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)


class Senders:
    """`count` senders, each with a key of its own, that send to these sockets."""

    def __init__(self, sockets: list[Path], count: int, rng: random.Random, pause: float) -> None:
        self.accepted = Accepted()
        self._sockets = sockets
        self._keys = [f"k{number}" for number in range(count)]
        self._next = dict.fromkeys(self._keys, 0)
        self._random = rng
        self._pause = pause
        self._enough = asyncio.Event()

    async def send_until(self, enough: asyncio.Event) -> None:
        """Send until `enough` is set; what was begun is brought to its 202 first."""
        self._enough = enough
        await asyncio.gather(*(self._send(key) for key in self._keys))

    async def _send(self, key: str) -> None:
        while not self._enough.is_set():
            seq = self._next[key]
            await self._bring(key, seq)
            self._next[key] = seq + 1
            await asyncio.sleep(self._pause * self._random.uniform(0.5, 1.5))

    async def _bring(self, key: str, seq: int) -> None:
        found = self.accepted
        poison = self._random.random() < 0.02
        if poison:
            found.poisoned.add((key, seq))
        body = json.dumps({"key": key, "seq": seq, "poison": poison}).encode()
        while True:
            found.asked += 1
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    status, answer = await self._post(f"{key}-{seq}", body)
            except (OSError, EOFError, TimeoutError, ValueError):
                status, answer = 0, b""
            if status == 202:
                self._note(key, seq, json.loads(answer))
                return
            if status not in (0, 503):
                found.faults.append(f"{key}-{seq}: status {status}: {answer[:200]!r}")
            found.repeated += 1
            await asyncio.sleep(self._random.uniform(0.05, 0.2))

    def _note(self, key: str, seq: int, answer: dict[str, object]) -> None:
        self.accepted.events[key, seq] = str(answer["event_id"])

    async def _post(self, name: str, body: bytes) -> tuple[int, bytes]:
        path = self._random.choice(self._sockets)
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(
                b"POST /events HTTP/1.1\r\nHost: events\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\n"
                b'Idempotency-Key: "%b"\r\nContent-Length: %d\r\n\r\n%b'
                % (name.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1]), await reader.read()
        finally:
            writer.close()
