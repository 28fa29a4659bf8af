"""A target that is a stream of another server: each event is appended to it.

At least once: an event that was appended, and whose reply did not come, is appended again. Entries
carry the event's id, by which readers can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.clock import Clock
from gateway.delivery.mapping import Mapping, MappingFailed
from gateway.delivery.outcome import Delivered, Failed, Outcome, Paused, Reason
from gateway.delivery.target import Work, key_of, make_exchange
from gateway.errors import StoreError
from gateway.observability.trace import IdSource
from gateway.store.base import Part, ReplyError, Store

UNAVAILABLE: Final = "stream_unavailable"
REFUSED: Final = "stream_refused"


@dataclass(frozen=True, slots=True)
class AppendOptions:
    """What is appended. `maxlen` keeps the stream at about so many entries, 0 does not; `headers`
    are names of the event's header fields, in lower case, that become fields of the entry.
    """

    stream: str
    maxlen: int = 0
    headers: tuple[str, ...] = ()
    mapping: Mapping | None = None


class StreamTarget:
    """See the module. `store` is the server that has the stream."""

    def __init__(self, store: Store, options: AppendOptions, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._ids = ids

    async def attempt(self, work: Work) -> Outcome:
        """Append it."""
        try:
            fields = self._fields(work)
        except MappingFailed as error:
            return Failed(True, code="mapping_failed", detail=str(error), reason=Reason.INVALID)
        options = self._options
        bound: tuple[Part, ...] = ("MAXLEN", "~", options.maxlen) if options.maxlen else ()
        try:
            await self._store.call("XADD", options.stream, *bound, "*", *fields)
        except ReplyError as error:
            if error.unavailable:
                return Failed(False, code=UNAVAILABLE, detail=f"the server says {error.code}")
            # Not the event's fault, but another attempt would not go better: it can be replayed.
            return Failed(True, code=REFUSED, detail=f"the server says {error.code}")
        except StoreError as error:
            if not error.sent:
                return Paused(UNAVAILABLE)
            return Failed(False, code=UNAVAILABLE, detail="the server's reply did not come")
        return Delivered()

    def _fields(self, work: Work) -> list[Part]:
        event = work.event
        exchange = make_exchange(event, work.record, self._clock.monotonic(), self._ids)
        body = event.body
        if self._options.mapping is not None:
            body = self._options.mapping.body(exchange)
        found: list[Part] = [
            "event_id", event.id,
            "correlation_id", event.head.correlation_id,
            "idempotency_key", key_of(event.head, work.record),
            "route", event.head.route,
            "attempt", work.number,
            "body", body,
        ]  # fmt: skip
        for name in self._options.headers:
            value = exchange.request.headers.get(name.encode("ascii"))
            if value is not None:
                found += [name, value]
        return found
