"""body: how large a request body may be.

A stated length is judged at once. Without one (chunked) the body is counted while it streams, and
the exchange fails as soon as it is too long; the upstream then sees a request that breaks off,
never one that ends early and looks whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from pydantic import Field

from gateway.config.base import RefusingPolicyConfig
from gateway.config.types import Size
from gateway.errors import BODY_TOO_LARGE, ClientError, Rejection
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard


class BodyConfig(RefusingPolicyConfig):
    """Limits on the request body."""

    max: Size | None = Field(
        default=None,
        description="The largest body that passes; server.limits.body if left out.",
    )


class BodyPolicy(Guard):
    """Refuses bodies that are too large with 413. `limit` is in bytes, None for no bound."""

    name: ClassVar[str] = "body"
    Config: ClassVar[type[BodyConfig]] = BodyConfig
    default: ClassVar[Any] = {}

    def __init__(self, limit: int | None, *, report: bool = False) -> None:
        self._limit = limit
        self._report = report
        self._detail = f"the body may have {limit} bytes"

    @classmethod
    def build(cls, config: BodyConfig, context: BuildContext) -> BodyPolicy:
        """Take the limit, or the server's."""
        limit = context.server.limits.body if config.max is None else config.max
        return cls(limit, report=config.mode == "report")

    async def check(self, exchange: Exchange) -> Rejection | None:
        """Refuse a length that is too large; have a body without one counted as it comes."""
        request = exchange.request
        body = request.body
        limit = self._limit
        if body is not None:
            if limit is None or len(body) <= limit:
                return None
            return Rejection(BODY_TOO_LARGE, self._detail)
        if limit is None:
            return None
        stated = request.headers.get(b"content-length")
        if stated is not None and stated.isdigit():
            # The server ends the body where it was said to end, so there is nothing to count.
            return Rejection(BODY_TOO_LARGE, self._detail) if int(stated) > limit else None
        # What is reported must not be enforced, and the report would come too late to be one.
        if request.stream is not None and not self._report:
            request.stream = _Counted(request.stream, limit, self._detail)
        return None


class _Counted:
    """A body that fails once it is longer than `limit` bytes."""

    __slots__ = ("_detail", "_left", "_stream")

    def __init__(self, stream: AsyncIterator[bytes], limit: int, detail: str) -> None:
        self._stream = stream
        self._left = limit
        self._detail = detail

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._stream.__anext__()
        self._left -= len(piece)
        if self._left < 0:
            raise ClientError(BODY_TOO_LARGE, self._detail)
        return piece
