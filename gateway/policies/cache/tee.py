"""A body on its way to a client, copied as it passes, without holding it up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from enum import Enum


class Lost(Enum):
    """Why there is no copy."""

    LONG = "longer than what is kept"
    BROKEN = "it broke off, or its reader left"


class Tee:
    """The pieces of `body`. `done` is called once: with the whole body if it came to its end.

    If the body turns out longer than `limit` bytes the copy is let go of, and the pieces go on.
    """

    __slots__ = ("_body", "_done", "_limit", "_pieces", "_size")

    def __init__(
        self, body: AsyncIterator[bytes], limit: int, done: Callable[[bytes | Lost], object]
    ) -> None:
        self._body = body
        self._limit = limit
        self._done: Callable[[bytes | Lost], object] | None = done
        self._pieces: list[bytes] = []
        self._size = 0

    def __aiter__(self) -> Tee:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._body)
        except StopAsyncIteration:
            self._finish(b"".join(self._pieces))
            raise
        except BaseException:
            self._finish(Lost.BROKEN)
            raise
        if self._done is not None:
            self._size += len(piece)
            if self._size > self._limit:
                self._finish(Lost.LONG)
            else:
                self._pieces.append(piece)
        return piece

    def close(self) -> None:
        """The reader is done; if that is before the end, there will be no copy."""
        self._finish(Lost.BROKEN)

    def _finish(self, body: bytes | Lost) -> None:
        done, self._done = self._done, None
        self._pieces = []
        if done is not None:
            done(body)
