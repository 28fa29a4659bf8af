"""When a request may be sent once more because the connection it was sent on turned out dead.

A pure rule. What is retried for other reasons, and how often, is a policy's business.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import UpstreamError
from gateway.message import Request

# RFC 9110 section 9.2.2: doing these twice is doing them once.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class StaleConnection(UpstreamError):
    """A reused connection was closed before the first byte of an answer.

    It may have idled for too long for the upstream, which then never saw the request.
    """


def is_repeatable(error: UpstreamError, request: Request, method: str) -> bool:
    """Whether a fresh connection may be tried: nothing left, or doing it twice does no harm."""
    if not isinstance(error, StaleConnection):
        return False
    return not error.sent or (method in IDEMPOTENT and request.body is not None)
