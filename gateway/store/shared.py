"""A single server behind one connection that all requests of this process share.

Keeps the connection: connects in the background, again and again, with back-off; leaves a server
that fails alone (`breaker.py`) and probes whether it is back. While there is no connection calls
fail at once; only during an attempt that has just begun do they wait, within their own time limit.
"""

from __future__ import annotations

import asyncio
import logging
import random
from time import monotonic
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.store_url import StoreUrl
from gateway.errors import StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import Channel, Part, ReplyError, Store, StoreStatus, failure
from gateway.store.breaker import Breaker, backoff
from gateway.store.link import Link
from gateway.store.reach import CONNECT_S, Greeting, Locate, Place, Tls, connect, greet
from gateway.store.script import Script

logger = logging.getLogger("gateway.store")

# A connection that lived this long was a good one: the next attempt is a first one again.
_STEADY_S: Final = 1.0
# After these replies another server may be the one to write to, or this one wants a new greeting.
_MOVED: Final = frozenset({"READONLY", "MASTERDOWN", "NOAUTH"})


class SharedStore(Store):
    """See the module. `locate` finds the server; `url` says how to log in."""

    def __init__(
        self,
        url: StoreUrl,
        locate: Locate,
        *,
        timeout: float,
        key_prefix: str,
        series: StoreSeries,
        clock: Clock,
        rng: random.Random,
        tls: Tls | None = None,
    ) -> None:
        self.key_prefix = key_prefix.encode("ascii")
        self.timeout = timeout
        self._url = url
        self._locate = locate
        self._tls = tls
        self._series = series
        self._clock = clock
        self._random = rng
        self._breaker = Breaker()
        self._link: Link | None = None
        self._greeting = Greeting("", "")
        self._place = Place()
        self._keeping: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        # Set while a connection is being made; calls may wait for how that ends.
        self._attempt: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[str] | None = None
        self._durable = False
        self._persistence = "unknown"
        self._closed = False
        self._since = clock.wall()
        self._error = ""
        self._error_at = 0.0

    # Calls.

    async def call(self, *parts: Part) -> Any:
        link = self._link
        if link is None or not self._breaker.closed:
            return await self._call_without(parts)
        return await link.send(parts, monotonic())

    async def run(self, script: Script, keys: tuple[Part, ...], args: tuple[Part, ...]) -> Any:
        count = len(keys)
        link = self._link
        if link is None or not self._breaker.closed:
            link = await self._connected()
        at = monotonic()
        try:
            return await link.send((b"EVALSHA", script.sha, count, *keys, *args), at)
        except ReplyError as error:
            # The script did not run: it is safe to send it whole. The time limit is the same one.
            if error.code != "NOSCRIPT" or link.lost:
                raise
        return await link.send((b"EVAL", script.source, count, *keys, *args), at)

    async def _call_without(self, parts: tuple[Part, ...]) -> Any:
        at = monotonic()
        link = await self._connected()
        return await link.send(parts, at)

    async def _connected(self) -> Link:
        """A link to use though there was none a moment ago. Raises StoreError, mostly at once."""
        if self._attempt is not None and self._breaker.closed:
            waiting = asyncio.shield(self._attempt)
            await asyncio.wait({waiting}, timeout=self.timeout)
        if self._link is None or not self._breaker.closed:
            self._series.unavailable += 1
            raise failure("the store is unavailable", sent=False)
        return self._link

    # The connection.

    async def start(self) -> None:
        if self._keeping is not None or self._closed:
            return
        self._series.up = False
        loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = loop.create_future()
        self._keeping = loop.create_task(self._keep(first))
        await asyncio.wait({first}, timeout=CONNECT_S)

    async def _keep(self, first: asyncio.Future[None]) -> None:
        failures = 0
        while True:
            began = monotonic()
            try:
                lost = await self._connect()
            except (OSError, StoreError, TimeoutError) as error:
                self._note(_reason(error))
            else:
                if not first.done():
                    first.set_result(None)
                why = await lost
                self._note(why)
                if monotonic() - began > _STEADY_S:
                    failures = 0
                    continue
            if not first.done():
                first.set_result(None)
            await asyncio.sleep(backoff(failures, self._random.random()))
            failures += 1

    async def _connect(self) -> asyncio.Future[str]:
        """Connect and greet. The future that is returned tells when and why it ended."""
        loop = asyncio.get_running_loop()
        self._gone = gone = loop.create_future()
        self._attempt = attempt = loop.create_future()
        limit = max(CONNECT_S, 4 * self.timeout)
        link: Link | None = None

        def make() -> Link:
            nonlocal link
            link = Link(limit, self._series, self._lost, self._failed)
            return link

        try:
            async with asyncio.timeout(limit):
                self._place = await self._locate()
                made = await connect(self._place, self._tls, make)
                self._greeting = await greet(made.send, self._url, "lockgate")
                await self._prepare(made)
            self._up(made)
        except BaseException:
            if link is not None:
                link.close("the connection to the store was not made")
            raise
        finally:
            self._attempt = None
            attempt.set_result(None)
        return gone

    async def _prepare(self, link: Link) -> None:
        """What a new connection needs before it is used."""

    def _up(self, link: Link) -> None:
        link.timeout = self.timeout
        self._link = link
        self._breaker.recover()
        self._series.connects += 1
        self._series.up = True
        self._since = self._clock.wall()
        facts = {"address": str(self._place), "server": self._greeting.server}
        logger.info("the store is connected", extra=facts)

    def _lost(self, link: Link, why: str) -> None:
        if self._link is link:
            self._link = None
            self._series.up = False
            self._since = self._clock.wall()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(why)

    def _note(self, why: str) -> None:
        if why != self._error or self._clock.wall() - self._error_at > 60.0:
            facts = {"address": str(self._place) if self._place.port or self._place.path else ""}
            logger.error("%s", why, extra=facts)
        self._error, self._error_at = why, self._clock.wall()

    # Failing.

    def _failed(self, error: StoreError) -> None:
        """A command timed out, or the store said that it can't work."""
        breaker, link = self._breaker, self._link
        if link is None:
            return
        if isinstance(error, ReplyError) and error.code in _MOVED:
            asyncio.get_running_loop().call_soon(link.close, f"the store refuses ({error.code})")
        if breaker.judge(link.failures):
            self._series.up = False
            self._since = self._clock.wall()
            self._note(f"the store is left alone after failures in a row: {_reason(error)}")
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """Ask for something that needs a store which can write, until it answers."""
        key = self.key_prefix + b":probe"
        while not self._breaker.closed:
            await asyncio.sleep(self._breaker.next_pause(self._random.random()))
            link = self._link
            if link is None:
                # A new connection is being made, and closes the breaker when it is there.
                continue
            try:
                await link.send((b"SET", key, b"1", b"PX", 1000), monotonic())
            except StoreError as error:
                self._note(_reason(error))
            else:
                if self._breaker.recover():
                    self._series.up = True
                    self._since = self._clock.wall()
                    logger.info("the store answers again", extra={"address": str(self._place)})

    # The rest of the interface.

    def channel(self) -> Channel:
        raise NotImplementedError

    def require_durability(self) -> None:
        self._durable = True

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
            kind=str(self._url.kind),
            address=str(self._url),
            last_error=self._error,
            error_at=self._error_at,
            server=self._greeting.server,
            role=self._greeting.role,
            persistence=self._persistence,
            in_flight=len(self._link.waiting) if self._link is not None else 0,
        )

    async def aclose(self) -> None:
        self._closed = True
        tasks = [task for task in (self._keeping, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._link is not None:
            self._link.close("the store was closed")


def _reason(error: BaseException) -> str:
    if isinstance(error, ReplyError):
        return f"the store refuses: {error.reply}"
    if isinstance(error, StoreError):
        return error.detail
    if isinstance(error, TimeoutError):
        return "the store did not accept a connection in time"
    return f"the store can't be reached: {getattr(error, 'strerror', None) or error}"
