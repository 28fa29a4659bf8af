"""The way to the upstream and back: conditions that the cache sets, and what becomes of the answer.

An answer is stored when it has come whole, and not before: what breaks off, is cut or turns out too
long is passed on and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.errors import GatewayError, Source
from gateway.message import Headers, Response
from gateway.policies.cache.directives import RawHeaders
from gateway.policies.cache.entry import TAG_FIELDS, Entry
from gateway.policies.cache.flight import Flight, Landing
from gateway.policies.cache.hits import give
from gateway.policies.cache.key import selection
from gateway.policies.cache.lookup import Lookup, Trip, dress
from gateway.policies.cache.rules import (
    ERRORS,
    Answer,
    Skip,
    Store,
    Terms,
    has_validator,
    initial_age,
    storable,
    stored_headers,
)
from gateway.policies.cache.state import CacheState
from gateway.policies.cache.status import Field, Forwarded, Result, forwarded
from gateway.policies.cache.tee import Lost, Tee
from gateway.policies.cache.validation import conditional, confirms, head_confirms, updated

# How long an upstream is left alone that failed, while there is a stale answer to give.
_FAILING_S: Final = 1.0
_NO_FIELDS: Final[frozenset[bytes]] = frozenset()
Put = Callable[[Entry], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a route stores: its terms, the largest body in bytes, and tags of its own."""

    terms: Terms
    max_entry: int
    tags: frozenset[bytes]


class Fetcher:
    """Fetches for one route. `put` is told each entry that was stored, for the shared tier."""

    def __init__(self, state: CacheState, limits: Limits, put: Put | None) -> None:
        self._memory = state.memory
        self._flights = state.flights
        self._now = state.clock.monotonic
        self._wall = state.clock.wall
        self._limits = limits
        self._put = put

    async def answer(
        self, lookup: Lookup, entry: Entry | None, flight: Flight | None
    ) -> tuple[Response, Result]:
        """Ask the upstream. `entry` is what is stored and may not be given without asking.

        Raises what the rest of the chain raises, unless the entry may be given in place of that.
        """
        fetch = self._memory.begin(lookup.uri, lookup.ask.slot)
        trip = Trip(self._memory, fetch, flight, self._wall())
        try:
            return await self._answer(lookup, entry, trip)
        except GatewayError as error:
            if entry is None or not (_is_failure(error) and entry.covers_failure(self._now())):
                trip.end(Landing.LOOK)
                raise
            return self._instead(lookup, entry, trip, 0)
        except BaseException:
            trip.end(Landing.LOOK)
            raise

    async def _answer(
        self, lookup: Lookup, entry: Entry | None, trip: Trip
    ) -> tuple[Response, Result]:
        validates = entry is not None and not lookup.head and has_validator(entry.headers)
        if entry is not None and validates:
            asked = lookup.exchange.request.headers.raw
            response = await self._send(lookup, conditional(entry.headers, asked))
            if response.status == 304:
                if confirms(entry.headers, response.headers):
                    return self._revalidated(lookup, entry, response, trip)
                # It speaks of something that is not stored; so the content itself is needed.
                response.close()
                self._memory.remove(entry)
                entry, trip.asked_at = None, self._wall()
                response = await self._send(lookup, None)
        else:
            response = await self._send(lookup, None)
        failed = response.status in ERRORS
        if failed and entry is not None and entry.covers_failure(self._now()):
            response.close()
            return self._instead(lookup, entry, trip, response.status)
        if lookup.head:
            return self._head(lookup, entry, response, trip), Result.MISS
        return self._received(lookup, response, trip)

    def _instead(
        self, lookup: Lookup, entry: Entry, trip: Trip, status: int
    ) -> tuple[Response, Result]:
        """Give a stale answer in place of a failure; `status` is 0 if there was no answer."""
        entry.failing_until = self._now() + _FAILING_S
        trip.end(Landing.LOOK)
        field = forwarded(Forwarded.STALE, status=status)
        return self._give(lookup, entry, field), Result.STALE_ERROR

    async def _send(self, lookup: Lookup, fields: RawHeaders | None) -> Response:
        """Forward, with other request fields if there are any; the client's stand there after."""
        if fields is None:
            return await lookup.forward(lookup.exchange)
        request = lookup.exchange.request
        own = request.headers
        request.headers = Headers(fields)
        try:
            return await lookup.forward(lookup.exchange)
        finally:
            request.headers = own

    def _revalidated(
        self, lookup: Lookup, entry: Entry, response: Response, trip: Trip
    ) -> tuple[Response, Result]:
        response.close()
        cookies = [pair for pair in response.headers if pair[0] == b"set-cookie"]
        fresh, landing = self._refile(lookup, entry, response.headers, trip)
        trip.end(landing)
        given = self._give(lookup, fresh, forwarded(lookup.why, status=304))
        given.headers += cookies
        return given, Result.REVALIDATED

    def _refile(
        self, lookup: Lookup, entry: Entry, received: RawHeaders, trip: Trip
    ) -> tuple[Entry, Landing]:
        """Put an entry back with the fields of a newer answer that confirms it (section 3.2)."""
        headers = updated(entry.headers, received)
        answer = Answer(entry.status, headers, trip.asked_at, self._wall())
        ask = lookup.ask
        plan = storable(answer, ask.control, self._limits.terms, credentials=ask.credentials)
        passing = plan if isinstance(plan, Store) else _once(answer)
        fresh = self._entry(lookup, passing, entry.status, entry.body, self._now())
        if not any(name in TAG_FIELDS for name, _ in received):
            fresh.tags = entry.tags
        if isinstance(plan, Store):
            self._memory.remove(entry)
            if trip.may_store(fresh):
                return fresh, self._file(lookup, fresh)
        elif plan is not Skip.REQUEST:
            self._memory.remove(entry)
        return fresh, Landing.ALONE

    def _head(
        self, lookup: Lookup, entry: Entry | None, response: Response, trip: Trip
    ) -> Response:
        """Let an answer to HEAD freshen what is stored, or show that it is outdated (4.3.5)."""
        status = response.status
        if entry is not None and status < 500 and status not in (206, 304):
            if status == entry.status and head_confirms(entry.headers, response.headers):
                self._refile(lookup, entry, response.headers, trip)
            else:
                self._memory.remove(entry)
        trip.end(Landing.LOOK)
        return dress(response, forwarded(lookup.why, collapsed=lookup.collapsed))

    def _received(self, lookup: Lookup, response: Response, trip: Trip) -> tuple[Response, Result]:
        """Store an answer if it may be stored, as soon as it is whole."""
        ask, limits = lookup.ask, self._limits
        answer = Answer(response.status, response.headers, trip.asked_at, self._wall())
        plan = storable(answer, ask.control, limits.terms, credentials=ask.credentials)
        if response.error is not None or isinstance(plan, Skip) or self._is_long(answer, response):
            outdated = response.status < 500 and response.status not in (206, 304)
            if outdated and plan is not Skip.REQUEST:
                self._supersede(lookup, open_only=ask.credentials)
            self._not_stored(lookup, trip)
            field = forwarded(lookup.why, collapsed=lookup.collapsed)
            return dress(response, field), Result.MISS
        field = forwarded(lookup.why, stored=True, collapsed=lookup.collapsed)
        keep = partial(self._keep, lookup, plan, response.status, self._now(), trip)
        if response.stream is not None and response.body is None:
            self._copy(response, keep)
            return dress(response, field), Result.MISS
        made = keep(response.body or b"")
        if ask.conditional and made is not None and response.trailers is None:
            given = self._give(lookup, made, field)
            if given.status == 304:
                response.close()
                return given, Result.MISS
        return dress(response, field), Result.MISS

    def _copy(self, response: Response, keep: Callable[[bytes | Lost], Entry | None]) -> None:
        assert response.stream is not None
        tee = Tee(response.stream, self._limits.max_entry, keep)
        response.stream = tee
        response.on_close(tee.close)

    def _is_long(self, answer: Answer, response: Response) -> bool:
        limit = self._limits.max_entry
        if response.body is not None:
            return len(response.body) > limit
        declared = answer.values(b"content-length")
        return bool(declared) and declared[0].isdigit() and int(declared[0]) > limit

    def _keep(
        self,
        lookup: Lookup,
        plan: Store,
        status: int,
        came_at: float,
        trip: Trip,
        body: bytes | Lost,
    ) -> Entry | None:
        """File a whole answer; None if there is no copy of its body."""
        if body is Lost.LONG:
            self._not_stored(lookup, trip)
            return None
        if body is Lost.BROKEN:
            trip.end(Landing.LOOK)
            return None
        entry = self._entry(lookup, plan, status, body, came_at)
        landing = Landing.LOOK
        if trip.may_store(entry):
            landing = self._file(lookup, entry)
        trip.end(landing)
        return entry

    def _entry(
        self, lookup: Lookup, plan: Store, status: int, body: bytes, came_at: float
    ) -> Entry:
        values = selection(plan.names, lookup.seen)
        entry = Entry((lookup.uri, lookup.ask.slot), values, plan, status, body, came_at)
        entry.tags |= self._limits.tags
        if lookup.version is not None:
            entry.version = lookup.version
        return entry

    def _file(self, lookup: Lookup, entry: Entry) -> Landing:
        """Store an entry, and say what is left to those who wait for it."""
        self._supersede(lookup, open_only=False)
        stored = self._memory.put(entry)
        if self._put is not None and lookup.version is not None:
            self._put(entry)
        key = lookup.uri, lookup.ask.slot, entry.values
        if stored and entry.fresh_until > self._now():
            self._flights.was_stored(key)
            return Landing.LOOK
        # Each request must ask by itself, so nobody should wait for another.
        self._flights.was_uncacheable(key, self._now())
        return Landing.ALONE

    def _supersede(self, lookup: Lookup, *, open_only: bool) -> None:
        self._memory.supersede(lookup.uri, lookup.ask.slot, lookup.seen, open_only=open_only)

    def _not_stored(self, lookup: Lookup, trip: Trip) -> None:
        if trip.awaited:
            names = self._memory.names(lookup.uri, lookup.ask.slot)
            key = lookup.uri, lookup.ask.slot, selection(names, lookup.seen)
            self._flights.was_uncacheable(key, self._now())
        trip.end(Landing.ALONE)

    def _give(self, lookup: Lookup, entry: Entry, field: Field) -> Response:
        return give(entry, self._now(), lookup.ask, lookup.head, field, self._wall())


def _is_failure(error: GatewayError) -> bool:
    """Whether an error is the kind that a stale answer may stand in for (RFC 5861 section 4)."""
    return error.kind.status >= 500 and error.kind.source is not Source.CLIENT


def _once(answer: Answer) -> Store:
    """The plan of an answer that is given once more and then forgotten."""
    return Store(
        age=initial_age(answer),
        lifetime=0.0,
        while_revalidate=0.0,
        if_error=0.0,
        may_stale=False,
        open=False,
        names=(),
        headers=stored_headers(answer, _NO_FIELDS),
    )
