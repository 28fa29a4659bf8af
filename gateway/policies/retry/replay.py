"""A request body that streams and can be sent again, as long as little enough of it was read."""

from __future__ import annotations

from collections.abc import AsyncIterator


class ReplayBody:
    """Keeps the pieces of `source` as they are read, up to `limit` bytes in all.

    Each `async for` over it begins at the first byte. The one before must have been given up: there
    is one source. `can_restart` is False once bytes went through that were not kept.
    """

    __slots__ = ("_kept", "_limit", "_size", "_source", "can_restart")

    def __init__(self, source: AsyncIterator[bytes], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._kept: list[bytes] = []
        self._size = 0
        self.can_restart = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Replay(self._kept, self)

    async def __anext__(self) -> bytes:
        """The next piece that nobody has read yet."""
        piece = await self._source.__anext__()
        self._size += len(piece)
        if self._size > self._limit:
            self.forget()
        else:
            self._kept.append(piece)
        return piece

    def forget(self) -> None:
        """Keep nothing any more: it will not be sent again."""
        self._limit = 0
        self._kept = []
        if self._size:
            self.can_restart = False


class _Replay:
    """The kept pieces, and then what comes from the source."""

    __slots__ = ("_at", "_body", "_pieces")

    def __init__(self, pieces: list[bytes], body: ReplayBody) -> None:
        self._pieces = list(pieces)
        self._body = body
        self._at = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._at < len(self._pieces):
            self._at += 1
            return self._pieces[self._at - 1]
        return await self._body.__anext__()
