"""fault: delays, refusals, cut connections and broken bodies, for a share of the exchanges.

For rehearsals only, so it loads nowhere unless the environment says so. It stands outside of
everything that protects the call: what it does is seen by callers, while breakers and retries of
the upstream are left alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import ClassVar, Final

from pydantic import Field, ValidationInfo, model_validator

from gateway.config.base import Model, PolicyConfig
from gateway.config.model_route import FieldName, FieldValue
from gateway.config.types import Duration, Ratio, Size, Timeout, Whole, refuse
from gateway.errors import FAULT_INJECTED, GatewayError, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.observability.families import FAULTS
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.fault.decide import Share, decide

ALLOWED_BY: Final = "GATEWAY_ALLOW_FAULTS"
MARK: Final = b"x-lockgate-fault"
_YES: Final = frozenset({"1", "true", "yes", "on"})
_ALWAYS: Final = 1.0


class DelayFault(Model):
    """The answer is late."""

    for_s: Timeout = Field(alias="for", description="How late.")
    jitter: Duration = Field(default=0.0, description="Up to this much later still, at random.")
    percent: Ratio = Field(default=_ALWAYS, description="The share of exchanges that are late.")


class AbortFault(Model):
    """The upstream is not called, and the answer is a failure."""

    status: Whole = Field(default=503, ge=400, le=599, description="The status of the answer.")
    percent: Ratio = Field(default=_ALWAYS, description="The share of exchanges that fail.")


class ResetFault(Model):
    """The connection is reset without an answer."""

    percent: Ratio = Field(default=_ALWAYS, description="The share of exchanges that are reset.")


class TruncateFault(Model):
    """The answer's body breaks off."""

    after: Size = Field(default=0, description="How much of the body still comes.")
    percent: Ratio = Field(default=_ALWAYS, description="The share of answers that break off.")


class SlowFault(Model):
    """The answer's body drips."""

    rate: Size = Field(ge=1, description="Bytes a second.")
    percent: Ratio = Field(default=_ALWAYS, description="The share of answers that drip.")


class FaultWhen(Model):
    """Which exchanges are in for it; all that is given must hold."""

    header: FieldName | None = Field(default=None, description="A field that must be there.")
    value: FieldValue | None = Field(default=None, description="Its value; any if left out.")
    consumer: str | None = Field(default=None, description="The consumer's name.")


class FaultConfig(PolicyConfig):
    """Trouble made on purpose. Only where GATEWAY_ALLOW_FAULTS=1 is set."""

    delay: DelayFault | None = Field(default=None, description="Late answers.")
    abort: AbortFault | None = Field(default=None, description="Failures.")
    reset: ResetFault | None = Field(default=None, description="Cut connections.")
    truncate: TruncateFault | None = Field(default=None, description="Bodies that break off.")
    slow: SlowFault | None = Field(default=None, description="Bodies that drip.")
    when: FaultWhen = Field(
        default_factory=FaultWhen, description="Which exchanges; every one if left out."
    )

    @model_validator(mode="after")
    def _only_where_allowed(self, info: ValidationInfo) -> FaultConfig:
        environ = info.context.get("environ", {}) if isinstance(info.context, dict) else {}
        if environ.get(ALLOWED_BY, "").lower() not in _YES:
            hint = f"set {ALLOWED_BY}=1 in the environment of a rehearsal"
            raise refuse("fault", "faults are not allowed in this environment", hint)
        if sum(each.share for each in self.shares()) > 1.0 + 1e-9:
            raise refuse("fault", "abort, reset, truncate and slow add up to more than 100%")
        return self

    def shares(self) -> list[Share]:
        """The kinds that exclude each other; a delay can come before any of them."""
        kinds = (
            ("abort", self.abort), ("reset", self.reset), ("truncate", self.truncate),
            ("slow", self.slow),
        )  # fmt: skip
        return [Share(kind, fault.percent) for kind, fault in kinds if fault is not None]


class FaultPolicy(Around):
    """Makes the trouble that the draw says."""

    name: ClassVar[str] = "fault"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[FaultConfig]] = FaultConfig

    def __init__(self, config: FaultConfig, context: BuildContext) -> None:
        self._config = config
        self._route = context.route
        self._random: random.Random = context.random
        self._shares = config.shares()
        self._counts = context.metrics.counts(FAULTS)
        when = config.when
        self._header = when.header.lower().encode("ascii") if when.header else None
        self._value = when.value.encode("latin-1", "replace") if when.value is not None else None

    @classmethod
    def build(cls, config: FaultConfig, context: BuildContext) -> FaultPolicy:
        """Keep the shares and the condition."""
        return cls(config, context)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward, with or without trouble. Every answer that had some says so in a field.

        Raises GatewayError (FAULT_INJECTED) for an abort, with the status that was asked for.
        """
        if not self._concerns(exchange):
            return await forward(exchange)
        delay = self._config.delay
        if delay is not None and self._random.random() < delay.percent:
            self._note(exchange, "delay")
            await asyncio.sleep(delay.for_s + delay.jitter * self._random.random())
        kind = decide(self._shares, self._random.random()) if self._shares else ""
        if not kind:
            return await forward(exchange)
        self._note(exchange, kind)
        if kind == "abort":
            return self._abort(exchange)
        if kind == "reset":
            return await _reset(exchange)
        return self._spoil(await forward(exchange), kind)

    def _concerns(self, exchange: Exchange) -> bool:
        if self._header is not None:
            sent = exchange.request.headers.get(self._header)
            if sent is None or (self._value is not None and sent != self._value):
                return False
        consumer = self._config.when.consumer
        if consumer is None:
            return True
        return exchange.principal is not None and exchange.principal.consumer == consumer

    def _note(self, exchange: Exchange, kind: str) -> None:
        self._counts.add(self._route, kind)
        exchange.reply_headers.append((MARK, kind.encode()))

    def _abort(self, exchange: Exchange) -> Response:
        abort = self._config.abort
        status = abort.status if abort is not None else FAULT_INJECTED.status
        detail = "this failure was made on purpose by the route's fault policy"
        response = exchange.refuse(Rejection(FAULT_INJECTED, detail))
        response.status = status
        return response

    def _spoil(self, response: Response, kind: str) -> Response:
        stream = response.stream if response.body is None else _whole(response.body)
        if stream is None:
            return response
        truncate, slow = self._config.truncate, self._config.slow
        if kind == "truncate" and truncate is not None:
            stream = _truncated(stream, truncate.after)
        elif slow is not None:
            stream = _slow(stream, slow.rate)
        # The framing of the whole answer stays, so that the client can tell what is missing.
        spoiled = Response(response.status, response.headers, None, stream)
        spoiled.trailers = response.trailers
        spoiled.on_close(response.close)
        return spoiled


async def _reset(exchange: Exchange) -> Response:
    if exchange.cut is not None:
        exchange.cut()
        await asyncio.sleep(0)
    # On a server that can't cut a connection: an answer that ends before its first byte.
    return Response(200, [(b"content-length", b"1")], None, _truncated(_whole(b"."), 0))


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _truncated(stream: AsyncIterator[bytes], left: int) -> AsyncIterator[bytes]:
    async for piece in stream:
        if left:
            yield piece[:left]
            left = max(0, left - len(piece))
        if not left:
            break
    raise GatewayError(FAULT_INJECTED, "the body was cut on purpose")


async def _slow(stream: AsyncIterator[bytes], rate: int) -> AsyncIterator[bytes]:
    # Ten steps a second, or one byte at a time if that is slower.
    step = max(1, rate // 10)
    async for piece in stream:
        for start in range(0, len(piece), step):
            await asyncio.sleep(step / rate)
            yield piece[start : start + step]
