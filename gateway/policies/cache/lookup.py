"""One request on its way through the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.message import Exchange, Handler, Headers, Request, Response
from gateway.policies.cache.entry import TAG_FIELDS, Entry
from gateway.policies.cache.flight import Flight, Landing
from gateway.policies.cache.key import Ask, Uri
from gateway.policies.cache.memory import Fetch, MemoryTier
from gateway.policies.cache.status import Field, Forwarded

_NOT_REPEATED: Final = frozenset(
    {b"cache-control", b"if-modified-since", b"if-none-match", b"pragma"}
)


@dataclass
class Lookup:
    """A request that was not answered at once.

    `seen` are its fields as the client sent them: what stands further in may change the request's
    own. `why` is why it goes to the upstream, as far as is known. `version` is what the store said
    about its URI, None if it was not asked or did not answer.
    """

    exchange: Exchange
    forward: Handler
    uri: Uri
    ask: Ask
    seen: Headers
    why: Forwarded = Forwarded.URI_MISS
    collapsed: bool = False
    version: tuple[bytes, bytes] | None = None

    @property
    def head(self) -> bool:
        """Whether only the head is wanted."""
        return self.exchange.request.method == "HEAD"


class Trip:
    """One fetch from the upstream: who waits for it, and what was purged meanwhile. Ends once.

    `asked_at` is when the request went out, in Unix seconds.
    """

    __slots__ = ("_fetch", "_flight", "_memory", "asked_at")

    def __init__(
        self, memory: MemoryTier, fetch: Fetch, flight: Flight | None, asked_at: float
    ) -> None:
        self._memory = memory
        self._fetch = fetch
        self._flight = flight
        self.asked_at = asked_at

    @property
    def awaited(self) -> bool:
        """Whether others may wait for its answer."""
        return self._flight is not None

    def may_store(self, entry: Entry) -> bool:
        """Whether no purge in between meant this answer."""
        return self._fetch.may_store(entry)

    def end(self, landing: Landing) -> None:
        """It is over. Safe to call twice; the first call counts."""
        self._memory.end(self._fetch)
        if self._flight is not None:
            self._flight.land(landing)


def snapshot(headers: Headers) -> Headers:
    """A copy that nobody changes."""
    return Headers(headers.raw.copy(), headers.index.copy())


def detached(exchange: Exchange, now: float) -> Exchange:
    """An exchange for the same content without a client: it may outlive the one it comes from."""
    own = exchange.request
    fields = [pair for pair in own.headers.raw if pair[0] not in _NOT_REPEATED]
    request = Request("GET", own.path, own.query, Headers(fields), own.host)
    request.client, request.peer, request.port = own.client, own.peer, own.port
    request.scheme, request.http_version = own.scheme, own.http_version
    request.trusted, request.certificate = own.trusted, own.certificate
    made = Exchange(request, now)
    made.route = exchange.route
    made.generation = exchange.generation
    made.params = exchange.params
    made.raw_params = exchange.raw_params
    made.correlation_id = exchange.correlation_id
    made.trace = exchange.trace
    made.principal = exchange.principal
    made.state = None if exchange.state is None else exchange.state.copy()
    return made


def dress(response: Response, field: Field) -> Response:
    """An answer of the upstream's with what the cache says about it, without tags for the cache.

    Answers that the gateway made itself stay as they are (RFC 9211 section 2).
    """
    if response.error is None and response.status != 101:
        headers = response.headers
        if any(name in TAG_FIELDS for name, _ in headers):
            headers = [pair for pair in headers if pair[0] not in TAG_FIELDS]
        response.headers = [*headers, field]
    return response
