"""The `cache` policy: finds stored answers, lets requests wait for one another, or fetches.

Innermost in admission: an answer is given only to requests that passed everything further out, and
what is stored is what the upstream said, with nothing that concerns one exchange.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar, Final, assert_never

from gateway.errors import ONLY_IF_CACHED, GatewayError, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.observability.families import CACHE_REQUESTS
from gateway.policies.base import Around, BuildContext
from gateway.policies.cache.build import fetcher_of, fingerprint, state_of, tier_of
from gateway.policies.cache.config import CacheConfig
from gateway.policies.cache.entry import Entry
from gateway.policies.cache.fetch import Fetcher
from gateway.policies.cache.flight import FlightKey, Landing
from gateway.policies.cache.hits import TRUST_S, Hits, give
from gateway.policies.cache.invalidation import changed_uris
from gateway.policies.cache.key import Ask, Reader, selection, uri_of
from gateway.policies.cache.lookup import Lookup, detached, dress, snapshot
from gateway.policies.cache.rules import SAFE, Verdict, has_validator, judge
from gateway.policies.cache.state import CacheState
from gateway.policies.cache.status import Forwarded, Result, forwarded, hit
from gateway.policies.cache.tier import SharedTier

logger = logging.getLogger("gateway.cache")

_MAX_REFRESHING: Final = 64
_REFRESH_S: Final = 30.0
_REFRESH_PAUSE_S: Final = 1.0


class CachePolicy(Around):
    """See the module. One instance serves one route; what is stored is shared by all."""

    name: ClassVar[str] = "cache"
    Config: ClassVar[type[CacheConfig]] = CacheConfig

    def __init__(
        self,
        config: CacheConfig,
        context: BuildContext,
        state: CacheState,
        tier: SharedTier | None,
    ) -> None:
        self._state = state
        self._memory = state.memory
        self._flights = state.flights
        self._now = context.clock.monotonic
        self._wall = context.clock.wall
        self._tier = tier
        self._reader = Reader(
            context.route,
            fingerprint(context),
            by_consumer=config.by_consumer,
            fields=config.fields,
        )
        self._fetcher: Fetcher = fetcher_of(config, state, tier)
        self._wait_s = config.coalesce
        self._max_bytes = context.server.limits.cache
        self._methods = frozenset(config.methods)
        self._results = context.metrics.counts(CACHE_REQUESTS).values
        self._labels = {each: (context.route, each.value) for each in Result}
        hits = Hits(
            state.memory,
            self._reader,
            trust_s=TRUST_S if tier is not None else float("inf"),
            results=self._results,
            label=self._labels[Result.HIT],
            now=self._now,
            wall=self._wall,
        )
        self._give_hit = hits.give
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def build(cls, config: CacheConfig, context: BuildContext) -> CachePolicy:
        """Bind the route's share of the cache."""
        state = state_of(context)
        return cls(config, context, state, tier_of(context, state) if config.shared else None)

    async def start(self) -> None:
        """Keep to the bound of this configuration."""
        self._memory.resize(self._max_bytes)

    async def aclose(self) -> None:
        """Give up what is fetched in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Give a stored answer, or fetch one. Raises what the rest of the chain raises."""
        request = exchange.request
        if request.method not in self._methods:
            return await self._pass(exchange, forward, Forwarded.METHOD)
        if request.body == b"":
            given = self._give_hit(exchange)
            if given is not None:
                return given
        ask = self._reader.read(exchange)
        if ask.bypass or request.body != b"" or exchange.subprotocols is not None:
            return await self._pass(exchange, forward, Forwarded.BYPASS)
        uri = uri_of(request)
        lookup = Lookup(exchange, forward, uri, ask, snapshot(request.headers))
        response, result = await self._look_up(lookup)
        self._count(exchange, result)
        return response

    def _count(self, exchange: Exchange, result: Result) -> None:
        exchange.cache = result.value
        label = self._labels[result]
        self._results[label] = self._results.get(label, 0) + 1

    async def _pass(self, exchange: Exchange, forward: Handler, why: Forwarded) -> Response:
        """Leave a request to the upstream; if it may change something, forget what it changes."""
        self._count(exchange, Result.BYPASS)
        request = exchange.request
        if request.method in SAFE:
            return dress(await forward(exchange), forwarded(why))
        uri = uri_of(request)
        try:
            response = await forward(exchange)
        except BaseException as error:
            # Whether it was carried out is not known, unless nothing was sent.
            if not isinstance(error, GatewayError) or error.sent:
                self._memory.invalidate(uri)
            raise
        if 200 <= response.status < 400:
            for each in changed_uris(uri, response.headers):
                self._memory.invalidate(each)
                if self._tier is not None:
                    await self._tier.invalidate(each)
                    # Somebody may have read it back from the store meanwhile.
                    self._memory.invalidate(each)
        return dress(response, forwarded(why))

    async def _look_up(self, lookup: Lookup) -> tuple[Response, Result]:
        """Answer from what is stored, or with others, or alone."""
        until = self._now() + self._wait_s
        alone = self._wait_s <= 0
        while True:
            entry = await self._find(lookup)
            given = self._from_stored(lookup, entry)
            if given is not None:
                return given
            ask = lookup.ask
            if ask.control is not None and ask.control.only_if_cached:
                detail = "ask without only-if-cached"
                return lookup.exchange.refuse(Rejection(ONLY_IF_CACHED, detail)), Result.MISS
            key = self._flight_key(lookup)
            if alone or self._flights.goes_alone(key, self._now()):
                return await self._fetcher.answer(lookup, entry, None)
            under_way = self._flights.get(key)
            left = until - self._now()
            if under_way is None or left <= 0 or lookup.why is Forwarded.REQUEST:
                flight = self._flights.lead(key) if _leads(lookup, entry) else None
                return await self._fetcher.answer(lookup, entry, flight)
            landing = await under_way.wait(left)
            lookup.collapsed = True
            alone = landing is Landing.ALONE

    async def _find(self, lookup: Lookup) -> Entry | None:
        """What is stored for a request, and may be given to it."""
        ask = lookup.ask
        entry = self._memory.find(lookup.uri, ask.slot, lookup.seen)
        if self._tier is not None:
            entry = await self._tier.look(lookup, entry)
        if entry is None:
            known = self._memory.knows(lookup.uri, ask.slot)
            lookup.why = Forwarded.VARY_MISS if known else Forwarded.URI_MISS
        elif ask.credentials and not entry.open:
            lookup.why = Forwarded.BYPASS
            return None
        return entry

    def _from_stored(self, lookup: Lookup, entry: Entry | None) -> tuple[Response, Result] | None:
        """The answer that needs no upstream; without one, `lookup.why` says why not."""
        if entry is None:
            return None
        now = self._now()
        match judge(entry, lookup.ask.control, now):
            case Verdict.FRESH:
                result = Result.COLLAPSED if lookup.collapsed else Result.HIT
            case Verdict.REFRESH:
                self._refresh(lookup, entry, now)
                result = Result.STALE
            case Verdict.STALE:
                result = Result.STALE
            case Verdict.EXPIRED:
                lookup.why = Forwarded.STALE
                if now >= entry.failing_until or not entry.covers_failure(now):
                    return None
                result = Result.STALE_ERROR
            case Verdict.ASKED:
                lookup.why = Forwarded.REQUEST
                return None
            case never:
                assert_never(never)
        if entry in self._memory:
            self._memory.touch(entry)
        field = hit(int(entry.fresh_until - now))
        if result is Result.COLLAPSED:
            field = forwarded(lookup.why, collapsed=True)
        ask, head = lookup.ask, lookup.head
        return give(entry, now, ask, head, field, self._wall()), result

    def _flight_key(self, lookup: Lookup) -> FlightKey:
        names = self._memory.names(lookup.uri, lookup.ask.slot)
        return lookup.uri, lookup.ask.slot, selection(names, lookup.seen)

    def _refresh(self, lookup: Lookup, entry: Entry, now: float) -> None:
        """Fetch an answer anew in the background, unless that is under way already."""
        key = self._flight_key(lookup)
        busy = self._state.refreshing >= _MAX_REFRESHING or self._flights.get(key) is not None
        if busy or now < entry.refresh_at:
            return
        entry.refresh_at = now + _REFRESH_PAUSE_S
        self._state.refreshing += 1
        flight = self._flights.lead(key)
        exchange = detached(lookup.exchange, now)
        again = Lookup(exchange, lookup.forward, lookup.uri, Ask(lookup.ask.slot), lookup.seen)
        again.ask.credentials = lookup.ask.credentials
        again.why, again.version = Forwarded.STALE, lookup.version

        async def fetch() -> None:
            exchange.task = asyncio.current_task()
            try:
                async with asyncio.timeout(_REFRESH_S):
                    response, _ = await self._fetcher.answer(again, entry, flight)
                    try:
                        if response.stream is not None:
                            async for _ in response.stream:
                                pass
                    finally:
                        response.close()
            except Exception as error:  # noqa: BLE001 - nobody waits for it; the stale one stays
                logger.info("not refreshed: %s", error, extra={"route": exchange.route})

        task = asyncio.get_running_loop().create_task(fetch())
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._state.refreshing -= 1
            # A task that was cancelled before it began has ended nothing by itself.
            flight.land(Landing.LOOK)

        task.add_done_callback(ended)


def _leads(lookup: Lookup, entry: Entry | None) -> bool:
    """Whether others may count on this request's answer: a whole one, that may be stored."""
    ask = lookup.ask
    if lookup.head or (ask.control is not None and ask.control.no_store):
        return False
    return not ask.conditional or (entry is not None and has_validator(entry.headers))
