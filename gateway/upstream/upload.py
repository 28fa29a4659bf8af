"""A request body on its way to the upstream, piece by piece, while the answer is awaited.

The one rule here: the body is ended properly only if the client ended it properly. A body that
breaks off, is too short or too long has its connection cut, so that the upstream can't take it for
whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from gateway.errors import CLIENT_DISCONNECTED, INTERNAL_ERROR, ClientError, GatewayError
from gateway.http1.chunked import LAST_CHUNK, encode_chunk

if TYPE_CHECKING:
    from gateway.upstream.connection import UpstreamConnection

logger = logging.getLogger("gateway")

# Chunks above this size are written in three parts instead of being copied into one.
_COPY: Final = 16 * 1024


class Upload:
    """Sends `stream` on `connection` in a task of its own.

    `length` is the body's declared size in bytes, or None for the chunked coding. `sent` tells
    whether the body was sent whole.
    """

    __slots__ = ("_connection", "_left", "_stopped", "_stream", "_task", "sent")

    def __init__(
        self, connection: UpstreamConnection, stream: AsyncIterator[bytes], length: int | None
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._left = length
        self.sent = length == 0
        self._stopped = False
        self._task: asyncio.Task[None] = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """Send no more of it."""
        # Both: a source that never waits would never notice that its task was cancelled.
        self._stopped = True
        self._task.cancel()

    async def _run(self) -> None:
        try:
            if self._left is None:
                await self._send_chunked()
            else:
                await self._send_plain()
        except GatewayError as error:
            self._connection.fail_upload(self, error)
        except Exception:
            logger.exception("the request body's source failed")
            self._connection.fail_upload(self, GatewayError(INTERNAL_ERROR))

    async def _send_chunked(self) -> None:
        send = self._connection.send
        async for piece in self._stream:
            if self._stopped:
                return
            if not piece:
                continue
            if len(piece) <= _COPY:
                await send(encode_chunk(piece))
            else:
                await send(b"%x\r\n" % len(piece), piece, b"\r\n")
        if not self._stopped:
            self.sent = True
            await send(LAST_CHUNK)

    async def _send_plain(self) -> None:
        left = self._left or 0
        async for piece in self._stream:
            if self._stopped:
                return
            left -= len(piece)
            if left < 0:
                raise GatewayError(INTERNAL_ERROR, "the request body is longer than declared")
            self.sent = left == 0
            if piece:
                await self._connection.send(piece)
        if left:
            raise ClientError(CLIENT_DISCONNECTED, "the request body broke off")
