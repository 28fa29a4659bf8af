"""What an event is delivered to. `Target` is all that a lane knows of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.delivery.event import Event, Head, Record
from gateway.delivery.mapping import Mapping, MappingFailed
from gateway.delivery.outcome import (
    Delivered,
    Failed,
    Outcome,
    Paused,
    Reason,
    StepNote,
    judge_failure,
    judge_status,
)
from gateway.delivery.sign import Signer
from gateway.errors import DEADLINE_EXCEEDED, GatewayError
from gateway.message import Exchange, Handler, Headers, Principal, RawHeaders, Request, Response
from gateway.observability.trace import IdSource
from gateway.tracing import TraceContext

EVENT_FIELD: Final = b"x-lockgate-event"
ATTEMPT_FIELD: Final = b"x-lockgate-attempt"
KEPT: Final = 2048
"""So much of an answer that was no success is kept, in bytes."""
# Fields that say something of a body, which is another one now.
OF_THE_BODY: Final = (
    b"content-encoding", b"content-digest", b"content-md5", b"digest", b"repr-digest",
)  # fmt: skip
# More of an answer is not read: nobody is waiting for it.
_READ: Final = 256 * 1024


class Save(Protocol):
    """Makes the progress of a target that goes step by step durable, with what the audit is told.

    Raises Superseded if somebody else has taken the event over; waits while the store is away.
    """

    async def __call__(self, progress: bytes, note: StepNote | None = None) -> None:
        """Returns once it is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt. `number` counts those of the record's epoch, from 1."""

    event: Event
    record: Record
    number: int
    save: Save


class Superseded(Exception):
    """The event was handed to somebody else meanwhile; nothing more may be done with it here."""


class Target(Protocol):
    """Carries out attempts, several at once."""

    async def attempt(self, work: Work) -> Outcome:
        """Deliver the event once. Exceptions count as failures of the gateway."""
        ...


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a target's request differs from the one that came. `limit` is the longest attempt (s)."""

    method: str = ""
    path: str = ""
    mapping: Mapping | None = None
    signer: Signer | None = None
    limit: float = 300.0


class HttpTarget:
    """The route's delivery chain to an upstream."""

    def __init__(self, send: Handler, options: CallOptions, clock: Clock, ids: IdSource) -> None:
        self._send = send
        self._options = options
        self._clock = clock
        self._ids = ids

    async def attempt(self, work: Work) -> Outcome:
        """Send it, and judge the answer."""
        options = self._options
        exchange = make_exchange(work.event, work.record, self._clock.monotonic(), self._ids)
        request = exchange.request
        request.method = options.method or request.method
        request.path = options.path or request.path
        if options.mapping is not None:
            try:
                request.body = options.mapping.body(exchange)
            except MappingFailed as error:
                return Failed(True, code="mapping_failed", detail=str(error), reason=Reason.INVALID)
            for name in OF_THE_BODY:
                request.headers.remove(name)
            request.headers.set(b"content-type", b"application/json")
            request.headers.set(b"content-length", b"%d" % len(request.body))
        request.headers.set(ATTEMPT_FIELD, str(work.number).encode())
        if options.signer is not None:
            options.signer.sign(
                request.headers, work.event.id, self._clock.wall(), request.body or b""
            )
        return await send(exchange, self._send, options.limit, self._clock)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream answered. `body` is all of it, or its beginning; none of one that is no
    success and broke off, which is not `whole`.
    """

    status: int
    headers: RawHeaders
    body: bytes
    whole: bool = True

    def field(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


async def send(exchange: Exchange, handler: Handler, limit: float, clock: Clock) -> Outcome:
    """Send an exchange that no client waits for, and judge what came of it."""
    answer = await ask(exchange, handler, limit, clock)
    if not isinstance(answer, Answer):
        return answer
    verdict = judge_status(answer.status, answer.field(b"retry-after"), clock.wall())
    if isinstance(verdict, Delivered):
        return verdict
    return Failed(verdict.permanent, verdict.status, answer=answer.body[:KEPT], wait=verdict.wait)


async def ask(
    exchange: Exchange, handler: Handler, limit: float, clock: Clock
) -> Answer | Failed | Paused:
    """Send an exchange that no client waits for: the answer, or why there is none. Of the body no
    more than 256 KiB are read.
    """
    task = exchange.task = asyncio.current_task()
    try:
        async with asyncio.timeout(limit):
            response = await handler(exchange)
            try:
                answer = await _answer(response)
            finally:
                response.close()
    except GatewayError as error:
        after = next((value for name, value in error.headers if name == b"retry-after"), None)
        return judge_failure(error.kind, error.detail, after, clock.wall())
    except TimeoutError:
        return Failed(False, code=DEADLINE_EXCEEDED.code, detail="no complete answer in time")
    except asyncio.CancelledError:
        # The route's deadline passed in the middle of the answer; or this task is to end as well.
        if not exchange.timed_out or task is None or task.uncancel():
            raise
        return Failed(False, code=DEADLINE_EXCEEDED.code, detail="no complete answer in time")
    if response.error is not None:
        # An answer that the gateway made, for a guard among the delivery's policies refused.
        after = answer.field(b"retry-after")
        return judge_failure(response.error, exchange.error_detail, after, clock.wall())
    return answer


async def _answer(response: Response) -> Answer:
    try:
        return Answer(response.status, response.headers, await read_some(response, _READ))
    except GatewayError:
        if 200 <= response.status < 300:
            # Half an answer may be of something half done.
            raise
        return Answer(response.status, response.headers, b"", whole=False)


async def read_some(response: Response, limit: int) -> bytes:
    """The answer's body, or its first `limit` bytes."""
    if response.body is not None:
        return response.body[:limit]
    pieces: list[bytes] = []
    size = 0
    if response.stream is not None:
        async for piece in response.stream:
            pieces.append(piece)
            size += len(piece)
            if size >= limit:
                break
    return b"".join(pieces)[:limit]


def make_exchange(event: Event, record: Record, now: float, ids: IdSource) -> Exchange:
    """An exchange for one attempt: the request as it came, with what tells attempts apart."""
    head = event.head
    headers = Headers(list(head.headers))
    request = Request(head.method, head.path, head.query, headers, head.host)
    request.body = event.body
    request.client = request.peer = head.client
    request.scheme, request.port = head.scheme, head.port
    exchange = Exchange(request, now)
    exchange.route, exchange.generation = head.route, head.generation
    exchange.params, exchange.raw_params = head.params, head.raw_params
    exchange.correlation_id = head.correlation_id
    if head.consumer or head.identity:
        exchange.principal = Principal(head.consumer, {}, frozenset(), head.identity, head.tier)
    headers.set(b"idempotency-key", key_field(head, record))
    headers.set(EVENT_FIELD, event.id.encode())
    if event.body or b"content-type" in headers:
        headers.set(b"content-length", b"%d" % len(event.body))
    exchange.trace = _trace(head, headers, ids)
    return exchange


def key_of(head: Head, record: Record) -> str:
    """The idempotency key of all attempts of an epoch: a replay is to be carried out again."""
    return head.key if record.epoch == 1 else f"{head.key}.{record.epoch}"


def key_field(head: Head, record: Record, suffix: str = "") -> bytes:
    """The key as the field's value."""
    return quoted(f"{key_of(head, record)}{suffix}")


def quoted(key: str) -> bytes:
    """A key as a string (RFC 9651 section 3.3.3)."""
    text = key.encode("ascii", "replace")
    return b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _trace(head: Head, headers: Headers, ids: IdSource) -> TraceContext | None:
    if head.trace is None:
        return None
    trace_id, flags, state = head.trace
    span_id = ids.take()[32:]
    headers.set(b"traceparent", f"00-{trace_id}-{span_id}-{flags}".encode())
    return TraceContext(trace_id, span_id, flags, "", state)
