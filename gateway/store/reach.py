"""Getting a connection to a single server: where it is, TLS, and the greeting.

What the server says of itself in the greeting is kept, for the status.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

from gateway.config.store_url import StoreUrl
from gateway.errors import ConfigError
from gateway.store.base import Part, ReplyError, failure

CONNECT_S: Final = 2.0
"""For a connection with its greeting, at least: the limit of a single call is too short for TLS
across some distance, and nobody waits for it."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: a host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


Locate = Callable[[], Awaitable[Place]]
"""Finds the server, anew for every connection. Raises StoreError or OSError."""


class Tls:
    """The TLS settings of a store, and a context made from files as they are now.

    Raises ConfigError when it is made, if the files can't be used.
    """

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self._stamp: tuple[object, ...] = ()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection; made anew if a file has changed."""
        if self._stamp != self._files():
            try:
                self._context = self._make()
            except ConfigError as error:
                raise failure(f"TLS files of the store: {error.message}", sent=False) from error
        return self._context

    def server_name(self, host: str) -> str:
        """The name to ask for and to verify."""
        return self._url.server_name or host

    def _files(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in (self._url.ca, self._url.cert, self._url.key):
            try:
                stamps.append(path and path.stat().st_mtime_ns)
            except OSError:
                stamps.append(-1)
        return tuple(stamps)

    def _make(self) -> ssl.SSLContext:
        url = self._url
        stamp = self._files()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        file: object = url.ca or "the system's authorities"
        try:
            if url.ca is not None:
                context.load_verify_locations(url.ca)
            else:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            file = url.cert
            if url.cert is not None:
                # The empty password keeps OpenSSL from asking for one at the terminal.
                context.load_cert_chain(url.cert, url.key, password=b"")
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or getattr(error, "reason", None) or str(error)
            raise ConfigError(f"{file} can't be used: {reason}", "store.url") from error
        self._stamp = stamp
        return context


async def connect(place: Place, tls: Tls | None, protocol: Callable[[], P]) -> P:
    """An open connection, before any greeting. Raises OSError, which covers TLS errors."""
    loop: Any = asyncio.get_running_loop()
    made: P
    if place.path:
        _, made = await loop.create_unix_connection(protocol, place.path)
        return made
    options: dict[str, Any] = {}
    if tls is not None:
        options = {"ssl": tls.context(), "server_hostname": tls.server_name(place.host)}
    _, made = await loop.create_connection(protocol, place.host, place.port, **options)
    return made


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who the server says it is: `valkey 9.1.2`, and `master` or `replica`."""

    server: str
    role: str


Send = Callable[[tuple[Part, ...], float], Awaitable[Any]]


async def greet(send: Send, url: StoreUrl, name: str) -> Greeting:
    """Log in and choose the protocol and the database. Raises StoreError if the server refuses.

    HELLO 2 says everything in one command; both Redis 6.2 and Valkey have it.
    """
    hello: list[Part] = ["HELLO", 2]
    if url.password is not None:
        hello += ["AUTH", url.user or "default", url.password.get_secret_value()]
    hello += ["SETNAME", name]
    facts = await send(tuple(hello), monotonic())
    if url.db:
        await send(("SELECT", url.db), monotonic())
    if not isinstance(facts, list):
        raise ReplyError("PROTOCOL no map in answer to HELLO")
    known = dict(zip(map(_text, facts[::2]), map(_text, facts[1::2]), strict=False))
    role = known.get("role", "").replace("slave", "replica")
    return Greeting(f"{known.get('server', '')} {known.get('version', '')}".strip(), role)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server keeps: `persistence` as in `StoreStatus`, `eviction` its maxmemory-policy."""

    persistence: str = "unknown"
    eviction: str = ""

    @property
    def evicts(self) -> bool:
        """Whether it may drop keys that have no expiry, or before it."""
        return self.eviction not in ("", "noeviction")


async def inspect(send: Send) -> Facts:
    """Ask what it keeps. What it may not be asked stays unknown. Raises StoreError."""
    info = _lines(await _ask(send, "INFO", "persistence"))
    settings: dict[str, str] = {}
    for name in ("appendfsync", "save", "maxmemory", "maxmemory-policy"):
        pair = await _ask(send, "CONFIG", "GET", name)
        if isinstance(pair, list) and len(pair) == 2:
            settings[name] = _text(pair[1])
    persistence = "unknown"
    if info.get("aof_enabled") == "1":
        persistence = settings.get("appendfsync", "everysec")
    elif "save" in settings:
        persistence = "snapshots" if settings["save"] else "none"
    bounded = settings.get("maxmemory", "0") != "0"
    return Facts(persistence, settings.get("maxmemory-policy", "") if bounded else "")


async def _ask(send: Send, *parts: Part) -> Any:
    try:
        return await send(parts, monotonic())
    except ReplyError:
        # Forbidden, or renamed away: managed stores do that with CONFIG.
        return None


def _lines(reply: object) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(reply).splitlines())
    return {name: value for name, colon, value in pairs if colon}
