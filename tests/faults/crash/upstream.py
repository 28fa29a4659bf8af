"""The upstream that remembers: every delivery that reached it, and how it was answered."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from dataclasses import dataclass
from time import monotonic
from typing import Any

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_LIMIT = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
_NEVER = b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 0\r\n\r\n"


@dataclass(slots=True)
class Call:
    """One delivery. `target` is the path; `began` and `answered` are monotonic seconds, the latter
    0 for one that got no answer. `number` is the call's among all.
    """

    number: int
    target: str
    event: str
    idempotency_key: str
    attempt: int
    key: str
    seq: int
    began: float
    status: int = 0
    answered: float = 0.0

    @property
    def settles(self) -> bool:
        """Whether nothing more was to come after this answer."""
        return self.answered > 0 and (200 <= self.status < 300 or self.status == 422)


class RecordingUpstream:
    """See the module. `trouble` is the share of calls that are not simply answered 200."""

    def __init__(self, rng: random.Random, trouble: float = 0.1) -> None:
        self.calls: list[Call] = []
        self.callbacks: dict[str, int] = {}
        self._random = rng
        self._trouble = trouble
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> str:
        """Listen; gives the URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def calm(self) -> None:
        """From now on every event that can be taken is."""
        self._trouble = 0.0

    async def aclose(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = _fields(head)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                path = head.split(b" ", 2)[1].decode()
                if path == "/done":
                    told = json.loads(body)
                    self.callbacks[told["event_id"]] = self.callbacks.get(told["event_id"], 0) + 1
                    writer.write(_OK)
                else:
                    await self._take(path, fields, json.loads(body), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _take(
        self, path: str, fields: dict[str, str], body: Any, writer: asyncio.StreamWriter
    ) -> None:
        call = Call(
            len(self.calls),
            path,
            fields["x-lockgate-event"],
            fields["idempotency-key"],
            int(fields["x-lockgate-attempt"]),
            body["key"],
            body["seq"],
            monotonic(),
        )
        self.calls.append(call)
        answer, pause = self._choose(poison=body["poison"])
        if pause:
            await asyncio.sleep(pause)
        if not answer:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise ConnectionResetError
        if writer.transport.is_closing():
            raise ConnectionResetError
        call.status, call.answered = int(answer.split(b" ", 2)[1]), monotonic()
        writer.write(answer)

    def _choose(self, *, poison: bool) -> tuple[bytes, float]:
        """An answer (nothing for a reset) and seconds before it."""
        good = _NEVER if poison else _OK
        if self._random.random() >= self._trouble:
            return good, 0.0
        kind = self._random.choice(("busy", "limit", "reset", "late", "late and reset"))
        if kind == "busy":
            return _BUSY, 0.0
        if kind == "limit":
            return _LIMIT, 0.0
        if kind == "reset":
            return b"", 0.0
        pause = self._random.uniform(0.05, 1.5)
        return (good if kind == "late" else b""), pause


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in pairs}
