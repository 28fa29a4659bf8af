"""How events come in that no client has sent: those of schedules and streams.

They go through what a route asks of the content of a request, and not through what it asks of a
caller. What does not pass is kept all the same, as a dead letter: there is nobody to refuse it to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.delivery.intake import CannotOrder, Intake
from gateway.delivery.reception import Receipt
from gateway.errors import INVALID_BODY, Refused, Rejection
from gateway.message import Exchange, Handler, Headers, RawHeaders, Request, Response
from gateway.observability.trace import IdSource, join


@dataclass(frozen=True, slots=True)
class Blank:
    """The request that each event of a source begins as. `raw_params` are still encoded, `query` is
    without its question mark, names of `headers` are in lower case.
    """

    route: str
    method: str
    path: str
    query: bytes
    host: str
    params: Mapping[str, str]
    raw_params: Mapping[str, str]
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def fill(self, body: bytes, headers: RawHeaders, now: float) -> Exchange:
        """The exchange of one event; `now` is monotonic seconds."""
        fields = Headers([*self.headers, *headers])
        request = Request(self.method, self.path, self.query, fields, self.host)
        request.body = body
        exchange = Exchange(request, now)
        exchange.route = self.route
        exchange.params, exchange.raw_params = self.params, self.raw_params
        return exchange


async def pass_on(exchange: Exchange) -> Response:
    """What stands behind the checks: whatever gets here has passed them."""
    del exchange
    return Response(204, [])


class Entrance:
    """Lets events of one route in. `checks` ends in `pass_on`; `count` is told of each event."""

    def __init__(
        self,
        intake: Intake,
        checks: Handler,
        ids: IdSource,
        generation: Callable[[], int],
        count: Callable[[Receipt], None],
    ) -> None:
        self._intake = intake
        self._checks = checks
        self._ids = ids
        self._generation = generation
        self._count = count

    async def admit(
        self,
        exchange: Exchange,
        origin: str,
        key: str,
        known: tuple[str, float],
        invalid: Rejection | None = None,
    ) -> Receipt:
        """Keep the event, durably. With `invalid` nothing more is asked of it.

        `key` is its idempotency key, which depends on nothing but where it came from; `known` is
        what tells its repetitions, and for how many seconds. Raises StoreError, after which it may
        have been kept.
        """
        exchange.generation = self._generation()
        exchange.trace = join(exchange.request.headers, self._ids)
        try:
            judged = await self.judge(exchange)
        except Exception:
            if invalid is None:
                raise
            judged = None
        if not exchange.correlation_id:
            # The route gives no ids, but what happens to the event has to be found by one.
            exchange.correlation_id = self._ids.take()[:32]
        invalid = invalid or judged
        body = exchange.request.body or b""
        repeats = (*known, "")
        try:
            receipt = await self._intake.keep(
                exchange, body, key=key, repeats=repeats, origin=origin, invalid=invalid
            )
        except CannotOrder as error:
            invalid = Rejection(INVALID_BODY, str(error))
            receipt = await self._intake.keep(
                exchange, body, key=key, repeats=repeats, origin=origin, invalid=invalid
            )
        self._count(receipt)
        return receipt

    async def judge(self, exchange: Exchange) -> Rejection | None:
        """What the route's checks have against it, or None."""
        try:
            response = await self._checks(exchange)
        except Refused as error:
            return error.rejection
        if response.error is None:
            return exchange.invalid
        return Rejection(response.error, exchange.error_detail, extensions=_extensions(response))


def _extensions(response: Response) -> Mapping[str, object]:
    """What a problem says beyond its kind: which places of the body are wrong."""
    problem = json.loads(response.body or b"{}")
    return {name: problem[name] for name in ("violations", "violations_total") if name in problem}
