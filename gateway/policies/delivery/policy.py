"""The policy of an asynchronous route: keeps the event, answers 202, and has it delivered.

Innermost in admission, so whatever a route asks of a request has been asked before it is kept. What
stands behind it in the order is the chain that delivers, made once for each target.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from gateway.config.model_route import MatchConfig, RespondConfig, RouteConfig
from gateway.delivery.event import as_json
from gateway.delivery.intake import CannotOrder, Intake, KeyReused
from gateway.delivery.plan import LanePlan
from gateway.delivery.reception import Receipt
from gateway.delivery.status import read, status_of
from gateway.delivery.waiting import Waiting
from gateway.errors import (
    IDEMPOTENCY_KEY_REUSED,
    INVALID_BODY,
    STORE_FULL,
    STORE_UNAVAILABLE,
    UPGRADE_REFUSED,
    ConfigError,
    Refused,
    Rejection,
    StoreError,
)
from gateway.message import NOTHING_REPEATS, Exchange, Handler, RawHeaders, Response
from gateway.observability.delivery import ACCEPTED
from gateway.policies.base import Around, BuildContext
from gateway.policies.delivery.config import EVENT_ID, DeliveryConfig, StatusConfig
from gateway.policies.delivery.plans import (
    build_intake,
    build_plans,
    build_route_plan,
    open_alerts,
)
from gateway.policies.delivery.sources import Sources
from gateway.request_key import FIELD, BadKey, read_field
from gateway.routing.template import Template
from gateway.store.base import ReplyError

logger = logging.getLogger("gateway.delivery")

_BODY: Final = 10 * 1024 * 1024
_RETRY_AFTER: Final = (b"retry-after", b"2")
_STATUS_POLICY: Final = "delivery_status"
# A status asks for no body and needs none of what stands between admission and acceptance.
_NOT_FOR_STATUS: Final = frozenset(
    {"body", "cache", "delivery", "idempotency", "rate_limit", "validate"}
)
_WAIT: Final = re.compile(r"(?:^|[,;]\s*)wait\s*=\s*\"?(\d{1,6})\"?(?:$|[\s,;])", re.IGNORECASE)


class DeliveryPolicy(Around):
    """Keeps events. `plans` are how they are delivered, one for each target."""

    name: ClassVar[str] = "delivery"
    Config: ClassVar[type[DeliveryConfig]] = DeliveryConfig
    ends: ClassVar[bool] = True
    switchable: ClassVar[bool] = False

    def __init__(self, config: DeliveryConfig, context: BuildContext) -> None:
        self._route = context.route
        self._dispatcher = context.dispatcher()
        alerts = open_alerts(config, context, self._dispatcher)
        self._plans: Sequence[LanePlan] = build_plans(config, context, self._dispatcher, alerts)
        self._intake: Intake = build_intake(config, context, self._dispatcher, alerts)
        self._plan = build_route_plan(config, context, self._intake)
        self._counts = context.metrics.counts(ACCEPTED)
        self._sources = Sources(config, context, self._dispatcher, self._intake, self._count)
        self._waiting = Waiting(self._dispatcher, context.clock.monotonic)
        self._longest_wait = config.wait
        self._body_limit = context.server.limits.body or _BODY
        route = context.config.routes_by_name.get(context.route)
        self._status = _status_template(route, config) if route is not None else None

    @classmethod
    def build(cls, config: DeliveryConfig, context: BuildContext) -> DeliveryPolicy:
        """Make the chain to each target. Raises ConfigError."""
        return cls(config, context)

    @classmethod
    def companion(cls, route: RouteConfig, config: DeliveryConfig) -> RouteConfig | None:
        """The route that tells how far an event is, behind the same policies."""
        path = _status_path(route, config)
        if path is None:
            return None
        policies = {
            name: each for name, each in route.policies.items() if name not in _NOT_FOR_STATUS
        }
        policies[_STATUS_POLICY] = StatusConfig(of=route.name)
        return RouteConfig(
            name=f"{route.name}.status",
            match=MatchConfig(
                host=route.match.host, path=path, methods=["GET"], headers=route.match.headers
            ),
            respond=RespondConfig(status=404),
            enabled=route.enabled,
            policies=policies,
            plugins=route.plugins,
        )

    async def start(self) -> None:
        """Begin to deliver."""
        self._dispatcher.adopt(self._plan)
        for plan in self._plans:
            self._dispatcher.offer(plan)
        await self._sources.start()

    async def aclose(self) -> None:
        """End what was begun with these plans."""
        await self._sources.aclose()
        self._dispatcher.release(self._plan)
        for plan in self._plans:
            await self._dispatcher.withdraw(plan)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Keep the event. Raises Refused: 422 if it can't be ordered, 503 or 507 if not kept.

        `forward` is never called: what stands further in belongs to the delivery.
        """
        if exchange.subprotocols is not None:
            raise Refused(Rejection(UPGRADE_REFUSED))
        request = exchange.request
        body = await request.read_body(self._body_limit)
        invalid = exchange.invalid
        key = self._key(exchange)
        try:
            receipt = await self._intake.keep(
                exchange,
                body,
                key=key,
                repeats=exchange.repeats or NOTHING_REPEATS,
                also=exchange.repeats_also or NOTHING_REPEATS,
                invalid=invalid,
            )
        except KeyReused:
            detail = "this key was used for another request"
            raise self._refusal(Rejection(IDEMPOTENCY_KEY_REUSED, detail)) from None
        except CannotOrder as reason:
            raise self._refusal(Rejection(INVALID_BODY, str(reason))) from None
        except StoreError as error:
            raise self._refusal(_not_kept(error)) from error
        self._count(receipt)
        return await self._answer(exchange, receipt)

    def _key(self, exchange: Exchange) -> str:
        if FIELD not in exchange.request.headers:
            return ""
        try:
            return read_field(exchange.request.headers) or ""
        except BadKey:
            # Nobody asked for one on this route, so a bad one is no reason to refuse the event.
            return ""

    def _count(self, receipt: Receipt) -> None:
        result = "quarantined" if receipt.quarantined else "accepted"
        self._counts.add(self._route, "duplicate" if receipt.duplicate else result)

    def _refusal(self, rejection: Rejection) -> Refused:
        self._counts.add(self._route, rejection.kind.code)
        return Refused(rejection)

    async def _answer(self, exchange: Exchange, receipt: Receipt) -> Response:
        headers: RawHeaders = [(b"content-type", b"application/json")]
        url = ""
        if self._status is not None:
            url = self._status.expand({**exchange.raw_params, EVENT_ID: receipt.id})
            headers.append((b"location", url.encode("ascii")))
        wait = self._wanted_wait(exchange)
        if wait is not None:
            headers.append((b"preference-applied", b"wait=%d" % wait))
            stored = await self._waiting.until_settled(receipt.id, wait)
            if stored is not None and stored.settled:
                return _json(200, headers, as_json(status_of(stored)))
        body: dict[str, Any] = {
            "event_id": receipt.id,
            "state": "quarantined" if receipt.quarantined else "accepted",
            "correlation_id": exchange.correlation_id,
        }
        if receipt.duplicate:
            body["duplicate"] = True
        if url:
            body["status_url"] = url
        if receipt.targets:
            body["targets"] = dict(receipt.targets)
        return _json(202, headers, as_json(body))

    def _wanted_wait(self, exchange: Exchange) -> int | None:
        """What `Prefer: wait` asks for (RFC 7240 section 4.3), as far as granted, in seconds."""
        value = exchange.request.headers.get(b"prefer")
        if value is None or not self._longest_wait:
            return None
        found = _WAIT.search(value.decode("latin-1"))
        return None if found is None else min(int(found[1]), int(self._longest_wait))


def _status_path(route: RouteConfig, config: DeliveryConfig) -> str | None:
    if config.status is not None or "status" in config.model_fields_set:
        return config.status
    path = route.match.path
    if ":path}" in path or "{" + EVENT_ID + "}" in path:
        # Nothing can stand behind it, or the name is taken.
        return None
    return f"{path.rstrip('/')}/{{{EVENT_ID}}}"


def _status_template(route: RouteConfig, config: DeliveryConfig) -> Template | None:
    path = _status_path(route, config)
    if path is None:
        return None
    template, match = Template(path), Template(route.match.path)
    unknown = template.singles.keys() - match.singles.keys() - {EVENT_ID}
    if template.rest or unknown:
        name = template.rest or min(unknown)
        message = f"{{{name}}} is no parameter of {route.match.path}, so nobody could be told"
        raise ConfigError(message, "status")
    return template


def _not_kept(error: StoreError) -> Rejection:
    if isinstance(error, ReplyError) and error.code == "OOM":
        return Rejection(STORE_FULL, "the event was not kept", [_RETRY_AFTER])
    if isinstance(error, ReplyError) and not error.unavailable:
        logger.error("the store refused to keep an event: %s", error.reply)
    detail = f"{error.detail}: send the event again"
    return Rejection(STORE_UNAVAILABLE, detail, [_RETRY_AFTER])


def _json(status: int, headers: RawHeaders, body: bytes) -> Response:
    headers.append((b"content-length", b"%d" % len(body)))
    return Response(status, headers, body)


class DeliveryStatusPolicy(Around):
    """Tells how far an event is, to whoever sent it."""

    name: ClassVar[str] = _STATUS_POLICY
    Config: ClassVar[type[StatusConfig]] = StatusConfig
    ends: ClassVar[bool] = True
    switchable: ClassVar[bool] = False

    def __init__(self, of: str, context: BuildContext) -> None:
        self._of = of
        self._queue = context.dispatcher().queue

    @classmethod
    def build(cls, config: StatusConfig, context: BuildContext) -> DeliveryStatusPolicy:
        """Keep the name of the route whose events are meant."""
        return cls(config.of, context)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """The status as JSON. Raises Refused: 404 for no such event, 503 without the store."""
        event_id = exchange.params.get(EVENT_ID, "")
        try:
            stored = read(event_id, await self._queue.fields(event_id))
        except StoreError as error:
            raise Refused(Rejection(STORE_UNAVAILABLE, error.detail, [_RETRY_AFTER])) from error
        except msgspec.MsgspecError:
            stored = None
        consumer = exchange.principal.consumer if exchange.principal is not None else ""
        # Somebody else's event is not there, whoever asks.
        if stored is None or stored.head.route != self._of or stored.head.consumer != consumer:
            return await forward(exchange)
        headers: RawHeaders = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
        ]
        return _json(200, headers, as_json(status_of(stored)))
