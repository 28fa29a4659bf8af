"""The schedules and streams of a route, from their configuration to what runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Mapping as MappingType
from typing import Any, Final, TypeVar

from gateway.config.model_route import RouteConfig
from gateway.config.model_source import ScheduleConfig, StreamConfig
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.entrance import Entrance, pass_on
from gateway.delivery.event import SCHEDULE_FIELD, TICK_FIELD
from gateway.delivery.intake import Intake
from gateway.delivery.mapping import Mapping
from gateway.delivery.reception import Receipt
from gateway.delivery.schedules.book import make_key
from gateway.delivery.schedules.due import Rule
from gateway.delivery.schedules.ticks import Ticks
from gateway.delivery.schedules.timetable import Schedule, Timetable
from gateway.delivery.streams.group import Reading
from gateway.delivery.streams.reader import StreamPlan
from gateway.delivery.streams.readers import Readers
from gateway.delivery.streams.shape import ENTRY_ROOTS, Shape
from gateway.errors import ConfigError, Rejection
from gateway.expressions import ExpressionError
from gateway.message import Exchange, RawHeaders
from gateway.observability.trace import IdSource
from gateway.policies.base import BuildContext
from gateway.policies.delivery.blank import make_blank
from gateway.policies.delivery.config import DeliveryConfig
from gateway.policies.delivery.plans import open_stream_server

_BODY: Final = 10 * 1024 * 1024
S = TypeVar("S", ScheduleConfig, StreamConfig)
# What is asked of the content of a request, and gives it its id.
_CHECKS: Final = ("correlation", "validate")


class Sources:
    """What the policy of one route starts and ends with itself."""

    def __init__(
        self,
        config: DeliveryConfig,
        context: BuildContext,
        dispatcher: Dispatcher,
        intake: Intake,
        count: Callable[[Receipt], None],
    ) -> None:
        """Raises ConfigError, at the schedule's or the stream's own place."""
        self._route = context.route
        self._runs = context.server.deliver
        self._timetable = open_timetable(context, dispatcher)
        self._schedules: list[Schedule] = []
        self._readers: Readers | None = None
        self._streams: list[StreamPlan] = []
        route = context.config.routes_by_name.get(context.route)
        schedules = _of_route(context.config.schedules, context.route)
        streams = _of_route(context.config.streams, context.route)
        if route is None or not (schedules or streams):
            return
        entrance = _entrance(context, intake, count)
        self._schedules = [
            _schedule(name, each, route, context, entrance) for name, each in schedules.items()
        ]
        if streams:
            ordered = config.ordered_by is not None
            self._streams = [
                _stream(name, each, route, context, entrance, ordered=ordered)
                for name, each in streams.items()
            ]
            self._readers = open_readers(context, dispatcher)

    async def start(self) -> None:
        """Begin to make events, in a process that delivers them too."""
        if not self._runs:
            return
        self._timetable.offer(self._route, self._schedules)
        if self._readers is not None:
            for plan in self._streams:
                self._readers.offer(plan)

    async def aclose(self) -> None:
        """Make none any more."""
        self._timetable.withdraw(self._route, self._schedules)
        if self._readers is not None:
            for plan in self._streams:
                await self._readers.withdraw(plan)


def _of_route(sources: MappingType[str, S], route: str) -> dict[str, S]:
    return {name: each for name, each in sources.items() if each.route == route and each.enabled}


def open_timetable(context: BuildContext, dispatcher: Dispatcher) -> Timetable:
    """The schedules of this process and store."""
    timetable: Timetable = context.shared(
        ("schedules", dispatcher),
        lambda: Timetable(dispatcher.queue, context.clock, context.random, context.metrics),
    )
    dispatcher.listings["schedules"] = timetable.listing
    return timetable


def open_readers(context: BuildContext, dispatcher: Dispatcher) -> Readers:
    """The streams that this process reads into this store."""
    readers: Readers = context.shared(
        ("streams", dispatcher),
        lambda: Readers(dispatcher.queue, context.clock, context.random, context.metrics),
    )
    dispatcher.listings["streams"] = readers.listing
    return readers


def _entrance(context: BuildContext, intake: Intake, count: Callable[[Receipt], None]) -> Entrance:
    ids: IdSource = context.shared(("trace ids",), lambda: IdSource(context.random))
    checks = context.only(_CHECKS, pass_on)
    return Entrance(intake, checks, ids, lambda: context.metrics.config_generation, count)


def _schedule(
    name: str,
    config: ScheduleConfig,
    route: RouteConfig,
    context: BuildContext,
    entrance: Entrance,
) -> Schedule:
    place = f"schedules.{name}.request"
    body, kind = config.request.encoded()
    headers = dict(config.request.headers)
    if kind and not any(field.lower() == "content-type" for field in headers):
        headers["content-type"] = kind
    blank = make_blank(config.request, route, place, headers)
    ticks = Ticks(config.cron, config.timezone)
    rule = Rule(name, ticks, config.missed, config.jitter)

    def make(tick: float, now: float) -> Exchange:
        fields: RawHeaders = [
            (SCHEDULE_FIELD, name.encode()),
            (TICK_FIELD, ticks.shown(tick).encode()),
        ]
        return blank.fill(body, fields, now)

    rejection = _at_once(entrance.judge(make(0.0, 0.0)))
    if rejection is not None:
        raise ConfigError(_complaint(route.name, rejection), place, whole=True)
    return Schedule(
        route=route.name,
        key=make_key(name, config.cron, config.timezone),
        rule=rule,
        make=make,
        entrance=entrance,
        is_on=_switch("schedules", name, config.flag, context),
    )


def _switch(
    section: str, name: str, flag: str | None, context: BuildContext
) -> Callable[[Exchange], bool]:
    """Whether the flag is on, if there is one."""
    if flag is None:
        return lambda _: True
    try:
        return context.flag(flag).is_on
    except ConfigError as error:
        raise ConfigError(error.message, f"{section}.{name}.flag", whole=True) from None


def _stream(
    name: str,
    config: StreamConfig,
    route: RouteConfig,
    context: BuildContext,
    entrance: Entrance,
    *,
    ordered: bool,
) -> StreamPlan:
    given = dict(config.request.headers)
    made = {key: value for key, value in given.items() if value.startswith("=")}
    plain = {key: value for key, value in given.items() if key not in made}
    headers = _mapping(made or None, f"streams.{name}.request.headers")
    body = _mapping(config.body, f"streams.{name}.body")
    try:
        server = open_stream_server(config.url, context)
    except ConfigError as error:
        raise ConfigError(error.message, f"streams.{name}.url", whole=True) from None
    shape = Shape(
        name=name,
        stream=config.stream,
        blank=make_blank(config.request, route, f"streams.{name}.request", plain),
        content_type=config.content_type.encode("latin-1", "replace"),
        field=config.field.encode() if config.field is not None else None,
        body=body,
        headers=headers,
        limit=context.server.limits.body or _BODY,
    )
    reading = Reading(
        server, config.stream, config.group, config.begin, config.batch, config.claim_after
    )
    switch = _switch("streams", name, config.flag, context)

    def is_on() -> bool:
        return switch(shape.blank.fill(b"", [], 0.0))

    return StreamPlan(name, route.name, reading, shape, entrance, ordered, is_on)


def _mapping(template: Any, place: str) -> Mapping | None:
    try:
        return None if template is None else Mapping(template, ENTRY_ROOTS)
    except ExpressionError as error:
        raise ConfigError(str(error), place, whole=True) from None


def _at_once(judged: Awaitable[Rejection | None]) -> Rejection | None:
    """What the checks say of a whole request, for which they have nothing to wait for."""
    steps = judged.__await__()
    try:
        next(steps)
    except StopIteration as end:
        found: Rejection | None = end.value
        return found
    # A plugin or a flag that asks somebody: it is asked again at each firing.
    steps.close()
    return None


def _complaint(route: str, rejection: Rejection) -> str:
    shown: Any = rejection.extensions.get("violations") or []
    first = shown[0] if shown and isinstance(shown[0], dict) else {}
    where = f"{first.get('pointer') or '/'}: {first.get('message', '')}" if first else ""
    detail = where or rejection.detail or rejection.kind.title
    return f"the route {route} would refuse this request: {detail}"
