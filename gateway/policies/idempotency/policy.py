"""idempotency: a request that is sent twice is carried out once, and answered alike.

The first request with a key claims its record in the store, is carried out, and leaves its answer
there before the client gets it; later ones are given that answer. Should the client leave, the call
is finished all the same and its answer stored: the client will come back for it. What a record
says is decided in `record.py`, where a key comes from in `key.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field, field_validator

from gateway.config.base import RefusingPolicyConfig
from gateway.config.model_route import Method
from gateway.config.types import Size, Timeout, refuse
from gateway.errors import (
    IDEMPOTENCY_CONFLICT,
    IDEMPOTENCY_KEY_INVALID,
    IDEMPOTENCY_KEY_MISSING,
    IDEMPOTENCY_KEY_REUSED,
    STORE_UNAVAILABLE,
    ErrorCode,
    Refused,
    Rejection,
    StoreError,
)
from gateway.message import Exchange, Handler, Request, Response
from gateway.observability.families import IDEMPOTENCY
from gateway.policies.base import Around, BuildContext
from gateway.policies.idempotency.ledger import Claim, Ledger
from gateway.policies.idempotency.record import (
    Answer,
    Claimed,
    fingerprint,
    is_final,
    storable_headers,
)
from gateway.request_key import FIELD, BadKey, Facts, KeyRule, read_field

logger = logging.getLogger("gateway.idempotency")

REPLAYED: Final = (b"idempotent-replayed", b"true")
_RETRY_AFTER: Final = (b"retry-after", b"1")
# While another exchange carries the request out, its record is looked at again after this long.
_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 0.5
_BODY: Final = 10 * 1024 * 1024


class IdempotencyConfig(RefusingPolicyConfig):
    """Requests that are carried out once, however often they are sent."""

    key: str = Field(
        default="header",
        description="Where a request's key comes from: header (Idempotency-Key), body.<field>, "
        "headers.<name>, query.<name>, params.<name>, or hash(...) of several of them.",
        examples=["header", "body.event_id", "hash(headers.X-Event-Id, body.order_id)"],
    )
    ttl: Timeout = Field(default=86400.0, description="How long an answer is kept.")
    required: bool = Field(
        default=False, description="Whether a request without a key is refused (400)."
    )
    methods: list[Method] = Field(
        default=["POST", "PATCH"],
        min_length=1,
        description="The methods it is for. PUT and DELETE are idempotent by themselves.",
    )
    in_progress: Literal["refuse", "wait"] = Field(
        default="refuse",
        description="What a request meets while the first one with its key is under way: 409, or "
        "waiting for that one's answer.",
    )
    wait: Timeout = Field(default=10.0, description="The longest wait; then it is refused.")
    lease: Timeout = Field(
        default=15.0,
        description="How long the claim of a gateway that died stands in the way of a new try.",
    )
    max_answer: Size = Field(
        default=1024 * 1024,
        description="The largest answer that is kept. The call of a larger one is not repeated "
        "either, but its answer can't be given again (409).",
    )

    @field_validator("key")
    @classmethod
    def _key_is_a_rule(cls, value: str) -> str:
        try:
            KeyRule(value)
        except ValueError as error:
            raise refuse("key", str(error)) from None
        return value


class IdempotencyPolicy(Around):
    """Claims, carries out, stores; or replays."""

    name: ClassVar[str] = "idempotency"
    Config: ClassVar[type[IdempotencyConfig]] = IdempotencyConfig

    def __init__(self, config: IdempotencyConfig, context: BuildContext) -> None:
        self._config = config
        self._route = context.route
        self._methods = frozenset(config.methods)
        route = context.config.routes_by_name.get(context.route)
        # Such a route keeps the first event of a key, and tells by itself which are repetitions.
        self._asynchronous = route is not None and "delivery" in route.policies
        self._rule = KeyRule(config.key)
        self._ledger = Ledger(context.store(), context.route, config.lease, config.ttl)
        self._wall = context.clock.wall
        self._now = context.clock.monotonic
        self._body_limit = context.server.limits.body or _BODY
        self._counts = context.metrics.counts(IDEMPOTENCY)
        # Calls that go on without their client.
        self._detached: set[asyncio.Task[Any]] = set()

    @classmethod
    def build(cls, config: IdempotencyConfig, context: BuildContext) -> IdempotencyPolicy:
        """Compile the rule for keys; the store is the configuration's."""
        return cls(config, context)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Carry the request out, or answer as it was answered before.

        Raises Refused: 400 without a usable key, 422 if the key was another request's, 409 while
        that one is under way, 503 without the store.
        """
        request = exchange.request
        if request.method not in self._methods or exchange.subprotocols is not None:
            return await forward(exchange)
        if exchange.invalid is not None:
            # It is kept to be looked at, not carried out; its key may be what is invalid.
            return await forward(exchange)
        body = await request.read_body(self._body_limit)
        key = self._key(exchange, body)
        if key is None:
            return await forward(exchange)
        print_ = self._fingerprint(request, body)
        consumer = exchange.principal.consumer if exchange.principal is not None else ""
        if self._asynchronous:
            exchange.repeats_also = exchange.repeats
            exchange.repeats = (f"key\n{consumer}\n{key}", self._config.ttl, print_.hex())
            self._tell_key(request, key)
            return await forward(exchange)
        claim = self._ledger.claim(consumer, key, print_)
        answer = await self._settle(claim)
        if answer is not None:
            return self._replay(answer)
        self._tell_key(request, key)
        return await self._start(exchange, forward, claim)

    def _tell_key(self, request: Request, key: str) -> None:
        if not self._rule.from_header and FIELD not in request.headers:
            # The upstream may want to tell repetitions too, and a retry must show that it is one.
            request.headers.add(FIELD, b'"%b"' % _visible(key))

    def _fingerprint(self, request: Request, body: bytes) -> bytes:
        # A derived key is made of what identifies the event; what else its sender writes, such as
        # the number of the attempt, may differ from one delivery to the next.
        if not self._rule.from_header:
            return fingerprint(request.method, request.path, b"", b"", b"")
        kind = request.headers.get(b"content-type") or b""
        return fingerprint(request.method, request.path, request.query, kind, body)

    def _key(self, exchange: Exchange, body: bytes) -> str | None:
        """The request's key, or None if it has none and needs none."""
        request = exchange.request
        try:
            if self._rule.from_header:
                key = read_field(request.headers)
            else:
                data = msgspec.json.decode(body) if self._rule.needs_body else None
                facts = Facts(request.headers, request.query, exchange.params, data)
                key = self._rule.derive(facts)
        except BadKey as error:
            raise self._refusal(IDEMPOTENCY_KEY_INVALID, str(error)) from None
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            detail = "the idempotency key is made of the body, which is no JSON"
            raise self._refusal(IDEMPOTENCY_KEY_INVALID, detail) from None
        if key is None and self._config.required:
            detail = "send an Idempotency-Key, and the same one when you repeat the request"
            raise self._refusal(IDEMPOTENCY_KEY_MISSING, detail)
        return key

    async def _settle(self, claim: Claim) -> Answer | None:
        """The answer that is there already, or None once the claim is ours."""
        until = self._now() + self._config.wait
        pause = _FIRST_LOOK_S
        while True:
            try:
                found = await self._ledger.take(claim)
            except StoreError as error:
                detail = f"{error.detail}: without it nobody knows whether this was done before"
                raise self._refusal(STORE_UNAVAILABLE, detail, retry=True) from error
            if found is None:
                return None
            if found.fingerprint != claim.fingerprint:
                detail = "this key was used for another request"
                raise self._refusal(IDEMPOTENCY_KEY_REUSED, detail)
            if not isinstance(found, Claimed):
                return found.answer
            if self._config.in_progress == "refuse" or self._now() + pause > until:
                detail = "the first request with this key is under way"
                raise self._refusal(IDEMPOTENCY_CONFLICT, detail, retry=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_LOOK_S)

    def _replay(self, answer: Answer) -> Response:
        if answer.body is None:
            detail = "this request was carried out; its answer was too large to be kept"
            raise self._refusal(IDEMPOTENCY_CONFLICT, detail)
        self._count("replayed")
        return Response(answer.status, [*answer.headers, REPLAYED], answer.body)

    async def _start(self, exchange: Exchange, forward: Handler, claim: Claim) -> Response:
        """Carry the request out in a task that outlives a client that leaves."""
        task = asyncio.get_running_loop().create_task(self._carry_out(exchange, forward, claim))
        exchange.work = task
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        try:
            response = await asyncio.shield(task)
        except asyncio.CancelledError:
            if exchange.client_gone:
                # A task nobody waits for: what it gives back has to be let go of.
                task.add_done_callback(_close_result)
            else:
                task.cancel()
            raise
        finally:
            # A call that goes on without its client is still what the deadline has to end.
            if task.done():
                exchange.work = None
        return response

    async def _carry_out(self, exchange: Exchange, forward: Handler, claim: Claim) -> Response:
        renewal = self._ledger.keep(claim)
        kept = False
        try:
            response = await forward(exchange)
            if not is_final(response.status):
                return response
            response, answer = await self._collect(response)
            kept = True
            self._count("executed")
            await self._ledger.complete(claim, answer)
            return response
        finally:
            renewal.cancel()
            if not kept:
                self._count("released")
                # Cancelled or not, the next try must not wait for the lease to lapse.
                await asyncio.shield(self._ledger.give_back(claim))

    async def _collect(self, response: Response) -> tuple[Response, Answer]:
        """The answer whole, and what is stored of it. Raises UpstreamError if it breaks off."""
        status, limit = response.status, self._config.max_answer
        headers = storable_headers(response.headers)
        body = response.body
        if body is None and response.stream is not None and not _is_endless(response):
            pieces: list[bytes] = []
            size = 0
            try:
                async for piece in response.stream:
                    pieces.append(piece)
                    size += len(piece)
                    if size > limit:
                        response.stream = _rejoin(pieces, response.stream)
                        break
                else:
                    body = b"".join(pieces)
            except BaseException:
                response.close()
                raise
        if body is not None and response.body is None:
            whole = Response(status, response.headers, body)
            whole.trailers = response.trailers
            response.close()
            response = whole
        stored = body if body is not None and len(body) <= limit else None
        return response, Answer(status, headers, stored, self._wall())

    def _refusal(self, kind: ErrorCode, detail: str, *, retry: bool = False) -> Refused:
        self._count(kind.code)
        return Refused(Rejection(kind, detail, [_RETRY_AFTER] if retry else []))

    def _count(self, result: str) -> None:
        self._counts.add(self._route, result)

    async def aclose(self) -> None:
        """Wait for the calls whose clients have left; their deadlines bound that."""
        if self._detached:
            await asyncio.wait(self._detached)


def _close_result(task: asyncio.Task[Response]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _rejoin(pieces: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    pieces.clear()
    async for piece in rest:
        yield piece


def _is_endless(response: Response) -> bool:
    kind = next((value for name, value in response.headers if name == b"content-type"), b"")
    return kind.lower().startswith(b"text/event-stream")


def _visible(key: str) -> bytes:
    """A derived key as the content of a quoted string: what is not printable ASCII is hashed."""
    if key.isascii() and key.isprintable() and not set(key) & {'"', "\\"}:
        return key.encode()
    return fingerprint("", key, b"", b"", b"").hex().encode()
