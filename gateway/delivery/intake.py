"""How an event comes in: what is kept of a request, for which targets, and under which id.

Everything that makes events goes through here: requests, schedules, streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import (
    ORIGIN_REQUEST,
    SOURCE_FIELDS,
    Event,
    Head,
    Record,
)
from gateway.delivery.ids import new_id
from gateway.delivery.outcome import Reason
from gateway.delivery.queue import digest, letter
from gateway.delivery.queued import Acceptance, Entry
from gateway.delivery.reception import IntakeOptions, Receipt, Receiver
from gateway.errors import Rejection
from gateway.expressions import ExpressionFailed
from gateway.http1.head import connection_tokens
from gateway.message import NOTHING_REPEATS, Exchange, Headers, RawHeaders
from gateway.observability.delivery import DEAD_LETTERS
from gateway.request_key import BadKey, Facts

logger = logging.getLogger("gateway.delivery")

# What is written anew for each attempt.
_WRITTEN: Final = frozenset(
    {
        b"idempotency-key", b"traceparent", b"tracestate", b"webhook-id", b"webhook-signature",
        b"webhook-timestamp", b"x-lockgate-attempt", b"x-lockgate-event",
    }
)  # fmt: skip
# That, and what was between the client and this gateway alone.
_LEFT_OUT: Final = _WRITTEN | {
    b"connection", b"content-length", b"expect", b"keep-alive", b"prefer", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip


class KeyReused(Exception):
    """What looks like a repetition by its key is another event than the first one."""


class CannotOrder(ValueError):
    """The event lacks what its order is made of. The text says what."""


class Intake:
    """Keeps the events of one route."""

    def __init__(
        self, options: IntakeOptions, dispatcher: Dispatcher, wall: Callable[[], float]
    ) -> None:
        self._options = options
        self._dispatcher = dispatcher
        self._wall = wall
        self._secrets_and_sources = options.secret_fields | SOURCE_FIELDS

    async def keep(
        self,
        exchange: Exchange,
        body: bytes,
        *,
        key: str = "",
        repeats: tuple[str, float, str] = NOTHING_REPEATS,
        also: tuple[str, float, str] = NOTHING_REPEATS,
        origin: str = ORIGIN_REQUEST,
        invalid: Rejection | None = None,
    ) -> Receipt:
        """Keep the event, durably.

        `key` is its idempotency key, `repeats` and `also` are each as in Exchange. With `invalid`
        it goes to the dead letters of all targets. Raises StoreError, after which it may have been
        kept, CannotOrder, and KeyReused.
        """
        options = self._options
        now = self._wall()
        event_id = new_id(now)
        order = "" if invalid is not None else self.order(exchange, body)
        entries = [
            self._entry(receiver, exchange, event_id, now, order, invalid)
            for receiver in options.receivers
        ]
        head = self._head(exchange, key or event_id, now, origin)
        states = tuple((each.target, _STATES[each.state]) for each in entries)
        kind = "quarantined" if invalid is not None else "accepted"
        first = await self._dispatcher.queue.accept(
            Acceptance(
                event_id,
                head,
                body,
                entries,
                repeats=repeats,
                also=also,
                callback=options.callback,
                keep=options.keep,
                audit=self._dispatcher.journal.accepted(
                    now, event_id, head, kind, [name for name, _ in states]
                ),
            )
        )
        if first is not None:
            if not first.same:
                raise KeyReused(first.id)
            return Receipt(first.id, duplicate=True)
        waiting = [name for name, state in states if state == "queued"]
        self._dispatcher.wake(options.route, waiting or [options.callback])
        dead = [(each.target, each.record) for each in entries if each.record is not None]
        if dead:
            self._given_up(Event(event_id, head, body, now), dead)
        return Receipt(event_id, targets=states, quarantined=invalid is not None)

    def _given_up(self, event: Event, dead: Sequence[tuple[str, Record]]) -> None:
        counts = self._dispatcher.metrics.counts(DEAD_LETTERS)
        for target, record in dead:
            counts.add(event.head.route, target, record.reason)
            logger.error(
                "an event was given up when it came: it is a dead letter",
                extra={
                    "route": event.head.route, "target": target, "event": event.id,
                    "correlation_id": event.head.correlation_id, "reason": record.reason,
                    "code": record.code, "detail": record.detail,
                },
            )  # fmt: skip
            if self._options.on_dead is not None:
                self._options.on_dead(target, event, record)

    def order(self, exchange: Exchange, body: bytes) -> str:
        """The digest of an event's order, empty if the route has none. Raises CannotOrder."""
        rule = self._options.ordered_by
        if rule is None:
            return ""
        request = exchange.request
        try:
            data = msgspec.json.decode(body) if rule.needs_body else None
            return digest(rule.derive(Facts(request.headers, request.query, exchange.params, data)))
        except BadKey as error:
            raise CannotOrder(f"ordered_by: {error}") from None
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise CannotOrder("the body, which the order is made of, is no JSON") from None

    def _entry(
        self,
        receiver: Receiver,
        exchange: Exchange,
        event_id: str,
        now: float,
        order: str,
        invalid: Rejection | None,
    ) -> Entry:
        name = receiver.name
        record: Record | None = None
        if invalid is not None:
            record = Record(begun_at=now, reason=Reason.INVALID, code=invalid.kind.code)
            record.detail, record.status = invalid.detail, invalid.kind.status
            if invalid.extensions:
                record.answer = msgspec.json.encode(dict(invalid.extensions))[:2048]
        elif receiver.when is not None:
            try:
                if not receiver.when.holds(exchange):
                    return Entry(name, "n")
            except ExpressionFailed as error:
                # Not knowing is no reason to drop it: somebody has to look.
                record = Record(begun_at=now, reason=Reason.INVALID, code="condition_failed")
                record.detail = f"when: {error.reason}"
        if record is None:
            return Entry(name, "q", None, order)
        member = letter(event_id, name, record.reason, record.code, record.status)
        return Entry(name, "x", record, member=member)

    def _head(self, exchange: Exchange, key: str, now: float, origin: str) -> Head:
        request, principal = exchange.request, exchange.principal
        drop = self._secrets_and_sources
        if origin != ORIGIN_REQUEST:
            drop = self._options.secret_fields
        trace = exchange.trace
        return Head(
            route=exchange.route,
            method=request.method,
            path=request.path,
            query=request.query,
            host=request.host,
            headers=_kept(request.headers, drop),
            params=dict(exchange.params),
            raw_params=dict(exchange.raw_params),
            consumer=principal.consumer if principal else "",
            identity=principal.identity if principal else "",
            tier=principal.tier if principal else "",
            correlation_id=exchange.correlation_id,
            trace=(trace.trace_id, trace.flags, trace.state) if trace else None,
            received_at=now,
            generation=exchange.generation,
            key=key,
            origin=origin,
            client=request.client,
            scheme=request.scheme,
            port=request.port,
        )


def _kept(headers: Headers, drop: frozenset[bytes]) -> RawHeaders:
    kept = [pair for pair in headers.raw if pair[0] not in _LEFT_OUT and pair[0] not in drop]
    if b"connection" in headers.index:
        # What it names ends at this gateway: the delivery leaves it out as forwarding does. But
        # nobody can name what the gateway is going to write.
        named = connection_tokens(headers.raw) - _WRITTEN
        kept.append((b"connection", b", ".join(sorted(named))))
    return kept


_STATES: Final = {"q": "queued", "w": "queued", "n": "skipped", "x": "dead"}
