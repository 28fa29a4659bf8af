"""Who belongs to a share or a group of the callers, without remembering anybody.

A share is a stable hash: everybody has one point between 0 and 1 for each name, and belongs to a
share if the point lies below it. So a share that grows only takes people in, one that shrinks only
lets people go, and all processes agree without asking each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Final, Protocol

from gateway.message import Exchange, Headers

_POINTS: Final = float(2**53)

KeyOf = Callable[[Exchange], bytes]


def point(name: str, key: bytes) -> float:
    """The place of `key` in [0, 1), evenly spread, and another one for each `name`."""
    # 53 bits are what a float holds exactly, so that the result is never rounded up to 1.
    digest = blake2b(key, digest_size=8, key=blake2b(name.encode(), digest_size=32).digest())
    return (int.from_bytes(digest.digest(), "big") >> 11) / _POINTS


def consumer_or_ip(exchange: Exchange) -> bytes:
    """The caller's name, or its address if it has not proved one; empty if it has neither."""
    principal = exchange.principal
    if principal is not None:
        return b"consumer\0" + principal.consumer.encode("utf-8", "surrogateescape")
    return ip(exchange)


def ip(exchange: Exchange) -> bytes:
    """The caller's address; empty on a unix socket."""
    client = exchange.request.client
    return b"ip\0" + client.encode("utf-8", "surrogateescape") if client else b""


def cookie(headers: Headers, name: bytes) -> bytes:
    """The value of a cookie, the first of that name; empty if there is none."""
    if b"cookie" not in headers.index:
        return b""
    for line in headers.get_all(b"cookie"):
        for pair in line.split(b";"):
            key, _, value = pair.partition(b"=")
            if key.strip() == name:
                return value.strip()
    return b""


class Group:
    """Callers by what they send or who they are: every field in `headers`, one of `consumers`.

    What is not given asks nothing; a group of which nothing is given takes nobody.
    """

    __slots__ = ("_consumers", "_headers")

    def __init__(self, headers: Mapping[str, str], consumers: Collection[str] | None) -> None:
        self._headers = tuple(
            (name.lower().encode("ascii"), value.encode("utf-8"))
            for name, value in headers.items()
        )  # fmt: skip
        self._consumers = None if consumers is None else frozenset(consumers)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given."""
        return not self._headers and self._consumers is None

    def takes(self, exchange: Exchange) -> bool:
        """Whether the caller belongs to it."""
        if self._consumers is not None:
            principal = exchange.principal
            if principal is None or principal.consumer not in self._consumers:
                return False
        elif not self._headers:
            return False
        index = exchange.request.headers.index
        return all(index.get(name) == value for name, value in self._headers)


class Tagged(Protocol):
    """What is known of a consumer."""

    @property
    def tags(self) -> list[str]:
        """Words to tell groups of callers apart."""
        ...


def members(
    consumers: Iterable[str], tags: Collection[str], known: Mapping[str, Tagged]
) -> frozenset[str] | None:
    """The names in `consumers` and those in `known` with one of `tags`; None if none is given."""
    names = frozenset(consumers)
    if not names and not tags:
        return None
    if not tags:
        return names
    return names | {name for name, each in known.items() if not set(tags).isdisjoint(each.tags)}
