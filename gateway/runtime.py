"""The composition root: a configuration in, a snapshot that serves requests out; swap, drain.

State outlives configuration. What must survive a reload (upstream pools, logs, counters) lives in
a registry under a key that says what it is about, never in a compiled chain. A reload builds a
whole new snapshot beside the old one, swaps one reference, and requests in flight finish on the old
one; on any error the old one keeps serving.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.chains import Chains
from gateway.clock import Clock, SystemClock
from gateway.config.issues import in_route, located
from gateway.errors import ConfigError
from gateway.flags.board import open_board
from gateway.forwarded import TrustedProxies
from gateway.loading import Loaded, load_configuration, open_library
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import Metrics
from gateway.pauses import let_go
from gateway.policies.base import BuildContext, ForwardTo, Policy, has_lifecycle
from gateway.routing.table import Entry, RouteErrors, RouteTable
from gateway.snapshot import CompiledRoute, Snapshot
from gateway.store.base import Store
from gateway.store.opening import Engines, LocalEngines, open_store
from gateway.upstream.client import Upstream

if TYPE_CHECKING:
    from gateway.contracts.library import Library

__all__ = ["CompiledRoute", "Loaded", "Runtime", "Snapshot", "load_configuration"]

logger = logging.getLogger("gateway")

# Routes that are built between two turns of the event loop: about two milliseconds of work.
_SLICE: Final = 20


class Runtime:
    """One gateway in one process. Built, passed and closed explicitly; two can live side by side.

    `instance` tells this gateway apart in Via (RFC 9110 section 7.6.3), so that a request that
    comes back is recognised while another Lockgate in front of it is not.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        version: str = "",
        instance: str = "local",
        engines: Engines | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        # Ids, sampling and tie-breaking; nothing that must be secret.
        self.random = rng or random.Random()  # noqa: S311
        self.metrics = Metrics(self.clock, version)
        self.pseudonym = f"lockgate-{instance}"
        # Who runs the embedded store; with several workers, the process that supervises them.
        self.engines: Engines = engines or LocalEngines()
        self.ready = False
        self.on_commit: list[Callable[[Snapshot], None]] = []
        self._shared: dict[tuple[object, ...], Any] = {}
        self._live: list[Snapshot] = []
        # The keys that a snapshot under construction has asked for already.
        self._building: list[set[tuple[object, ...]]] = []
        self._current: Snapshot | None = None
        self._generation = 0
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def snapshot(self) -> Snapshot:
        """What serves requests now. Raises RuntimeError before `start`."""
        if self._current is None:
            raise RuntimeError("the gateway has not been started")
        return self._current

    @property
    def generation(self) -> int:
        """The number of the snapshot that serves now; 0 before `start`."""
        return self._current.generation if self._current is not None else 0

    async def start(self, loaded: Loaded) -> None:
        """Build and start the first snapshot. Raises ConfigErrors."""
        self.commit(await self.prepare(loaded))
        self.ready = True

    async def prepare(
        self, loaded: Loaded, generation: int | None = None, *, start: bool = True
    ) -> Snapshot:
        """Build and start a whole new snapshot beside the one that serves.

        `generation` is the next number, unless several processes must agree on one. Without `start`
        it can be looked at and no more. Raises ConfigErrors, and then nothing of the new one is
        left and the old one is untouched.
        """
        builder = _Builder(self, loaded, generation or self._generation + 1)
        self._building.append(builder.keys)
        try:
            snapshot = await builder.build()
            self._live.append(snapshot)
        except BaseException as error:
            self._building.remove(builder.keys)
            await self._drop(builder.keys, [])
            if isinstance(error, ConfigError):
                raise located([error], loaded.configuration) from error
            raise
        self._building.remove(builder.keys)
        if not start:
            return snapshot
        try:
            await self._start_shared(snapshot.keys)
            for policy in snapshot.policies:
                await policy.start()
        except BaseException as error:
            await self.abandon(snapshot)
            if isinstance(error, ConfigError):
                raise located([error], loaded.configuration) from error
            raise
        return snapshot

    async def _start_shared(self, keys: set[tuple[object, ...]]) -> None:
        # In the order in which they were first asked for: what an object needs was there before it.
        for key, each in list(self._shared.items()):
            start = getattr(each, "start", None)
            if key in keys and start is not None:
                await start()

    def commit(self, snapshot: Snapshot) -> None:
        """Swap one reference; the old snapshot drains in the background."""
        old, self._current = self._current, snapshot
        self._generation = snapshot.generation
        gateway = snapshot.configuration.gateway
        self.metrics.config_loaded(snapshot.generation)
        self.metrics.retain({route.name for route in snapshot.routes}, set(gateway.upstreams))
        for listener in self.on_commit:
            listener(snapshot)
        if old is not None:
            task = asyncio.get_running_loop().create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def abandon(self, snapshot: Snapshot) -> None:
        """Undo `prepare`: close what only this snapshot uses."""
        self._live.remove(snapshot)
        await self._drop(snapshot.keys, snapshot.policies)

    async def _retire(self, snapshot: Snapshot) -> None:
        snapshot.retired = True
        if snapshot.active:
            await snapshot.drained.wait()
        await self.abandon(snapshot)
        parts = [*snapshot.routes, *snapshot.table.parts(), *snapshot.configuration.parts()]
        del snapshot
        await let_go(parts)

    async def _drop(self, keys: set[tuple[object, ...]], policies: list[Policy]) -> None:
        for policy in policies:
            await _close_quietly(policy.aclose)
        used = set[tuple[object, ...]]().union(*(live.keys for live in self._live), *self._building)
        # The newest first, so that what an object needs is still there when it is closed.
        for key in [key for key in reversed(self._shared) if key in keys and key not in used]:
            close = getattr(self._shared.pop(key, None), "aclose", None)
            if close is not None:
                await _close_quietly(close)

    async def halt(self, seconds: float) -> None:
        """Begin nothing more that no client asks for; what goes on has so many seconds left."""
        halts = [getattr(each, "halt", None) for each in self._shared.values()]
        waiting = (_close_quietly(partial(halt, seconds)) for halt in halts if halt is not None)
        await asyncio.gather(*waiting)

    async def aclose(self) -> None:
        """Close everything at once; what is still in flight is cut. Safe to call twice."""
        self.ready = False
        for snapshot in self._live:
            snapshot.drained.set()  # nobody waits for what is still in flight
        # What a retired snapshot began may go on for minutes, but not now.
        await self.halt(0.0)
        await asyncio.gather(*self._retiring)
        self._current = None
        while self._live:
            await self.abandon(self._live[-1])

    def shared(
        self, keys: set[tuple[object, ...]], key: tuple[object, ...], factory: Callable[[], Any]
    ) -> Any:
        """The long-lived object under `key`, made by `factory` if there is none yet."""
        keys.add(key)
        if key not in self._shared:
            self._shared[key] = factory()
        return self._shared[key]

    def long_lived(self, key: tuple[object, ...]) -> Any:
        """The long-lived object under `key`, None if nothing asks for it."""
        return self._shared.get(key)

    def known(self, kind: str) -> list[tuple[tuple[object, ...], Any]]:
        """The long-lived objects whose key begins with `kind`, with their keys."""
        return [(key, each) for key, each in self._shared.items() if key[0] == kind]


async def _close_quietly(close: Callable[[], Awaitable[None]]) -> None:
    # One failing close must not keep the others open.
    try:
        await close()
    except Exception:
        logger.exception("closing failed")


class _Builder:
    """Builds one snapshot. Pure but for the shared objects it makes, which `keys` names."""

    def __init__(self, runtime: Runtime, loaded: Loaded, generation: int) -> None:
        self.keys: set[tuple[object, ...]] = set()
        self._runtime = runtime
        self._loaded = loaded
        self._configuration = loaded.configuration
        self._gateway = loaded.configuration.gateway
        self._generation = generation
        self._upstreams: dict[str, Upstream] = {}
        self._access_log: AccessLog | None = None
        self._library: Library | None = None
        self._errors: list[ConfigError] = []

    async def build(self) -> Snapshot:
        gateway = self._gateway
        known = self._runtime._shared
        self._library = await open_library(self._loaded, known, self._shared)
        self._errors += self._library.errors if self._library is not None else []
        self._access_log = self._open_access_log()
        self._upstreams = {name: self._upstream(name) for name in gateway.upstreams}
        runtime = self._runtime
        if gateway.flags:
            open_board(gateway, self._shared, self._store, runtime.metrics)
        chains = Chains(self._loaded.catalog, self._upstreams, runtime.metrics, self._context)
        routes = []
        for position, config in enumerate(gateway.routes):
            if config.enabled:
                try:
                    routes.append(chains.route(config))
                except ConfigError as error:
                    # What is wrong with a companion is wrong with what it stands beside.
                    at = config.beside if config.beside >= 0 else position
                    self._errors.append(in_route(error, at, config))
            # Ten thousand routes take a second: requests are served in between.
            if position % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        table = await asyncio.to_thread(self._table, routes)
        if self._errors:
            raise located(self._errors, self._configuration)
        cidrs = gateway.server.trusted_proxies
        return Snapshot(
            generation=self._generation,
            loaded=self._loaded,
            table=table,
            routes=routes,
            unmatched=chains.unmatched(gateway),
            trusted_proxies=TrustedProxies(cidrs) if cidrs else None,
            upstreams=self._upstreams,
            policies=[each for each in chains.policies if has_lifecycle(each)],
            keys=self.keys,
            access_log=self._access_log,
        )

    def _open_access_log(self) -> AccessLog | None:
        config, redact = self._gateway.telemetry.access_log, self._gateway.telemetry.redact
        if config is None:
            return None
        key = ("access_log", config.model_dump_json(), redact.model_dump_json())
        runtime = self._runtime
        log: AccessLog = self._shared(
            key, lambda: AccessLog(config, redact, runtime.clock, runtime.metrics)
        )
        return log

    def _upstream(self, name: str) -> Upstream:
        config = self._gateway.upstreams[name]
        runtime = self._runtime
        # Its targets' health outlives a change of the configuration: the newest of the name knows.
        named = [each for key, each in runtime.known("upstream") if key[1] == name]
        before: Upstream | None = named[-1] if named else None
        upstream: Upstream = self._shared(
            # What its policies say does not change the way to it.
            ("upstream", name, config.model_dump_json(exclude={"policies"})),
            lambda: Upstream(
                name,
                config,
                clock=runtime.clock,
                random=runtime.random,
                pseudonym=runtime.pseudonym,
                metrics=runtime.metrics,
                before=before,
            ),
        )
        return upstream

    def _store(self, patience: float = 0.0) -> Store:
        """The store, made when the first policy asks for it."""
        config, runtime = self._gateway.store, self._runtime
        if patience > config.timeout:
            config = config.model_copy(update={"timeout": patience})
        store: Store = self._shared(
            ("store", config),
            lambda: open_store(
                config,
                self._configuration.base_dir,
                clock=runtime.clock,
                rng=runtime.random,
                series=runtime.metrics.store,
                engines=runtime.engines,
                errors=self._errors,
            ),
        )
        return store

    def _shared(self, key: tuple[object, ...], factory: Callable[[], Any]) -> Any:
        return self._runtime.shared(self.keys, key, factory)

    def _context(self, route: str, upstream: str, forward_to: ForwardTo) -> BuildContext:
        return BuildContext(
            route=route,
            config=self._gateway,
            server=self._gateway.server,
            telemetry=self._gateway.telemetry,
            clock=self._runtime.clock,
            random=self._runtime.random,
            metrics=self._runtime.metrics,
            access_log=self._access_log,
            base_dir=self._configuration.base_dir,
            library=self._library,
            shared=self._shared,
            upstream=upstream,
            store=self._store,
            forward_to=forward_to,
        )

    def _table(self, routes: list[CompiledRoute]) -> RouteTable[CompiledRoute]:
        entries = [Entry(route.name, route.config.match, route) for route in routes]
        try:
            return RouteTable.build(entries)
        except RouteErrors as error:
            configs = self._gateway.routes
            positions = {each.name: at for at, each in enumerate(configs)}
            for issue in error.issues:
                at = positions[issue.route]
                path, message = f"routes[{at}].{issue.key}", issue.message
                if (beside := configs[at].beside) >= 0:
                    path = f"routes[{beside}]"
                    message = f"the route that comes with it, {issue.route}, {message}"
                self._errors.append(ConfigError(message, path))
            return RouteTable.build([])
