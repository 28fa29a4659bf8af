"""Stand-ins for upstreams: servers on loopback that answer well, or fail as a scenario says.

Their only client is the gateway, whose HTTP/1.1 is strict, so they read it without being careful.
Each request carries the number that `load.py` gave it (`TAG`); the stand-in counts how often it
saw that number, which is what amplification is.

What is down does not listen, so that connecting is refused. Its port is kept meanwhile by a second
socket that is bound and never listens.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from gateway.chaos.scenario import Trouble
from gateway.http1.chunked import ChunkedDecoder

TAG: Final = b"x-lockgate-chaos"
# The number of requests that carry none.
NOBODY: Final = -1
_HEALTHY: Final = Trouble()
_MAX_HEAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stand-in answers. `fields` are whole header lines."""

    status: int = 200
    body: bytes = b'{"stand_in": true}'
    fields: tuple[bytes, ...] = (b"content-type: application/json",)

    @classmethod
    def json(cls, value: Any, status: int, headers: Mapping[str, str] | None = None) -> Answer:
        """An answer of JSON."""
        given = [f"{name}: {text}".encode("latin-1") for name, text in (headers or {}).items()]
        if not any(line.lower().startswith(b"content-type:") for line in given):
            given.append(b"content-type: application/json")
        return cls(status, json.dumps(value, default=str).encode(), tuple(given))

    def head(self, *, fields: tuple[bytes, ...] = ()) -> bytes:
        """The head; its length is that of the body."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, _reason(self.status)), *self.fields, *fields]
        if self.status >= 200 and self.status not in (204, 304):
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n"


def _reason(status: int) -> bytes:
    return b"OK" if status < 400 else b"Stand-In"


@dataclass(frozen=True, slots=True)
class _Request:
    method: bytes
    number: int
    route: str


class Ledger:
    """Which requests reached which upstream, and how often, by the requests' numbers."""

    def __init__(self) -> None:
        self.calls: dict[str, Counter[int]] = {}
        self.answers: Mapping[str, Answer] = {}
        self.default: Mapping[str, Answer] = {}

    def note(self, upstream: str, number: int) -> None:
        """One more request."""
        self.calls.setdefault(upstream, Counter())[number] += 1

    def strangers(self, upstream: str) -> int:
        """How many requests without a number an upstream saw."""
        calls = self.calls.get(upstream)
        return 0 if calls is None else calls[NOBODY]

    def answer(self, upstream: str, route: str) -> Answer:
        """What this route's requests are answered here: its own answer, or the upstream's."""
        return self.answers.get(route) or self.default.get(upstream) or Answer()


class StandIn:
    """One target of one upstream. To be started before its port is known.

    `settle` says what is wrong with it from now on.
    """

    def __init__(
        self, upstream: str, ledger: Ledger, rng: Random, now: Callable[[], float]
    ) -> None:
        self.upstream = upstream
        self._ledger = ledger
        self._random = rng
        self._now = now
        self._trouble = _HEALTHY
        self._since = 0.0
        self._keeper: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._flapping: asyncio.Task[None] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Choose a port and listen on it."""
        self._keeper = _bound(0)
        self.port = self._keeper.getsockname()[1]
        await self._listen()

    async def settle(self, trouble: Trouble) -> None:
        """From now on, fail like this."""
        await self._stop_flapping()
        self._trouble, self._since = trouble, self._now()
        if trouble.down and trouble.flap is not None:
            await self._leave()
            self._flapping = asyncio.create_task(self._flap(trouble.flap))
        elif trouble.down:
            await self._leave()
        else:
            await self._listen()

    async def aclose(self) -> None:
        """Stop, and cut every connection."""
        await self._stop_flapping()
        await self._leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            self._keeper.close()

    async def _flap(self, half: float) -> None:
        while True:
            await asyncio.sleep(half)
            await self._listen()
            await asyncio.sleep(half)
            await self._leave()

    async def _stop_flapping(self) -> None:
        task, self._flapping = self._flapping, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, sock=_bound(self.port), limit=_MAX_HEAD
            )

    async def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while (request := await _read(reader)) is not None:
                self._ledger.note(self.upstream, request.number)
                if not await self._answer(request, reader, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError, ValueError):
            pass  # the gateway left, or this server did; a task of ours has nobody to tell
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer, or fail to. False ends the connection."""
        trouble = self._current()
        if trouble.latency or trouble.jitter:
            await asyncio.sleep(trouble.latency + trouble.jitter * self._random.random())
        if trouble.stall:
            await _until_gone(reader)
            return False
        if trouble.reset:
            _reset(writer)
            return False
        answer = self._ledger.answer(self.upstream, request.route)
        fields: tuple[bytes, ...] = ()
        if trouble.status is not None:
            answer = Answer(trouble.status, b'{"stand_in": "in trouble"}')
            if trouble.retry_after is not None:
                fields = (b"retry-after: %d" % trouble.retry_after,)
        body = b"" if request.method == b"HEAD" or answer.status in (204, 304) else answer.body
        if trouble.truncate:
            body = body[: len(body) // 2]
        writer.write(answer.head(fields=fields) + body)
        await writer.drain()
        return not trouble.truncate

    def _current(self) -> Trouble:
        """What is wrong for a request that arrives now."""
        trouble = self._trouble
        if trouble.is_healthy or trouble.down:
            return _HEALTHY
        if trouble.flap is not None and int((self._now() - self._since) / trouble.flap) % 2:
            return _HEALTHY
        if trouble.share < 1 and self._random.random() >= trouble.share:
            return _HEALTHY
        return trouble


def _bound(port: int) -> socket.socket:
    """A socket on loopback that shares its port with the others of the same stand-in."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _until_gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    """The next request, its body read and dropped; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *rest = head[:-4].split(b"\r\n")
    fields = {}
    for each in rest:
        name, _, value = each.partition(b":")
        fields[name.lower()] = value.strip()
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        decoder = ChunkedDecoder()
        while not decoder.done:
            await _feed(reader, decoder)
    else:
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
    number, _, route = fields.get(TAG, b"%d;" % NOBODY).partition(b";")
    return _Request(line.partition(b" ")[0], int(number), route.decode("latin-1"))


async def _feed(reader: asyncio.StreamReader, decoder: ChunkedDecoder) -> None:
    data = await reader.read(65536)
    if not data:
        raise asyncio.IncompleteReadError(b"", None)
    decoder.feed(data)
