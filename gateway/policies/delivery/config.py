"""What can be said of an asynchronous route, and of the route that tells how far its events are."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from gateway.config.base import Model, PolicyConfig
from gateway.config.model_route import FieldName, Method, PathTemplate
from gateway.config.model_source import StreamKey, StreamUrl
from gateway.config.rates import SteadyRate
from gateway.config.types import (
    NAME_PATTERN,
    Count,
    Duration,
    Name,
    Secret,
    Timeout,
    refuse,
)
from gateway.delivery.mapping import BODY_ROOTS, Mapping
from gateway.delivery.queue import CALLBACK
from gateway.expressions import Expression, ExpressionError
from gateway.policies.delivery.flow_config import FLOW, BackoffConfig, Flow, check_waits
from gateway.request_key import KeyRule

EVENT_ID = "event_id"


def _expression(value: str) -> str:
    try:
        Expression(value, BODY_ROOTS)
    except ExpressionError as error:
        raise refuse("expression", str(error)) from None
    return value


def _template(value: Any) -> Any:
    try:
        Mapping(value)
    except ExpressionError as error:
        raise refuse("expression", str(error)) from None
    return value


Condition = Annotated[str, AfterValidator(_expression)]
Template = Annotated[Any, AfterValidator(_template)]


class StreamTargetConfig(Model):
    """A stream of another Redis or Valkey server, to which each event is appended (XADD)."""

    url: StreamUrl = Field(description="The server.")
    stream: StreamKey = Field(description="The key of the stream.", examples=["orders.accepted"])
    maxlen: Count | None = Field(
        default=None,
        description="Keep the stream at about so many entries; without it, it grows.",
    )
    headers: list[FieldName] = Field(
        default=[],
        description="Header fields of the event that become fields of the entry, in lower case.",
    )


class TargetConfig(Model):
    """Where a route's events go: one of several places, each of which succeeds or fails alone."""

    name: Name | None = Field(
        default=None,
        description="Its name in metrics, audit and dead letters; that of its upstream if left "
        "out.",
    )
    upstream: Name | None = Field(
        default=None, description="The upstream; the route's own if left out."
    )
    stream: StreamTargetConfig | None = Field(
        default=None, description="A stream to append to, instead of an upstream."
    )
    path: PathTemplate | None = Field(
        default=None,
        description="The path to ask for, instead of the route's rewrite.path; it may use the "
        "parameters of match.path.",
    )
    method: Method | None = Field(
        default=None, description="The method; that of the event's request if left out."
    )
    when: Condition | None = Field(
        default=None,
        description="A CEL expression over request, params, claims, consumer and body: only events "
        "that it holds for go there. One that it can't be asked of becomes a dead letter.",
        examples=["body.total > 100"],
    )
    body: Template = Field(
        default=None,
        description="A JSON body to send instead of the event's: strings that begin with = are CEL "
        "expressions over request, params, consumer and body.",
        examples=[{"id": "=body.order_id", "source": "lockgate"}],
    )

    @property
    def label(self) -> str:
        """Its name; empty for the route's own upstream without one."""
        stream = self.stream.stream if self.stream is not None else ""
        return self.name or self.upstream or stream

    @model_validator(mode="after")
    def _is_one_kind(self) -> TargetConfig:
        if self.label == CALLBACK:
            raise refuse("name", f'"{CALLBACK}" is the target that is told at the end')
        if self.stream is None:
            return self
        for key in ("upstream", "path", "method"):
            if getattr(self, key) is not None:
                raise refuse("to", f"stream and {key} can't both be given")
        if self.name is None and not re.fullmatch(NAME_PATTERN, self.label, re.ASCII):
            raise refuse("name", "the stream's key can't be the target's name", "give it a name")
        return self


def _target(value: Any) -> Any:
    return {"upstream": value} if isinstance(value, str) else value


TargetEntry = Annotated[
    TargetConfig, BeforeValidator(_target, json_schema_input_type=str | TargetConfig)
]


class DeadLetterConfig(Model):
    """What is kept of events that were given up."""

    retention: Timeout = Field(default=30 * 86400.0, description="How long they are kept.")
    max: Count = Field(
        default=1_000_000, description="How many of a route are kept; the oldest go first."
    )
    alert: bool = Field(
        default=False, description="Tell telemetry.alerts.webhook of events that are given up."
    )


class CallbackConfig(Model):
    """Who is told how an event ended, once all of its targets are settled."""

    url: str = Field(
        pattern=r"^https?://\S+$",
        description="It gets a POST with the event's status as JSON, repeated like a delivery.",
    )


class SigningConfig(Model):
    """Signatures by the Standard Webhooks specification, so that targets can prove the sender."""

    secret: Secret | list[Secret] = Field(
        description="The secret, whsec_ and base64 or any text. Of several each one signs, for "
        "changing over. Give it by reference.",
    )

    @property
    def secrets(self) -> list[str]:
        """All of them, readable."""
        given = self.secret if isinstance(self.secret, list) else [self.secret]
        return [each.get_secret_value() for each in given]


class DeliveryConfig(PolicyConfig):
    """An asynchronous route: 202 once the event is durable, then it is delivered to each target."""

    to: list[TargetEntry] = Field(
        default=[],
        description="The targets: names of upstreams, or mappings with more; the route's upstream "
        "if left out.",
        examples=[["orders", {"upstream": "crm", "path": "/inbox", "when": "body.total > 100"}]],
    )
    flow: Flow | None = Field(
        default=None,
        min_length=1,
        max_length=50,
        description="Steps that are taken one after another, each durable, and undone backwards if "
        "one is given up. A target of its own, beside those of to, with the name flow.",
        examples=[
            [
                {"name": "reserve", "upstream": "stock", "compensate": {"path": "/release"}},
                {"name": "charge", "upstream": "billing"},
            ]
        ],
    )
    attempts: Count = Field(default=5, description="Attempts for each target, the first included.")
    schedule: list[Duration] | None = Field(
        default=None,
        min_length=1,
        description="The waits between attempts; the last one holds for all that follow.",
        examples=[["1s", "5s", "30s", "5m"]],
    )
    backoff: BackoffConfig | None = Field(
        default=None, description="Waits that grow, instead of a schedule. The default."
    )
    max_total: Timeout = Field(
        default=86400.0,
        description="After this long no attempt is made any more: the event has expired.",
    )
    ordered_by: str | None = Field(
        default=None,
        description="What events have in common that must be delivered one after another: "
        "body.<field>, headers.<name>, query.<name>, params.<name>, or hash(...) of several. The "
        "next one goes when the one before it was delivered or given up.",
        examples=["body.order_id"],
    )
    concurrency: Count = Field(
        default=20, description="Deliveries to one target at once, for each process."
    )
    rate: SteadyRate | None = Field(
        default=None, description="The most to one target, over all gateways.", examples=["50/s"]
    )
    lease: Timeout = Field(
        default=30.0,
        ge=1,
        description="How long a worker may be silent before others take over its events.",
    )
    keep: Timeout = Field(
        default=3600.0,
        description="How long the status of a delivered event can be asked for. Its body is let go "
        "of at once.",
    )
    dead_letter: DeadLetterConfig = Field(
        default_factory=DeadLetterConfig, description="What is kept of events that were given up."
    )
    callback: CallbackConfig | None = Field(
        default=None, description="Who is told how an event ended."
    )
    sign: SigningConfig | None = Field(
        default=None, description="Sign what is sent, by the Standard Webhooks specification."
    )
    credentials: Literal["drop", "keep"] = Field(
        default="drop",
        description="drop keeps the fields of telemetry.redact.headers (authorization, cookies, "
        "API keys) out of the store, and so from the targets; keep stores and sends them.",
    )
    status: PathTemplate | None = Field(
        default=None,
        description="The path that tells how far an event is; it has the parameter {event_id}. If "
        "left out, the route's own path and /{event_id} behind it. null: none.",
        examples=["/events/{event_id}"],
    )
    wait: Duration = Field(
        default=30.0,
        description="The longest wait for the outcome that a sender may ask for with Prefer: "
        "wait=seconds.",
    )

    @property
    def upstreams(self) -> list[str]:
        """The upstreams of the targets; an empty name stands for the route's own."""
        found = [each.upstream or "" for each in self.to if each.stream is None]
        for step in self.flow or ():
            found += step.upstreams
        return found if self.to or self.flow else [""]

    @field_validator("ordered_by")
    @classmethod
    def _order_is_a_rule(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            fits = not KeyRule(value).from_header
        except ValueError:
            fits = False
        if not fits:
            message = "expected body.field, headers.Name, query.name, params.name, or hash(...)"
            raise refuse("ordered_by", message)
        return value

    @field_validator("status")
    @classmethod
    def _status_names_an_event(cls, value: str | None) -> str | None:
        if value is not None and value.count("{" + EVENT_ID + "}") != 1:
            raise refuse("status", "expected a path with {event_id}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> DeliveryConfig:
        if self.schedule is not None and self.backoff is not None:
            raise refuse("delivery", "schedule and backoff can't both be given")
        names = [each.label for each in self.to]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise refuse("to", "two targets have the same name", "give one of them a name")
        if self.flow is not None:
            if FLOW in names:
                raise refuse("to", f'"{FLOW}" is the name of the flow', "give the target another")
            check_waits(self.flow, self.max_total)
        return self


class StatusConfig(PolicyConfig):
    """The route that tells how far the events of another route are."""

    of: str = Field(description="The asynchronous route.")
