"""The clients: a bounded load of requests, and what became of each.

They live in the gateway's own process and event loop, and so do the stand-ins. What is measured
here is how failures spread, in hundreds of requests and tenths of seconds, not how fast anything
is: rates are bounded, the loop's lag is measured and told, and in exchange there is one process,
which ends as a whole. A generator in a process of its own would compete for the same cores.

The HTTP/1.1 is ours: a client library would retry, pool and time out by rules of its own, and each
of those would be a rumour about the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.chaos.requests import Maker, Request
from gateway.chaos.scenario import Load
from gateway.chaos.verdict import Sample
from gateway.http1.chunked import ChunkedDecoder
from gateway.http1.head import MalformedMessage, ResponseHead, parse_response_head

# Requests under way at once; what the rate would add beyond that is not sent, and told.
MAX_IN_FLIGHT: Final = 1000
_MAX_HEAD: Final = 256 * 1024
_PROBLEM: Final = b"application/problem+json"


class _Cut(Exception):
    """The connection ended in the middle of an answer."""


class _Nothing(Exception):
    """The connection ended before an answer began."""


@dataclass(slots=True)
class Record:
    """What became of the requests so far. `pending` are those under way: route and time sent."""

    samples: list[Sample] = field(default_factory=list)
    pending: dict[int, tuple[str, float]] = field(default_factory=dict)
    sent: int = 0
    not_sent: int = 0


class Clients:
    """Sends what `makers` make to `port`, one route after the other, as the load of a phase says.

    `now` gives seconds since the scenario began. A client waits `give_up` seconds for an answer;
    the gateway keeps idle connections for `keep_alive` seconds.
    """

    def __init__(
        self,
        makers: Sequence[Maker],
        port: int,
        now: Callable[[], float],
        *,
        give_up: float,
        keep_alive: float,
    ) -> None:
        self.record = Record()
        self._turns = itertools.cycle(makers)
        self._port = port
        self._now = now
        self._give_up = give_up
        self._keep_alive = keep_alive
        self._numbers = itertools.count(1)
        self._idle: list[tuple[_Connection, float]] = []
        self._broken: BaseException | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None

    async def settle(self, load: Load) -> None:
        """From now on, send like this."""
        await self._stop()
        drive = self._at_rate(load.per_second) if load.rate else self._at_once(load.concurrency)
        self._driver = asyncio.create_task(drive)

    async def finish(self) -> None:
        """Send no more, and wait for what is under way."""
        await self._stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._give_up + 1.0)
        if self._broken is not None:
            raise self._broken

    async def aclose(self) -> None:
        """Leave at once."""
        await self._stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._open:
            connection.close()

    async def _stop(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.cancel()
            await asyncio.gather(driver, return_exceptions=True)

    async def _at_rate(self, rate: float) -> None:
        """An open loop: the next request leaves on time, whatever became of the last one."""
        began = self._now()
        for position in itertools.count():
            wait = began + position / rate - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            if len(self._tasks) >= MAX_IN_FLIGHT:
                self.record.not_sent += 1
            else:
                self._spawn(self._one())

    async def _at_once(self, clients: int | None) -> None:
        """A closed loop: each client waits for its answer."""
        workers = [asyncio.create_task(self._again()) for _ in range(clients or 1)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def _again(self) -> None:
        while True:
            # In a task of its own, so that the end of a phase doesn't cut the request.
            task = self._spawn(self._one())
            await asyncio.wait({task})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A fault of ours, which must not pass for one of the gateway's.
            self._broken = self._broken or task.exception()

    async def _one(self) -> None:
        request = next(self._turns).make(next(self._numbers))
        record = self.record
        sent = self._now()
        record.sent += 1
        record.pending[request.number] = (request.route, sent)
        status, code = 0, ""
        try:
            async with asyncio.timeout(self._give_up):
                status, code = await self._exchange(request)
        except TimeoutError:
            code = "gave_up"
        except _Cut:
            code = "cut"
        except (_Nothing, MalformedMessage):
            code = "no_answer"
        except OSError:
            code = "not_connected"
        finally:
            record.pending.pop(request.number, None)
        record.samples.append(
            Sample(request.route, request.number, sent, self._now(), status, code)
        )

    async def _exchange(self, request: Request) -> tuple[int, str]:
        """Status and code of the answer. Raises OSError, _Cut, _Nothing, MalformedMessage."""
        while self._idle:
            connection, since = self._idle.pop()
            # The gateway closes what is idle for long, perhaps at this very moment.
            if connection.is_usable and self._now() - since < self._keep_alive / 2:
                break
            self._drop(connection)
        else:
            connection = _Connection(*await self._connect())
            self._open.add(connection)
        reusable = False
        try:
            head, body = await connection.ask(request)
            reusable = head.keep_alive
        finally:
            if reusable:
                self._idle.append((connection, self._now()))
            else:
                self._drop(connection)
        return head.status, _code(head, body)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=_MAX_HEAD)

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.close()


class _Connection:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_usable(self) -> bool:
        return not (self._reader.at_eof() or self._writer.transport.is_closing())

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: Request) -> tuple[ResponseHead, bytes]:
        """The whole answer."""
        try:
            self._writer.write(request.head + request.body)
            head = await self._head(request.method)
            while head.status < 200:
                head = await self._head(request.method)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            raise _Nothing from None
        try:
            return head, await self._body(head)
        except (asyncio.IncompleteReadError, ConnectionError, MalformedMessage):
            raise _Cut from None

    async def _head(self, method: str) -> ResponseHead:
        return parse_response_head(await self._reader.readuntil(b"\r\n\r\n"), method)

    async def _body(self, head: ResponseHead) -> bytes:
        if head.length >= 0:
            return await self._reader.readexactly(head.length)
        if b"transfer-encoding" not in head.index:
            return await self._reader.read()
        decoder, parts = ChunkedDecoder(), []
        while not decoder.done:
            data = await self._reader.read(65536)
            if not data:
                raise _Cut
            parts.append(decoder.feed(data))
        return b"".join(parts)


def _code(head: ResponseHead, body: bytes) -> str:
    """Why it failed: the gateway's code if it speaks for itself, else the status."""
    if head.status < 400:
        return ""
    if head.index.get(b"content-type", b"").startswith(_PROBLEM):
        try:
            code = json.loads(body).get("code")
        except (ValueError, AttributeError):
            code = None
        if isinstance(code, str):
            return code
    return str(head.status)
