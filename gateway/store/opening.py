"""From a configuration to a `Store`: which way to the server, and who runs it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.config.model_store import StoreConfig
from gateway.config.store_url import StoreKind, StoreUrl
from gateway.errors import ConfigError, StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import Store
from gateway.store.engine import Engine, find_binary
from gateway.store.link import Link
from gateway.store.reach import Place, Tls
from gateway.store.shared import SharedStore, StoreOptions, reason

SERVER_TIMEOUT_S: Final = 2.0
"""What one call to a server of streams may take, in seconds."""


class Engines(Protocol):
    """Who runs embedded engines: this process, or the one that supervises it."""

    async def acquire(self, data: Path) -> str:
        """The socket of the engine on that directory, started if need be. Raises ConfigError."""
        ...

    async def release(self, data: Path) -> None:
        """It is not needed here any more."""
        ...


class LocalEngines:
    """Engines that this process runs: one for each data directory, as long as it is needed."""

    def __init__(self) -> None:
        self._engines: dict[Path, tuple[Engine, int]] = {}
        self._lock = asyncio.Lock()

    async def acquire(self, data: Path) -> str:
        async with self._lock:
            engine, users = self._engines.get(data, (None, 0))
            if engine is None:
                engine = Engine(data, find_binary())
                await engine.start()
            self._engines[data] = (engine, users + 1)
            return engine.socket

    async def release(self, data: Path) -> None:
        async with self._lock:
            engine, users = self._engines.get(data, (None, 0))
            if engine is None:
                return
            if users > 1:
                self._engines[data] = (engine, users - 1)
                return
            del self._engines[data]
            await engine.aclose()

    async def aclose(self) -> None:
        """Stop them all."""
        async with self._lock:
            engines, self._engines = self._engines, {}
            for engine, _ in engines.values():
                await engine.aclose()


class EmbeddedStore(SharedStore):
    """A `SharedStore` on the embedded engine."""

    def __init__(self, data: Path, engines: Engines, options: StoreOptions) -> None:
        self._engines = engines
        self._data = data
        self._socket = ""
        super().__init__(self._find, options)

    async def _find(self) -> Place:
        return Place(path=self._socket)

    async def start(self) -> None:
        if not self._socket:
            self._socket = await self._engines.acquire(self._data)
        await super().start()

    async def _prepare(self, link: Link) -> None:
        await super()._prepare(link)
        if self._durable:
            # Before anything is written over this connection: the engine may have been restarted.
            await link.send(("CONFIG", "SET", "appendfsync", "always"), monotonic())

    async def _make_durable(self, link: Link) -> None:
        try:
            await self._prepare(link)
        except StoreError as error:
            link.close(reason(error))  # to begin again, with a connection that is prepared
        await super()._make_durable(link)

    async def aclose(self) -> None:
        await super().aclose()
        if self._socket:
            self._socket = ""
            await self._engines.release(self._data)


def open_store(
    config: StoreConfig,
    base_dir: Path,
    *,
    clock: Clock,
    rng: random.Random,
    series: StoreSeries,
    engines: Engines | None = None,
    errors: list[ConfigError] | None = None,
) -> Store:
    """A store that has yet to be started. Raises ConfigError if it never could be.

    A relative `data` starts at `base_dir`. `engines` runs the embedded engine. With `errors`
    nothing is raised: the error goes there, once, and whoever asked gets a store that is never up,
    because it is the store's section that is wrong and not theirs.
    """
    try:
        return _open(config, base_dir, clock, rng, series, engines)
    except ConfigError as error:
        if errors is None:
            raise
        errors.append(error)
        nowhere = config.model_copy(update={"url": StoreUrl(StoreKind.SINGLE, path="/dev/null")})
        return _open(nowhere, base_dir, clock, rng, series, engines)


def open_server(url: StoreUrl, name: str, clock: Clock, rng: random.Random) -> Store:
    """A server that others run, which holds streams: called `name` in the log, and yet to be
    started. Raises ConfigError, whose path is that of the URL, if it never could be.
    """
    options = StoreOptions(
        url=url,
        timeout=SERVER_TIMEOUT_S,
        key_prefix=b"lockgate",
        series=StoreSeries(),
        clock=clock,
        rng=rng,
        tls=Tls(url) if url.tls else None,
        name=name,
    )
    return _reached(url, options)


def _open(
    config: StoreConfig,
    base_dir: Path,
    clock: Clock,
    rng: random.Random,
    series: StoreSeries,
    engines: Engines | None,
) -> Store:
    url = config.url
    options = StoreOptions(
        url=url,
        timeout=config.timeout,
        key_prefix=config.key_prefix.encode("ascii"),
        series=series,
        clock=clock,
        rng=rng,
        tls=Tls(url) if url.tls else None,
    )
    if url.kind is StoreKind.EMBEDDED:
        find_binary()
        return EmbeddedStore(base_dir / config.data, engines or LocalEngines(), options)
    return _reached(url, options)


def _reached(url: StoreUrl, options: StoreOptions) -> Store:
    """A server that is there already, whichever way leads to it."""
    if url.kind is StoreKind.SENTINEL:
        # Loaded here: redis-py takes 8 MB, and only these two ways to a store need it.
        from gateway.store.sentinel import SentinelStore  # noqa: PLC0415

        return SentinelStore(options)
    if url.kind is StoreKind.CLUSTER:
        from gateway.store.cluster import ClusterStore  # noqa: PLC0415

        return ClusterStore(options)
    place = Place(path=url.path) if url.path else Place(*url.hosts[0])

    async def locate() -> Place:
        return place

    return SharedStore(locate, options)
