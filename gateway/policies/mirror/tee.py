"""A body that streams by, of which a copy is kept as long as it is small."""

from __future__ import annotations

from collections.abc import AsyncIterator


class Tee:
    """Passes the pieces of `source` on as they come, and keeps them up to `limit` bytes in all."""

    __slots__ = ("_ended", "_left", "_pieces", "_source")

    def __init__(self, source: AsyncIterator[bytes], limit: int) -> None:
        self._source = source
        self._left = limit
        self._pieces: list[bytes] = []
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece."""
        try:
            piece = await self._source.__anext__()
        except StopAsyncIteration:
            self._ended = True
            raise
        self._left -= len(piece)
        if self._left >= 0:
            self._pieces.append(piece)
        else:
            self._pieces.clear()
        return piece

    def whole(self) -> bytes | None:
        """The body; None if it was too large, or has not ended."""
        return b"".join(self._pieces) if self._ended and self._left >= 0 else None
