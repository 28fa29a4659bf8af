"""A response body on its way through: a bounded queue between a connection and whoever reads it.

It knows nothing of HTTP: the connection puts payload in and says when it ended. Pieces are handed
on as they came off the wire; only small ones that wait together are joined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError
from gateway.message import Exchange

if TYPE_CHECKING:
    from gateway.upstream.connection import UpstreamConnection

# Bytes waiting for a slow reader at which the upstream is told to stop, and to go on.
HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
_JOIN: Final = 64 * 1024


class ResponseBody:
    """An async iterator over the pieces of one body.

    It raises UpstreamError if the body breaks off, after the pieces that did arrive. Whoever stops
    reading early calls `close`. Times spent waiting go to `exchange.upstream_seconds`.
    """

    __slots__ = ("_connection", "_ended", "_error", "_exchange", "_paused", "_pieces", "_size",
                 "_waiter")  # fmt: skip

    def __init__(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._paused = False
        self._error: GatewayError | None = None

    def __aiter__(self) -> ResponseBody:
        return self

    async def __anext__(self) -> bytes:
        pieces = self._pieces
        while not pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._wait()
        if len(pieces) > 1 and self._size <= _JOIN:
            piece = b"".join(pieces)
            pieces.clear()
            self._size = 0
        else:
            piece = pieces.popleft()
            self._size -= len(piece)
        if self._paused and self._size <= LOW_WATER:
            self._paused = False
            self._connection.resume(self)
        return piece

    async def _wait(self) -> None:
        now = self._connection.now
        began = now()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._exchange.upstream_seconds += now() - began

    def put(self, piece: bytes) -> bool:
        """Queue a piece; True if the upstream must now be told to stop."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            return True
        return False

    def end(self, error: GatewayError | None = None) -> None:
        """Nothing more will come: the body is whole, or `error` says why it is not."""
        self._ended = True
        self._paused = False
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def close(self) -> None:
        """Give up the rest of the body, and the connection with it. Safe to call at any time."""
        if not self._ended:
            self._ended = True
            self._connection.drop(self)
