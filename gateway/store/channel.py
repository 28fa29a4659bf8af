"""A connection of its own for commands that wait in the store.

If a caller gives up or its time is over, the connection is closed: the server then stops waiting,
and what it had to give is not given to somebody who is gone.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from gateway.config.store_url import StoreUrl
from gateway.errors import StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import Channel, Part, failure
from gateway.store.link import Link
from gateway.store.reach import CONNECT_S, Locate, Tls, connect, greet


class LinkChannel(Channel):
    """A channel to one server. Its waiting is not counted as calls to the store."""

    def __init__(self, locate: Locate, tls: Tls | None, url: StoreUrl) -> None:
        self._locate = locate
        self._tls = tls
        self._url = url
        self._link: Link | None = None
        self._busy = False
        self._closed = False

    async def call(self, *parts: Part, timeout: float) -> Any:
        if self._closed or self._busy:
            why = "the channel is closed" if self._closed else "the channel is in use"
            raise failure(why, sent=False)
        self._busy = True
        try:
            if self._link is None or self._link.lost:
                self._link = await self._connect()
            self._link.limit(timeout)
            return await self._link.send(parts, monotonic())
        except (StoreError, asyncio.CancelledError):
            # After an error reply the connection is as good as before.
            if self._link is not None and self._link.waiting:
                self._link.close("given up")
            raise
        finally:
            self._busy = False

    async def _connect(self) -> Link:
        made: list[Link] = []

        def make() -> Link:
            made.append(Link(CONNECT_S, StoreSeries(), lambda _link, _why: None, lambda _: None))
            return made[0]

        try:
            async with asyncio.timeout(CONNECT_S):
                link = await connect(await self._locate(), self._tls, make)
                await greet(link.send, self._url, "lockgate-channel")
        except BaseException as error:
            for link in made:
                link.close("the connection to the store was not made")
            if isinstance(error, OSError | TimeoutError):
                raise failure("the store is unavailable", sent=False) from error
            raise
        return link

    async def aclose(self) -> None:
        self._closed = True
        if self._link is not None:
            self._link.close("the channel was closed")
