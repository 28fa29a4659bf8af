"""Bodies read whole, within a bound, and put back: whoever comes next gets the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from gateway.errors import REQUEST_TIMEOUT, ClientError
from gateway.message import Request, Response

# Lockgate's own server ends a body that stands still; on other servers this does, a little later.
_SLACK_S: Final = 5.0


async def read_request(request: Request, limit: int, idle: float) -> bytes | None:
    """The request's body, which afterwards is `request.body`; None if it is larger than `limit`.

    Then it streams as before. Raises ClientError if the client leaves, or is silent for `idle`
    seconds.
    """
    stream = request.stream
    body = request.body
    if body is not None:
        return body if len(body) <= limit else None
    if stream is None:
        return b""
    pieces: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(idle + _SLACK_S) as patience:
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    request.stream = _Again(pieces, stream)
                    return None
                patience.reschedule(loop.time() + idle + _SLACK_S)
    except TimeoutError:
        raise ClientError(REQUEST_TIMEOUT, "the body stood still") from None
    request.body = whole = b"".join(pieces)
    request.stream = None
    return whole


async def read_response(response: Response, limit: int) -> bytes | None:
    """The answer's body, which afterwards is `response.body`; None if it is larger than `limit`.

    Then it streams as before. What the stream raises is raised after the answer was closed.
    """
    if response.body is not None:
        return response.body if len(response.body) <= limit else None
    stream = response.stream
    if stream is None:
        return b""
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                response.stream = _Again(pieces, stream)
                return None
    except BaseException:
        response.close()
        raise
    response.body = whole = b"".join(pieces)
    response.stream = None
    return whole


class _Again:
    """Pieces that were taken from a stream, and then the stream."""

    __slots__ = ("_pieces", "_stream")

    def __init__(self, pieces: list[bytes], stream: AsyncIterator[bytes]) -> None:
        self._pieces = pieces[::-1]
        self._stream = stream

    def __aiter__(self) -> _Again:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            return self._pieces.pop()
        return await self._stream.__anext__()
