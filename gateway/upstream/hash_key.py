"""What `balance: hash(...)` hashes: a part of the request, as bytes; empty if it is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.message import Exchange

Key = Callable[[Exchange], bytes]


def make_key(balance: str) -> Key:
    """The key of `hash(ip)`, `hash(header:X)` and so on; the configuration has checked its form."""
    kind, _, name = balance.removeprefix("hash(").removesuffix(")").partition(":")
    if name:
        return _NAMED[kind](name)
    return _PLAIN[kind]


def _ip(exchange: Exchange) -> bytes:
    return exchange.request.client.encode()


def _path(exchange: Exchange) -> bytes:
    return exchange.request.path.encode("utf-8", "surrogateescape")


def _consumer(exchange: Exchange) -> bytes:
    principal = exchange.principal
    return b"" if principal is None else principal.consumer.encode()


def _header(name: str) -> Key:
    field = name.lower().encode("ascii")

    def key(exchange: Exchange) -> bytes:
        return exchange.request.headers.get(field) or b""

    return key


def _query(name: str) -> Key:
    wanted = name.encode()

    def key(exchange: Exchange) -> bytes:
        # Decoded, so that two ways to write a value are one key.
        for part in exchange.request.query.split(b"&"):
            given, _, value = part.partition(b"=")
            if given == wanted or unquote_to_bytes(given) == wanted:
                return unquote_to_bytes(value.replace(b"+", b" "))
        return b""

    return key


def _cookie(name: str) -> Key:
    wanted = name.encode()

    def key(exchange: Exchange) -> bytes:
        for field in exchange.request.headers.get_all(b"cookie"):
            for pair in field.split(b";"):
                given, _, value = pair.partition(b"=")
                if given.strip() == wanted:
                    return value.strip(b' \t"')
        return b""

    return key


_PLAIN: Final[dict[str, Key]] = {"ip": _ip, "path": _path, "consumer": _consumer}
_NAMED: Final[dict[str, Callable[[str], Key]]] = {
    "header": _header,
    "query": _query,
    "cookie": _cookie,
}
