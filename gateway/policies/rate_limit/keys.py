"""Whose bucket a request takes from: the part of a key that differs between callers.

Each kind has a letter of its own, so that a consumer called 10.0.0.1 is not the address. Whoever
has no such property shares one bucket with all others that have none; nobody passes unlimited.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Any, Final

from gateway.addresses import parse_address
from gateway.message import Exchange

ValueOf = Callable[[Exchange], bytes]

ABSENT: Final = b"-"
# Longer values are kept as a digest: a caller must not choose how large the store's keys are.
LONGEST: Final = 64
_DIGEST_BYTES: Final = 16
_NETWORK_BITS: Final = 64


def value_of(per: str) -> ValueOf:
    """The function that finds the value for `consumer`, `ip`, `route`, `header:X` or `claim:y`."""
    kind, _, name = per.partition(":")
    if kind == "header":
        return _by_header(name.lower().encode("ascii"))
    if kind == "claim":
        return _by_claim(name)
    return {"consumer": by_consumer, "ip": by_ip, "route": by_route}[kind]


def by_route(exchange: Exchange) -> bytes:
    """Everyone shares one bucket."""
    del exchange
    return b"r"


def by_ip(exchange: Exchange) -> bytes:
    """The client's address; of IPv6 the network (/64), which is what one caller is given."""
    client = exchange.request.client
    return _network(client) if ":" in client else b"i" + client.encode("ascii", "replace")


def by_consumer(exchange: Exchange) -> bytes:
    """The consumer, or the address of a caller that was not asked who it is."""
    principal = exchange.principal
    if principal is None:
        return by_ip(exchange)
    return b"c" + _bounded(principal.consumer.encode("utf-8", "surrogatepass"))


def _by_header(name: bytes) -> ValueOf:
    def by_header(exchange: Exchange) -> bytes:
        value = exchange.request.headers.get(name)
        return ABSENT if value is None else b"h" + _bounded(value)

    return by_header


def _by_claim(name: str) -> ValueOf:
    def by_claim(exchange: Exchange) -> bytes:
        principal = exchange.principal
        claim = None if principal is None else principal.claims.get(name)
        return ABSENT if claim is None else b"l" + _bounded(_claim_text(claim))

    return by_claim


def _claim_text(claim: Any) -> bytes:
    text = claim if isinstance(claim, str) else json.dumps(claim, sort_keys=True, default=str)
    return text.encode("utf-8", "surrogatepass")


def _bounded(value: bytes) -> bytes:
    if len(value) <= LONGEST:
        return value
    return b"#" + blake2b(value, digest_size=_DIGEST_BYTES).hexdigest().encode("ascii")


@lru_cache(maxsize=4096)
def _network(client: str) -> bytes:
    address = parse_address(client.partition("%")[0])
    if isinstance(address, IPv6Address):
        return b"i%x/64" % (int(address) >> _NETWORK_BITS)
    return b"i" + str(address or client[:LONGEST]).encode("ascii", "replace")
