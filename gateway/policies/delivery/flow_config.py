"""What can be said of a flow: the steps that a route's events go through, one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.config.base import Model
from gateway.config.model_route import FieldName, Method, PathTemplate
from gateway.config.types import (
    DURATION_PATTERN,
    Count,
    Duration,
    Name,
    Timeout,
    format_duration,
    parse_duration,
    refuse,
)
from gateway.delivery.flow.answers import FLOW_ROOTS, STEPS, UnnamedStep, expressions_in, named_in
from gateway.delivery.mapping import Mapping
from gateway.expressions import Expression, ExpressionError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_OWN_FIELDS: Final = frozenset(
    {
        "connection", "content-length", "expect", "host", "idempotency-key", "keep-alive", "te",
        "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
        "x-lockgate-attempt", "x-lockgate-event",
    }
)  # fmt: skip
FLOW: Final = "flow"
"""The name of the flow among the targets of a route."""


def _step_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "a step's name begins with a letter and holds lower-case letters, digits and _"
        raise refuse("name", message)
    try:
        Expression(f"{STEPS}.{value}.status", FLOW_ROOTS)
    except ExpressionError:
        raise refuse("name", "expressions can't name a step like this") from None
    return value


def _expression(value: str) -> str:
    try:
        Expression(value, FLOW_ROOTS)
        list(named_in(value))
    except UnnamedStep:
        raise refuse("expression", "name the step, as in steps.reserve.body") from None
    except ExpressionError as error:
        raise refuse("expression", str(error)) from None
    return value


def _template(value: Any) -> Any:
    try:
        Mapping(value, FLOW_ROOTS)
    except ExpressionError as error:
        raise refuse("expression", str(error)) from None
    for text in expressions_in(value):
        _expression(text)
    return value


def _wait(value: Any) -> float | str:
    if isinstance(value, str) and value.startswith("="):
        _expression(value[1:])
        return value
    seconds = parse_duration(value)
    if seconds <= 0:
        raise refuse("positive", "must be more than zero")
    return seconds


def _headers(value: dict[str, str]) -> dict[str, str]:
    own = next((name for name in value if name.lower() in _OWN_FIELDS), None)
    if own is not None:
        raise refuse("header", f"the gateway writes {own} itself")
    if any(char in text for text in value.values() for char in "\r\n\0"):
        raise refuse("field_value", "a header field's value can't contain CR, LF or NUL")
    return value


StepName = Annotated[str, AfterValidator(_step_name)]
FlowCondition = Annotated[str, AfterValidator(_expression)]
FlowTemplate = Annotated[Any, AfterValidator(_template)]
Texts = Annotated[dict[str, str], AfterValidator(_template)]
FieldTexts = Annotated[dict[FieldName, str], AfterValidator(_headers), AfterValidator(_template)]
Wait = Annotated[
    float | str,
    BeforeValidator(_wait),
    WithJsonSchema({"type": "string", "pattern": f"{DURATION_PATTERN}|^="}, mode="validation"),
]


class BackoffConfig(Model):
    """Waits that grow: base, then factor times as much each time, up to max."""

    base: Timeout = Field(default=1.0, description="The wait before the second attempt.")
    factor: float = Field(
        default=2.0, ge=1, le=100, description="How much longer each next one is."
    )
    max: Timeout = Field(default=60.0, description="The longest wait.")
    jitter: Literal["full", "none"] = Field(
        default="full",
        description="full draws each wait between zero and what it would be, so that events that "
        "failed together do not come back together.",
    )


class StepRetryConfig(Model):
    """When a step is tried again. What is left out is as the delivery says."""

    attempts: Count | None = Field(
        default=None, description="Attempts, the first included; delivery.attempts if left out."
    )
    schedule: list[Duration] | None = Field(
        default=None,
        min_length=1,
        description="The waits between attempts; the last one holds for all that follow.",
        examples=[["1s", "5s", "30s"]],
    )
    backoff: BackoffConfig | None = Field(
        default=None, description="Waits that grow, instead of a schedule."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> StepRetryConfig:
        if self.schedule is not None and self.backoff is not None:
            raise refuse("retry", "schedule and backoff can't both be given")
        return self


class FlowCallConfig(Model):
    """A call to an upstream. Values that begin with = are CEL expressions over request, params,
    body, consumer and steps: what earlier steps answered.
    """

    upstream: Name | None = Field(
        default=None, description="The upstream; the route's own if left out."
    )
    method: Method | None = Field(
        default=None, description="The method; that of the event's request if left out."
    )
    path: PathTemplate | None = Field(
        default=None,
        description="The path to ask for; its parameters are those of match.path and of params. "
        "Without it the route's rewrite.path, or the path of the event.",
        examples=["/payments/{payment}/refund"],
    )
    params: Texts = Field(
        default={},
        description="Parameters of path: each stands for one segment, whatever is in it.",
        examples=[{"payment": "=steps.charge.body.id"}],
    )
    query: Texts | None = Field(
        default=None,
        description="The query, instead of the event's; null values are left out.",
        examples=[{"sku": "=body.sku"}],
    )
    headers: FieldTexts = Field(
        default={},
        description="Header fields beside, or instead of, those of the event.",
        examples=[{"X-Tenant": "=body.tenant"}],
    )
    body: FlowTemplate = Field(
        default=None,
        description="A JSON body: strings that begin with = are CEL expressions. Left out, it is "
        "the event's, but none for GET, HEAD and DELETE; null: none.",
        examples=[{"reservation": "=steps.reserve.body.id", "amount": "=body.total"}],
    )
    expect: list[Annotated[int, Field(ge=100, le=599)]] = Field(
        default=[],
        description="The statuses that mean success; any 2xx if left out.",
        examples=[[200, 404]],
    )
    timeout: Timeout | None = Field(
        default=None,
        description="The longest attempt; what the upstream and the route say holds as well.",
    )
    retry: StepRetryConfig = Field(
        default_factory=StepRetryConfig, description="When it is tried again."
    )

    def templates(self) -> Iterator[tuple[str, str]]:
        """All of its expressions, each with the key that it stands under."""
        for key in ("params", "query", "headers", "body"):
            for text in expressions_in(getattr(self, key)):
                yield key, text


class CompensateConfig(FlowCallConfig):
    """The call that undoes a step."""

    upstream: Name | None = Field(
        default=None, description="The upstream; that of the step if left out."
    )
    when_unsure: bool = Field(
        default=False,
        description="Undo the step also if it failed in a way that leaves open whether it was "
        "carried out: a timeout, a connection that broke off, a 5xx, a 2xx that is not expected.",
    )


class StepConfig(FlowCallConfig):
    """One step: a call, or a wait."""

    name: StepName = Field(
        description="Its name: what expressions call it by, and metrics, audit and status."
    )
    when: FlowCondition | None = Field(
        default=None,
        description="A CEL expression over request, params, body, consumer and steps: the step is "
        "left out if it does not hold.",
        examples=["steps.lookup.body.vip == true"],
    )
    until: FlowCondition | None = Field(
        default=None,
        description="What must hold of the answer, as steps.<own name>; otherwise the step is "
        "taken again, by its retry. For GET and HEAD.",
        examples=["steps.poll.body.state == 'ready'"],
    )
    wait: Wait | None = Field(
        default=None,
        description="Instead of a call: wait so long, or, with an expression, until its timestamp "
        "or for its duration or seconds.",
        examples=["10m", "=body.starts_at"],
    )
    compensate: CompensateConfig | None = Field(
        default=None, description="The call that undoes the step if a later one is given up."
    )

    @property
    def upstreams(self) -> list[str]:
        """The upstreams of its calls; an empty name stands for the route's own."""
        found = [] if self.wait is not None else [self.upstream or ""]
        if self.compensate is not None:
            found.append(self.compensate.upstream or self.upstream or "")
        return found

    @model_validator(mode="after")
    def _fits(self) -> StepConfig:
        if self.wait is not None:
            given = self.model_fields_set - {"name", "when", "wait"}
            if given:
                raise refuse("wait", f"a wait has no {min(given)}", "make two steps of it")
        elif self.until is not None and self.method not in ("GET", "HEAD"):
            raise refuse("until", "only GET and HEAD are asked again after they were answered")
        return self


def needs_of(flow: list[StepConfig]) -> dict[str, frozenset[str]]:
    """Which parts of each step's answer others need, by name. Raises ValueError for an expression
    about a step that does not come before it; the text says which.
    """
    needs: dict[str, frozenset[str]] = {}
    for step in flow:
        _note_needs(step, _of_step(step), needs)
        needs[step.name] = frozenset()
        if step.compensate is not None:
            _note_needs(step, step.compensate.templates(), needs, "compensate.")
        if step.until is not None:
            # Of its own answer all is there; of others what they keep.
            own = dict(needs)
            _note_needs(step, [("until", step.until)], own)
            needs |= {name: parts for name, parts in own.items() if name != step.name}
    return needs


def _of_step(step: StepConfig) -> Iterator[tuple[str, str]]:
    yield from step.templates()
    if step.when is not None:
        yield "when", step.when
    if isinstance(step.wait, str):
        yield "wait", step.wait[1:]


def _note_needs(
    step: StepConfig, texts: Any, needs: dict[str, frozenset[str]], prefix: str = ""
) -> None:
    for key, text in texts:
        for name, parts in named_in(text):
            if name not in needs:
                message = f'step "{step.name}": {prefix}{key} names "{name}", which is no step'
                raise ValueError(f"{message} before it")
            needs[name] |= parts


def _check(flow: list[StepConfig]) -> list[StepConfig]:
    names = [step.name for step in flow]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise refuse("flow", f'two steps are called "{twice}"')
    try:
        needs_of(flow)
    except ValueError as error:
        raise refuse("flow", str(error)) from None
    return flow


Flow = Annotated[list[StepConfig], AfterValidator(_check)]
"""Steps whose names are unique, and which name only those before them."""


def check_waits(flow: list[StepConfig], max_total: float) -> None:
    """Raises a refusal if the flow can't end in time."""
    waits = sum(step.wait for step in flow if isinstance(step.wait, float))
    if waits >= max_total:
        message = f"the waits of the flow take {format_duration(waits)}: max_total must be longer"
        raise refuse("flow", message)
