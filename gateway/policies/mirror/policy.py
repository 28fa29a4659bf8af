"""mirror: a share of the requests is copied to another upstream, and the two answers compared.

The copy leaves once the head of the client's answer is there, in a task that nobody waits for. It
is bounded in number, size and time; what does not fit is dropped and counted. So a mirror that is
slow, dead or wrong is no matter of the client's. Its request was taken before the upstream's
credentials were written, and what stands between it and its upstream is that upstream's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import ClassVar, Final

from gateway.errors import ConfigError
from gateway.message import Exchange, Handler, Headers, RawHeaders, Request, Response
from gateway.observability.families import MIRROR, MIRROR_COMPARISONS
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.mirror import KEY
from gateway.policies.mirror.compare import Seen, compare
from gateway.policies.mirror.config import MirrorConfig
from gateway.policies.mirror.copies import Copies, call
from gateway.policies.mirror.decide import Patience
from gateway.policies.mirror.samples import Masking, MirrorSamples
from gateway.policies.mirror.tee import Tee

MARK: Final = b"x-lockgate-mirror"
# The mirror must not take the copy for the request itself: a key that it stored an answer under
# would be found by the real one after a switch.
_LEFT_OUT: Final = frozenset({MARK, b"idempotency-key", b"expect"})
# Another try, and another upstream, are for what somebody waits for; the time is the mirror's own.
_WITHOUT: Final = ("canary", "timeout", "retry", "hedge")


class MirrorPolicy(Around):
    """Copies requests behind their answers; `send` is the chain to the mirror."""

    name: ClassVar[str] = "mirror"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[MirrorConfig]] = MirrorConfig

    def __init__(self, config: MirrorConfig, context: BuildContext, send: Handler) -> None:
        self._send = send
        self._upstream = config.upstream
        self._route = context.route
        self._share = config.percent
        self._methods = frozenset(config.methods)
        self._limit = config.max_body
        self._rules = config.rules()
        self._copies = Copies(config.max_concurrent, config.timeout)
        self._patience = Patience()
        self._random: Random = context.random
        self._now = context.clock.monotonic
        self._wall = context.clock.wall
        self._counts = context.metrics.counts(MIRROR)
        self._verdicts = context.metrics.counts(MIRROR_COMPARISONS)
        self._masking = Masking(context.telemetry.redact)
        self._samples: MirrorSamples = context.shared(
            (KEY, context.route, config.upstream),
            lambda: MirrorSamples(context.route, config.upstream),
        )

    @classmethod
    def build(cls, config: MirrorConfig, context: BuildContext) -> MirrorPolicy:
        """Have the chain to the mirror made. Raises ConfigError if there is nothing to copy."""
        if not context.upstream:
            raise ConfigError("needs an upstream beside it, whose requests are copied")
        if config.upstream == context.upstream:
            raise ConfigError("is the upstream that the route has anyway", "upstream")
        send = context.forward_to(cls.name, "upstream", config.upstream, _WITHOUT)
        return cls(config, context, send)

    def handle(self, exchange: Exchange, forward: Handler) -> Awaitable[Response]:
        """Forward, and copy the request if it is one of those. Raises what `forward` raises."""
        # No coroutine of its own where nothing is to be done behind the answer.
        if not self._takes(exchange):
            return forward(exchange)
        if self._patience.waits(self._now()):
            self._count("paused")
            return forward(exchange)
        if self._copies.is_full:
            # There may be room by the time of the answer, but a mirror that never answers must not
            # cost what keeping a copy for it costs.
            self._count("dropped")
            return forward(exchange)
        return self._forward_and_copy(exchange, forward)

    async def _forward_and_copy(self, exchange: Exchange, forward: Handler) -> Response:
        request = exchange.request
        # Further in, fields are written that are not for the mirror.
        fields = [pair for pair in request.headers.raw if pair[0] not in _LEFT_OUT]
        tee: Tee | None = None
        if request.body is None and request.stream is not None:
            request.stream = tee = Tee(request.stream, self._limit)
        response = await forward(exchange)
        body = request.body if tee is None else tee.whole()
        if body is None or len(body) > self._limit:
            self._count("too_large")
        elif exchange.upstream == self._upstream:
            self._count("same_upstream")
        elif self._copies.is_full:
            self._count("dropped")
        elif not self._patience.allows(self._now()):
            self._count("paused")
        else:
            self._copy(exchange, fields, body, response)
        return response

    def _takes(self, exchange: Exchange) -> bool:
        request = exchange.request
        return (
            request.method in self._methods
            and exchange.subprotocols is None
            # A copy is not copied again, whichever gateways it passes.
            and MARK not in request.headers.index
            and (self._share >= 1.0 or self._random.random() < self._share)
        )

    def _count(self, result: str) -> None:
        self._counts.add(self._route, result)

    def _copy(
        self, exchange: Exchange, fields: RawHeaders, body: bytes, response: Response
    ) -> None:
        twin = _twin(exchange, Headers([*fields, (MARK, b"1")]), body, self._now())
        primary = self._watch(response)
        self._copies.begin(self._work(twin, primary), self._ended)

    def _ended(self, result: str) -> None:
        self._count(result)
        if result != "cancelled":
            self._patience.ended(result == "answered", self._now())

    def _watch(self, response: Response) -> Seen | asyncio.Future[Seen]:
        """The client's answer: now, or when its body has ended."""
        status, headers, body, limit = response.status, response.headers, response.body, self._limit
        if body is not None or not self._rules.needs_body or response.stream is None:
            kept = body if body is not None and len(body) <= limit else None
            return Seen(status, headers, kept)
        tee = Tee(response.stream, limit)
        response.stream = tee
        seen: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()

        def ended() -> None:
            if not seen.done():
                seen.set_result(Seen(status, headers, tee.whole()))

        response.on_close(ended)
        return seen

    async def _work(self, twin: Exchange, primary: Seen | asyncio.Future[Seen]) -> None:
        mirrored = await call(twin, self._send, self._limit)
        if not isinstance(primary, Seen):
            primary = await primary
        verdict = compare(primary, mirrored, self._rules)
        self._verdicts.add(self._route, verdict.result)
        if verdict.differences:
            self._samples.add(
                self._wall(), twin.request, twin.correlation_id, verdict.differences, self._masking
            )

    async def aclose(self) -> None:
        """Cancel the copies under way."""
        await self._copies.aclose()


def _twin(exchange: Exchange, headers: Headers, body: bytes, now: float) -> Exchange:
    """An exchange of its own for the same request, without a client."""
    given = exchange.request
    request = Request(given.method, given.path, given.query, headers, given.host)
    request.body = body
    request.client, request.peer, request.port = given.client, given.peer, given.port
    request.scheme, request.http_version = given.scheme, given.http_version
    request.trusted, request.certificate = given.trusted, given.certificate
    twin = Exchange(request, now)
    twin.route, twin.generation = exchange.route, exchange.generation
    twin.params, twin.raw_params = exchange.params, exchange.raw_params
    twin.correlation_id, twin.trace = exchange.correlation_id, exchange.trace
    twin.principal = exchange.principal
    # Not even the pool tries another target.
    twin.attempts_left = 0
    return twin
