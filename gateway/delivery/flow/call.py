"""One call of a flow: made of the event and of earlier answers, sent, and judged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.clock import Clock
from gateway.delivery.event import Event, Record
from gateway.delivery.flow.answers import Answers, fields_of
from gateway.delivery.flow.progress import NOTHING_KEPT, Kept
from gateway.delivery.mapping import Mapping, MappingFailed
from gateway.delivery.outcome import Delivered, Failed, Paused, Reason, judge_status
from gateway.delivery.sign import Signer
from gateway.delivery.target import (
    ATTEMPT_FIELD,
    KEPT,
    OF_THE_BODY,
    Answer,
    ask,
    key_of,
    make_exchange,
    quoted,
)
from gateway.errors import RESPONSE_INCOMPLETE
from gateway.expressions import Expression, ExpressionFailed
from gateway.message import Exchange, Handler, Request
from gateway.observability.trace import IdSource
from gateway.request_key import MAX_LENGTH
from gateway.routing.template import Template

NOT_YET: Final = "not_yet"
UNEXPECTED_STATUS: Final = "unexpected_status"
MAPPING_FAILED: Final = "mapping_failed"
# Methods whose requests carry a body only if the step gives them one (RFC 9110 section 9.3).
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})
_TELLS_OF_BODY: Final = (
    *OF_THE_BODY, b"content-type", b"content-language", b"content-length",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A call as configured. What is empty or None is as it is in the event's request.

    `params` fill in the parameters of `path` that are not the route's. `no_body` sends none.
    `expect` are the statuses of success, any 2xx if empty; `until` must hold of the answer, too.
    `keeps` are the parts of the answer that others need, `limit` is in seconds.
    """

    send: Handler
    method: str = ""
    path: Template | None = None
    params: Mapping | None = None
    query: Mapping | None = None
    headers: Mapping | None = None
    body: Mapping | None = None
    no_body: bool = False
    expect: frozenset[int] = frozenset()
    until: Expression | None = None
    keeps: frozenset[str] = frozenset()
    limit: float = 300.0


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The step was carried out. `unusable` says why its answer can't be kept, if it can't."""

    status: int
    kept: Kept = NOTHING_KEPT
    unusable: str = ""


Called = Succeeded | Failed | Paused


@dataclass(frozen=True, slots=True)
class Attempted:
    """Which attempt at which call: `suffix` tells it from the event's other calls, `number` counts
    from 1, `room` is how many bytes of the answer may be kept.
    """

    name: str
    suffix: str
    number: int
    room: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls."""

    clock: Clock
    ids: IdSource
    signer: Signer | None = None

    async def call(
        self, plan: CallPlan, event: Event, record: Record, answers: Answers, which: Attempted
    ) -> Called:
        """Make one. Exceptions are failures of the gateway."""
        exchange = make_exchange(event, record, self.clock.monotonic(), self.ids)
        try:
            _write(plan, exchange, answers.exchange)
        except MappingFailed as error:
            return Failed(True, code=MAPPING_FAILED, detail=str(error), reason=Reason.INVALID)
        headers = exchange.request.headers
        key = call_key(key_of(event.head, record), which.suffix)
        headers.set(b"idempotency-key", quoted(key))
        headers.set(ATTEMPT_FIELD, b"%d" % which.number)
        if plan.keeps or plan.until is not None:
            # The answer is read here, where nothing unpacks it.
            headers.set(b"accept-encoding", b"identity")
        if self.signer is not None:
            message = f"{event.id}.{which.suffix}"
            self.signer.sign(headers, message, self.clock.wall(), exchange.request.body or b"")
        answer = await ask(exchange, plan.send, plan.limit, self.clock)
        if not isinstance(answer, Answer):
            return answer
        return self._judge(plan, answer, answers, which)

    def _judge(
        self, plan: CallPlan, answer: Answer, answers: Answers, which: Attempted
    ) -> Succeeded | Failed:
        verdict = judge_status(answer.status, answer.field(b"retry-after"), self.clock.wall())
        beginning = answer.body[:KEPT]
        expected = answer.status in plan.expect or (
            not plan.expect and isinstance(verdict, Delivered)
        )
        if not expected:
            if isinstance(verdict, Failed):
                return Failed(verdict.permanent, answer.status, answer=beginning, wait=verdict.wait)
            return Failed(True, answer.status, code=UNEXPECTED_STATUS, answer=beginning)
        if not answer.whole:
            return Failed(False, answer.status, RESPONSE_INCOMPLETE.code)
        if plan.until is not None:
            answers.show_one(which.name, answer.status, _whole(answer))
            try:
                holds = plan.until.holds(answers.exchange)
                detail = "until does not hold"
            except ExpressionFailed as error:
                holds, detail = False, f"until: {error.reason}"
            if not holds:
                wait = verdict.wait if isinstance(verdict, Failed) else 0.0
                return Failed(False, answer.status, NOT_YET, detail, answer=beginning, wait=wait)
        return _kept(plan.keeps, answer, which.room)


def _whole(answer: Answer) -> Kept:
    return Kept(answer.body, fields_of(answer.headers))


def _kept(wanted: frozenset[str], answer: Answer, room: int) -> Succeeded:
    body = answer.body if "body" in wanted else None
    headers = fields_of(answer.headers) if "headers" in wanted else None
    kept = Kept(body, headers)
    coding = answer.field(b"content-encoding")
    if body and coding is not None and coding.strip().lower() != b"identity":
        return Succeeded(answer.status, unusable="the answer's body is encoded")
    if kept.size > room:
        return Succeeded(answer.status, unusable=f"the answer is longer than {room} bytes")
    return Succeeded(answer.status, kept)


def call_key(key: str, suffix: str) -> str:
    """The idempotency key of one of an event's calls; one that would be too long is hashed."""
    whole = f"{key}:{suffix}"
    if len(whole) <= MAX_LENGTH:
        return whole
    return f"{hashlib.sha256(key.encode()).hexdigest()}:{suffix}"


def _write(plan: CallPlan, exchange: Exchange, event: Exchange) -> None:
    """Put into the request what the plan says; `event` is what its expressions are about."""
    request = exchange.request
    request.method = plan.method or request.method
    if plan.path is not None:
        request.path = plan.path.expand({**event.raw_params, **_segments(plan.params, event)})
    if plan.query is not None:
        given = _texts(plan.query, event, "query")
        request.query = urlencode(given, quote_via=quote).encode()
    _write_body(plan, request, event)
    if plan.headers is not None:
        for name, text in _texts(plan.headers, event, "headers").items():
            if any(char in text for char in "\r\n\0"):
                raise MappingFailed(f"headers.{name} has a line break")
            request.headers.set(name.lower().encode("latin-1"), text.encode("latin-1", "replace"))


def _write_body(plan: CallPlan, request: Request, event: Exchange) -> None:
    bodiless = request.method in _BODILESS
    if plan.body is None and not plan.no_body and not bodiless:
        return
    headers = request.headers
    for name in _TELLS_OF_BODY:
        headers.remove(name)
    request.body = b"" if plan.body is None else plan.body.body(event)
    if plan.body is not None:
        headers.set(b"content-type", b"application/json")
    if request.body or not bodiless:
        headers.set(b"content-length", b"%d" % len(request.body))


def _segments(params: Mapping | None, event: Exchange) -> dict[str, str]:
    """Parameters of a path, encoded so that each stays the one segment it is."""
    found = {}
    for name, text in _texts(params, event, "params").items() if params is not None else ():
        if text in ("", ".", ".."):
            raise MappingFailed(f"params.{name} can't stand in a path")
        found[name] = quote(text, safe="")
    return found


def _texts(mapping: Mapping, event: Exchange, where: str) -> dict[str, str]:
    """Texts by name, without those that are null."""
    found = {}
    for name, value in mapping.value(event).items():
        text = _text(value)
        if text is None:
            raise MappingFailed(f"{where}.{name} is neither text nor a number")
        if value is not None:
            found[name] = text
    return found


def _text(value: Any) -> str | None:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        # JSON does not tell 1.0 from 1.
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None
