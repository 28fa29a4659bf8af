"""What the cache says about an answer: Cache-Status (RFC 9211), and its word in metrics and log."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

NAME: Final = b"lockgate"

Field = tuple[bytes, bytes]


class Forwarded(StrEnum):
    """Why a request went to the upstream (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    METHOD = "method"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    REQUEST = "request"
    STALE = "stale"


class Result(StrEnum):
    """How the cache answered: the label of the metric, and the log's `cache`."""

    HIT = "hit"
    STALE = "stale"
    STALE_ERROR = "stale_error"
    REVALIDATED = "revalidated"
    COLLAPSED = "collapsed"
    MISS = "miss"
    BYPASS = "bypass"


@lru_cache(maxsize=256)
def forwarded(
    why: Forwarded, *, stored: bool = False, collapsed: bool = False, status: int = 0
) -> Field:
    """The field of an answer that the upstream had a part in.

    `status` is what it answered, if the client gets something else.
    """
    member = NAME + b"; fwd=" + why.encode("ascii")
    if status:
        member += b"; fwd-status=%d" % status
    if stored:
        member += b"; stored"
    if collapsed:
        member += b"; collapsed"
    return b"cache-status", member


def hit(ttl: int) -> Field:
    """The field of an answer from the cache, fresh for `ttl` more seconds; negative if stale."""
    return b"cache-status", b"%b; hit; ttl=%d" % (NAME, ttl)
