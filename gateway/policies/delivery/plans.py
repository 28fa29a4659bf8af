"""From the configuration of an asynchronous route to the plans of its lanes and its intake."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Final

from gateway.config.store_url import StoreUrl
from gateway.delivery.alerts import Alerts
from gateway.delivery.callback import CallbackTarget
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.intake import Intake
from gateway.delivery.mapping import BODY_ROOTS, Mapping
from gateway.delivery.plan import LanePlan, RoutePlan
from gateway.delivery.queue import CALLBACK
from gateway.delivery.queued import NO_RATE, Lane, Rate
from gateway.delivery.reception import IntakeOptions, Receiver
from gateway.delivery.sign import Signer
from gateway.delivery.streams.target import AppendOptions, StreamTarget
from gateway.delivery.target import CallOptions, HttpTarget, Target
from gateway.errors import ConfigError
from gateway.expressions import Expression
from gateway.observability.trace import IdSource
from gateway.policies.base import BuildContext, Judge, judge_key
from gateway.policies.delivery.config import DeliveryConfig, StreamTargetConfig, TargetConfig
from gateway.policies.delivery.flow_config import FLOW
from gateway.policies.delivery.flow_plan import build_flow, retry_rule
from gateway.request_key import KeyRule
from gateway.store.base import Store
from gateway.store.opening import open_server

# A delivery is repeated by its own rule, which is durable; nobody waits for a faster answer.
_WITHOUT: Final = ("retry", "hedge")


def open_alerts(
    config: DeliveryConfig, context: BuildContext, dispatcher: Dispatcher
) -> Alerts | None:
    """Who tells of the route's dead letters; None if nobody is to be told. Raises ConfigError."""
    if not config.dead_letter.alert:
        return None
    told = context.telemetry.alerts
    if told is None:
        raise ConfigError(
            "nobody is named to be told: telemetry.alerts.webhook is missing", "dead_letter.alert"
        )
    client = context.http()
    # The client stays as it is for all configurations, the dispatcher does not.
    alerts: Alerts = context.shared(
        ("alerts", told.webhook, id(dispatcher)),
        lambda: Alerts(
            told.webhook, client, dispatcher.queue, context.clock.monotonic, context.metrics
        ),
    )
    return alerts


def build_plans(
    config: DeliveryConfig,
    context: BuildContext,
    dispatcher: Dispatcher,
    alerts: Alerts | None = None,
) -> list[LanePlan]:
    """One plan for each target, and one for the callback. Raises ConfigError."""
    signer = _signer(config)
    plans: list[LanePlan] = []
    for position, each in enumerate(_targets(config)):
        name = name_of(each, context)
        if any(plan.lane.target == name for plan in plans):
            message = f'another target has the name "{name}" as well: give one of them a name'
            raise ConfigError(message, f"to[{position}]")
        if each.stream is not None:
            target = _stream_target(each, each.stream, position, context)
        else:
            target = _http_target(each, position, context, signer)
        plans.append(_plan(name, target, config, context, alerts))
    if config.flow is not None:
        flow = build_flow(config, context, signer, _WITHOUT)
        plan = _plan(FLOW, flow, config, context, alerts)
        # The flow keeps the time itself, for it has to undo what was done when that is over.
        plans.append(replace(plan, rule=replace(plan.rule, max_total=math.inf)))
    if config.callback is not None:
        told = CallbackTarget(
            config.callback.url, context.http(), dispatcher.queue, signer, context.clock
        )
        plans.append(_plan(CALLBACK, told, config, context, alerts))
    return plans


def build_intake(
    config: DeliveryConfig,
    context: BuildContext,
    dispatcher: Dispatcher,
    alerts: Alerts | None = None,
) -> Intake:
    """What keeps the route's events. Raises ConfigError."""
    secret = context.telemetry.redact.headers if config.credentials == "drop" else []
    receivers = [
        Receiver(name_of(each, context), Expression(each.when, BODY_ROOTS) if each.when else None)
        for each in _targets(config)
    ]
    if config.flow is not None:
        receivers.append(Receiver(FLOW))
    options = IntakeOptions(
        route=context.route,
        receivers=receivers,
        ordered_by=KeyRule(config.ordered_by) if config.ordered_by else None,
        secret_fields=frozenset(name.lower().encode("latin-1") for name in secret),
        callback=CALLBACK if config.callback is not None else "",
        keep=config.keep,
        on_dead=alerts.dead if alerts is not None else None,
    )
    return Intake(options, dispatcher, context.clock.wall)


def build_route_plan(config: DeliveryConfig, context: BuildContext, intake: Intake) -> RoutePlan:
    """How the route's events are looked after."""
    letters = config.dead_letter
    # What the route asks of a body, if it keeps what breaks it.
    judge: Judge | None = context.shared(judge_key(context), lambda: None)
    return RoutePlan(
        route=context.route,
        retention=letters.retention,
        most=letters.max,
        order=intake.order if config.ordered_by else None,
        review=judge.review if judge is not None else None,
        secret_fields=frozenset(
            name.lower().encode("latin-1") for name in context.telemetry.redact.headers
        ),
    )


def name_of(target: TargetConfig, context: BuildContext) -> str:
    """The name of a target in queues, metrics and dead letters."""
    return target.label or context.upstream


def _targets(config: DeliveryConfig) -> list[TargetConfig]:
    return config.to or ([] if config.flow is not None else [TargetConfig()])


def _http_target(
    config: TargetConfig, position: int, context: BuildContext, signer: Signer | None
) -> Target:
    upstream = config.upstream or context.upstream
    if not upstream:
        raise ConfigError("names no upstream, and the route has none", f"to[{position}]")
    field = f"to[{position}].upstream"
    try:
        send = context.forward_to("delivery", field, upstream, _WITHOUT, path=config.path)
    except ConfigError as error:
        if config.path is not None and error.path == "rewrite.path":
            raise ConfigError(error.message, f"to[{position}].path") from error
        raise
    ids: IdSource = context.shared(("trace ids",), lambda: IdSource(context.random))
    mapping = Mapping(config.body) if config.body is not None else None
    options = CallOptions(method=config.method or "", mapping=mapping, signer=signer)
    return HttpTarget(send, options, context.clock, ids)


def _stream_target(
    config: TargetConfig, stream: StreamTargetConfig, position: int, context: BuildContext
) -> Target:
    try:
        server = open_stream_server(stream.url, context)
    except ConfigError as error:
        raise ConfigError(error.message, f"to[{position}].stream.url") from None
    ids: IdSource = context.shared(("trace ids",), lambda: IdSource(context.random))
    options = AppendOptions(
        stream.stream,
        stream.maxlen or 0,
        tuple(name.lower() for name in stream.headers),
        Mapping(config.body) if config.body is not None else None,
    )
    return StreamTarget(server, options, context.clock, ids)


def open_stream_server(url: StoreUrl, context: BuildContext) -> Store:
    """The server that has a stream, the same one for all that read there or append."""
    server: Store = context.shared(
        ("stream server", url),
        lambda: open_server(url, f"the server of streams at {url}", context.clock, context.random),
    )
    return server


def _signer(config: DeliveryConfig) -> Signer | None:
    if config.sign is None:
        return None
    try:
        return Signer(config.sign.secrets)
    except ValueError as error:
        raise ConfigError(str(error), "sign.secret") from None


def _plan(
    name: str,
    target: Target,
    config: DeliveryConfig,
    context: BuildContext,
    alerts: Alerts | None,
) -> LanePlan:
    rule = retry_rule(config.attempts, config.max_total, config.schedule, config.backoff)
    rate = NO_RATE
    if config.rate is not None:
        every = config.rate.period_us / config.rate.count / 1_000_000
        # What a second allows may come at once, and at least one.
        rate = Rate(every, max(1, round(1 / every)) if every < 1 else 1)
    return LanePlan(
        lane=Lane(context.route, name),
        target=target,
        rule=rule,
        concurrency=config.concurrency,
        rate=rate,
        lease=config.lease,
        keep=config.keep,
        on_dead=partial(alerts.dead, name) if alerts is not None else None,
    )
