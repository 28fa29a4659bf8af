"""From the configuration of a flow to the target that takes its steps."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, Final

import msgspec

from gateway.delivery.flow.answers import FLOW_ROOTS
from gateway.delivery.flow.call import Caller, CallPlan
from gateway.delivery.flow.machine import Outline, StepRule
from gateway.delivery.flow.target import FlowTarget, StepPlan
from gateway.delivery.mapping import Mapping
from gateway.delivery.outcome import RetryRule
from gateway.delivery.sign import Signer
from gateway.errors import ConfigError
from gateway.expressions import Expression
from gateway.observability.trace import IdSource
from gateway.policies.base import BuildContext
from gateway.policies.delivery.config import DeliveryConfig
from gateway.policies.delivery.flow_config import (
    BackoffConfig,
    CompensateConfig,
    FlowCallConfig,
    StepConfig,
    needs_of,
)
from gateway.routing.template import Template, TemplateError

_LONGEST_S: Final = 300.0


def build_flow(
    config: DeliveryConfig, context: BuildContext, signer: Signer | None, without: tuple[str, ...]
) -> FlowTarget:
    """The target that takes the steps of `config.flow`. Policies `without` are not on the way to
    upstreams. Raises ConfigError.
    """
    assert config.flow is not None
    needs = needs_of(config.flow)
    rules, steps = [], {}
    way = partial(_call, context, without)
    for position, step in enumerate(config.flow):
        place = f"flow[{position}]"
        keeps = needs[step.name]
        undo = step.compensate
        rules.append(
            StepRule(
                step.name,
                _retry(step, config),
                _retry(undo, config) if undo is not None else None,
                when_unsure=undo is not None and undo.when_unsure,
                waits=step.wait is not None,
                keeps=keeps,
            )
        )
        steps[step.name] = StepPlan(
            step.name,
            call=None if step.wait is not None else way(step, step.upstream, place, keeps),
            wait=_wait(step),
            when=_expression(step.when),
            undo=way(undo, undo.upstream or step.upstream, f"{place}.compensate")
            if undo is not None
            else None,
        )
    ids: IdSource = context.shared(("trace ids",), lambda: IdSource(context.random))
    caller = Caller(context.clock, ids, signer)
    outline = Outline(tuple(rules), _digest(config.flow), config.max_total)
    return FlowTarget(outline, steps, caller, context.random, context.metrics)


def _digest(flow: list[StepConfig]) -> str:
    """What tells a definition from another one."""
    data: Any = [step.model_dump(mode="json") for step in flow]
    return hashlib.sha256(msgspec.json.encode(data, order="deterministic")).hexdigest()[:32]


def _wait(step: StepConfig) -> float | Expression:
    if isinstance(step.wait, str):
        return Expression(step.wait[1:], FLOW_ROOTS)
    return step.wait or 0.0


def _expression(text: str | None) -> Expression | None:
    return Expression(text, FLOW_ROOTS) if text is not None else None


def _call(
    context: BuildContext,
    without: tuple[str, ...],
    config: FlowCallConfig,
    named: str | None,
    place: str,
    keeps: frozenset[str] = frozenset(),
) -> CallPlan:
    upstream = named or context.upstream
    if not upstream:
        raise ConfigError("names no upstream, and the route has none", place)
    path = _path(config, place, context)
    # A path with parameters of the step's own is filled in by the step, and nothing rewrites it.
    rewritten = "" if config.params else config.path
    send = context.forward_to("delivery", f"{place}.upstream", upstream, without, path=rewritten)
    no_body = config.body is None and "body" in config.model_fields_set
    return CallPlan(
        send,
        method=config.method or "",
        path=path if config.params else None,
        params=_mapping(config.params),
        query=Mapping(config.query, FLOW_ROOTS) if config.query is not None else None,
        headers=_mapping(config.headers),
        body=Mapping(config.body, FLOW_ROOTS) if config.body is not None else None,
        no_body=no_body,
        expect=frozenset(config.expect),
        until=_expression(config.until) if isinstance(config, StepConfig) else None,
        keeps=keeps,
        limit=config.timeout or _LONGEST_S,
    )


def _mapping(texts: dict[str, str]) -> Mapping | None:
    return Mapping(texts, FLOW_ROOTS) if texts else None


def _path(config: FlowCallConfig, place: str, context: BuildContext) -> Template | None:
    route = context.config.routes_by_name.get(context.route)
    if config.path is None:
        if config.params:
            raise ConfigError("there is no path that these could stand in", f"{place}.params")
        return None
    try:
        path = Template(config.path)
        of_route = Template(route.match.path) if route is not None else Template("/")
    except TemplateError as error:
        raise ConfigError(error.reason, f"{place}.path") from error
    unknown = [name for name in path.singles if name not in {*config.params, *of_route.singles}]
    if path.rest and path.rest != of_route.rest:
        unknown.append(path.rest)
    if unknown:
        message = f"{{{unknown[0]}}} is no parameter of {of_route.text}, and none of params"
        raise ConfigError(message, f"{place}.path")
    unused = [name for name in config.params if name not in path.singles]
    if unused:
        raise ConfigError(f"the path has no {{{unused[0]}}}", f"{place}.params.{unused[0]}")
    return path


def _retry(config: StepConfig | CompensateConfig, delivery: DeliveryConfig) -> RetryRule:
    """The step's own rule, filled up with the delivery's."""
    own = config.retry
    attempts = own.attempts or delivery.attempts
    schedule, backoff = own.schedule, own.backoff
    if schedule is None and backoff is None:
        schedule, backoff = delivery.schedule, delivery.backoff
    return retry_rule(attempts, delivery.max_total, schedule, backoff)


def retry_rule(
    attempts: int, max_total: float, schedule: list[float] | None, backoff: BackoffConfig | None
) -> RetryRule:
    """The rule as the machine has it. Times are seconds."""
    if schedule is not None:
        return RetryRule(attempts, max_total, schedule=tuple(schedule))
    if backoff is None:
        return RetryRule(attempts, max_total)
    return RetryRule(
        attempts,
        max_total,
        base=backoff.base,
        factor=backoff.factor,
        longest=backoff.max,
        jitter=backoff.jitter == "full",
    )
