"""A single server behind one connection that all requests of this process share.

Keeps the connection: connects in the background, again and again, with back-off; leaves a server
that fails alone (`breaker.py`) and probes whether it is back. While there is no connection calls
fail at once; only during the first attempt after a loss do they wait, within their own time limit.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.store_url import StoreUrl
from gateway.errors import StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import Channel, Part, ReplyError, Store, StoreStatus, failure
from gateway.store.breaker import Breaker, backoff
from gateway.store.channel import LinkChannel
from gateway.store.link import Link
from gateway.store.reach import (
    CONNECT_S,
    Facts,
    Greeting,
    Locate,
    Place,
    Tls,
    connect,
    greet,
    inspect,
)
from gateway.store.script import Script

logger = logging.getLogger("gateway.store")

STORE: Final = "the store"
"""What the gateway's own store is called; a server of streams that events come from has a name."""

# A connection that lived this long was a good one: the next attempt is a first one again.
_STEADY_S: Final = 1.0
# After these replies another server may be the one to write to, or this one wants a new greeting.
_MOVED: Final = frozenset({"READONLY", "MASTERDOWN", "NOAUTH"})


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What every way to a store is given. `timeout` is seconds; `name` is what the log calls it."""

    url: StoreUrl
    timeout: float
    key_prefix: bytes
    series: StoreSeries
    clock: Clock
    rng: random.Random
    tls: Tls | None = None
    name: str = STORE


class SharedStore(Store):
    """See the module. `locate` finds the server; `report` is told whenever calls begin to pass or
    to fail.
    """

    def __init__(
        self,
        locate: Locate,
        options: StoreOptions,
        report: Callable[[bool], None] | None = None,
    ) -> None:
        self.key_prefix = options.key_prefix
        self.timeout = options.timeout
        self._options = options
        self._locate = locate
        self._series = options.series
        self._report = report or self._show
        self._breaker = Breaker()
        self._link: Link | None = None
        self._place = Place()
        self._greeting = Greeting("", "")
        self._facts = Facts()
        self._keeping: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._asides: set[asyncio.Task[None]] = set()
        # Set during the first attempt after a loss; calls may wait for how that ends.
        self._hope: asyncio.Future[None] | None = None
        self._made_at = 0.0
        self._durable = False
        self._warned = False
        self._closed = False
        self._since = options.clock.wall()
        self._error = ""
        self._error_at = 0.0

    # Calls.

    async def call(self, *parts: Part) -> Any:
        link = self._link
        if link is None or not self._breaker.closed:
            return await self.request(parts, monotonic())
        return await link.send(parts, monotonic())

    def run(self, script: Script, keys: tuple[Part, ...], args: tuple[Part, ...]) -> Awaitable[Any]:
        # No coroutine in the usual case: what waits is the reply itself.
        link = self._link
        if link is None or not self._breaker.closed:
            return self._run_connected(script, keys, args, monotonic())
        return link.run((script, keys, args), monotonic())

    async def _run_connected(
        self, script: Script, keys: tuple[Part, ...], args: tuple[Part, ...], at: float
    ) -> Any:
        link = await self.connected(at)
        return await link.run((script, keys, args), at)

    async def request(self, parts: tuple[Part, ...], at: float) -> Any:
        """The reply to a command that has been wanted since `at`. Raises StoreError."""
        link = self._link
        if link is None or not self._breaker.closed:
            link = await self.connected(at)
        return await link.send(parts, at)

    async def connected(self, at: float) -> Link:
        """A link to use, also if there was none a moment ago. Raises StoreError, mostly at once."""
        if self._hope is not None and self._breaker.closed:
            await asyncio.wait({self._hope}, timeout=max(0.0, at + self.timeout - monotonic()))
        if self._link is None or not self._breaker.closed:
            self._series.unavailable += 1
            raise failure("the store is unavailable", sent=False)
        return self._link

    @property
    def up(self) -> bool:
        """Whether calls are sent, and do not fail at once."""
        return self._link is not None and self._breaker.closed

    # The connection.

    async def start(self) -> None:
        if self._keeping is None and not self._closed:
            first = self.begin()
            await asyncio.wait({first}, timeout=CONNECT_S)

    def begin(self) -> asyncio.Future[None]:
        """Start without waiting. The future is done once the first attempt has ended."""
        self._report(False)
        loop = asyncio.get_running_loop()
        self._hope = first = loop.create_future()
        self._keeping = loop.create_task(self._keep())
        return first

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                lost = await self._connect()
            except (OSError, StoreError, TimeoutError) as error:
                self._note(reason(error))
            else:
                why = await lost
                self._note(why)
                if self._hope is not None:
                    failures = 0
                    continue
            self._end_hope()
            await asyncio.sleep(backoff(failures, self._options.rng.random()))
            failures += 1

    def _end_hope(self) -> None:
        hope, self._hope = self._hope, None
        if hope is not None and not hope.done():
            hope.set_result(None)

    async def _connect(self) -> asyncio.Future[str]:
        """Connect and greet. The future that is returned tells when and why it ended."""
        gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        limit = max(CONNECT_S, 4 * self.timeout)
        made: list[Link] = []

        def on_lost(link: Link, why: str) -> None:
            self._lost(link)
            if not gone.done():
                gone.set_result(why)

        def make() -> Link:
            made.append(Link(limit, self._series, on_lost, self._failed))
            return made[0]

        try:
            async with asyncio.timeout(limit):
                self._place = await self._locate()
                link = await connect(self._place, self._options.tls, make)
                self._greeting = await greet(link.send, self._options.url, "lockgate")
                await self._prepare(link)
        except BaseException:
            for link in made:
                link.close("the connection to the store was not made")
            raise
        self._up(link)
        return gone

    async def _prepare(self, link: Link) -> None:
        """What a new connection needs before it is used. Raises StoreError."""
        if self._greeting.role == "replica":
            raise failure("the server is a replica, which can't be written to", sent=False)

    def _up(self, link: Link) -> None:
        link.limit(self.timeout)
        if link.lost:
            return
        self._link = link
        self._made_at = monotonic()
        self._breaker.recover()
        self._series.connects += 1
        self._turned(up=True)
        self._end_hope()
        facts = {"address": str(self._place), "server": self._greeting.server}
        logger.info("%s is connected", self._options.name, extra=facts)
        self._aside(self._inspect(link))

    def _lost(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            if monotonic() - self._made_at > _STEADY_S and not self._closed:
                self._hope = asyncio.get_running_loop().create_future()
            self._turned(up=False)

    def _turned(self, *, up: bool) -> None:
        self._since = self._options.clock.wall()
        self._report(up)

    def _show(self, up: bool) -> None:
        self._series.up = up

    def _note(self, why: str) -> None:
        """Log what went wrong: once, and again each minute for as long as it lasts."""
        now = self._options.clock.wall()
        if why != self._error or now - self._error_at > 60.0:
            said = why.replace(STORE, self._options.name, 1)
            logger.error("%s", said, extra={"address": str(self._place)})
            self._error_at = now
        self._error = why

    # Failing.

    def _failed(self, error: StoreError) -> None:
        """A command timed out, or the store said that it can't work."""
        link = self._link
        if link is None:
            return
        loop = asyncio.get_running_loop()
        if isinstance(error, ReplyError) and error.code in _MOVED:
            loop.call_soon(link.close, f"the store refuses: {error.reply}")
        if self._breaker.judge(link.failures):
            self._turned(up=False)
            self._note(f"the store is left alone for a moment: {reason(error)}")
            if self._probing is None or self._probing.done():
                self._probing = loop.create_task(self._probe())

    async def _probe(self) -> None:
        """Ask for something that only a store which can write answers, until it does."""
        key = self.key_prefix + b":probe"
        while not self._breaker.closed:
            await asyncio.sleep(self._breaker.next_pause(self._options.rng.random()))
            link = self._link
            if link is None:
                # A new connection is being made, and closes the breaker when it is there.
                continue
            try:
                await link.send((b"SET", key, b"1", b"PX", 1000), monotonic())
            except StoreError as error:
                # A node of a cluster may say that the key belongs elsewhere: it is well.
                if not isinstance(error, ReplyError) or error.unavailable:
                    self._note(reason(error))
                    continue
            if self._breaker.recover():
                self._turned(up=True)
                facts = {"address": str(self._place)}
                logger.info("%s answers again", self._options.name, extra=facts)

    # What the store is like.

    async def _inspect(self, link: Link) -> None:
        """Learn what it keeps, and warn of what does not fit."""
        try:
            self._facts = facts = await inspect(link.send)
        except StoreError:
            return
        where = {"address": str(self._place)}
        if facts.evicts and not self._warned:
            message = "%s may drop keys when its memory is full (maxmemory-policy %s)"
            logger.warning(message, self._options.name, facts.eviction, extra=where)
        if self._durable and facts.persistence in ("none", "snapshots") and not self._warned:
            message = "something must survive a power cut, but the store keeps %s"
            logger.warning(message, facts.persistence, extra=where)
        self._warned = True

    def require_durability(self) -> None:
        if not self._durable:
            self._durable = True
            self._warned = False
            if self._link is not None:
                self._aside(self._make_durable(self._link))

    async def _make_durable(self, link: Link) -> None:
        await self._inspect(link)

    def _aside(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    # The rest of the interface.

    def channel(self) -> Channel:
        return LinkChannel(self._locate, self._options.tls, self._options.url)

    def status(self) -> StoreStatus:
        if self._closed:
            state = "closed"
        elif self._link is None:
            state = "down"
        else:
            state = "up" if self._breaker.closed else "failing"
        return StoreStatus(
            state=state,
            since=self._since,
            kind=str(self._options.url.kind),
            address=str(self._options.url),
            last_error=self._error,
            error_at=self._error_at,
            server=self._greeting.server,
            role=self._greeting.role,
            persistence=self._facts.persistence,
            eviction=self._facts.eviction,
            in_flight=len(self._link.waiting) if self._link is not None else 0,
        )

    async def aclose(self) -> None:
        self._closed = True
        tasks = [task for task in (self._keeping, self._probing, *self._asides) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end_hope()
        if self._link is not None:
            self._link.close("the store was closed")


def reason(error: BaseException) -> str:
    """What went wrong, for people."""
    if isinstance(error, ReplyError):
        return f"the store refuses: {error.reply}"
    if isinstance(error, StoreError):
        return error.detail
    if isinstance(error, TimeoutError):
        return "the store did not accept a connection in time"
    return f"the store can't be reached: {getattr(error, 'strerror', None) or error}"
