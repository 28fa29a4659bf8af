"""body: how large a request body may be.

A stated length is judged at once. Without one (chunked) the body is counted while it streams, and
the exchange fails as soon as it is too long; the upstream then sees a request that breaks off,
never one that ends early and looks whole.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import ClassVar, Final

from pydantic import Field

from gateway.config.base import RefusingPolicyConfig
from gateway.config.types import Size
from gateway.errors import BODY_TOO_LARGE, ClientError, Rejection
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard

Report = Callable[[str, str], None]
# More digits than any length that exists (RFC 9110 section 8.6 has no bound of its own).
_MAX_DIGITS: Final = 18


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

    def __init__(self, limit: int | None, report: Report | None = None) -> None:
        """Keep the limit; with `report`, a longer streamed body is told there, and passes."""
        self._limit = limit
        self._report = report
        self._detail = f"the body may have {limit} bytes"

    @classmethod
    def build(cls, config: BodyConfig, context: BuildContext) -> BodyPolicy:
        """Take the limit, or the server's."""
        limit = context.server.limits.body if config.max is None else config.max
        return cls(
            limit, context.metrics.route(context.route).report if config.mode == "report" else None
        )

    def check(self, exchange: Exchange) -> Rejection | None:
        """Refuse a length that is too large; have a body without one counted as it comes."""
        request = exchange.request
        body = request.body
        limit = self._limit
        if limit is None:
            return None
        if body is not None:
            return None if len(body) <= limit else Rejection(BODY_TOO_LARGE, self._detail)
        headers = request.headers
        stated = headers.get(b"content-length")
        if stated is None or b"transfer-encoding" in headers or not stated.isdigit():
            if request.stream is not None:
                request.stream = _Counted(request.stream, limit, partial(self._exceeded, exchange))
            return None
        # The server ends the body where it was said to end, so there is nothing to count.
        if len(stated) <= _MAX_DIGITS and int(stated) <= limit:
            return None
        return Rejection(BODY_TOO_LARGE, self._detail)

    def _exceeded(self, exchange: Exchange) -> None:
        if self._report is None:
            raise ClientError(BODY_TOO_LARGE, self._detail)
        # Guards are past by now, so the report that the chain makes for them is made here.
        code = BODY_TOO_LARGE.code
        self._report(self.name, code)
        exchange.reported = [*(exchange.reported or ()), f"{self.name}:{code}"]


class _Counted:
    """A body that calls `exceeded` once it is longer than `limit` bytes, before handing them on."""

    __slots__ = ("_exceeded", "_left", "_stream")

    def __init__(
        self, stream: AsyncIterator[bytes], limit: int, exceeded: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._left: float = limit
        self._exceeded = exceeded

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._stream.__anext__()
        self._left -= len(piece)
        if self._left < 0:
            self._left = math.inf
            self._exceeded()
        return piece
