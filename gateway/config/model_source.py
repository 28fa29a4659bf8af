"""`schedules:` and `streams:`: where events of asynchronous routes come from, beside requests."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from gateway.config.base import Model
from gateway.config.cron import Cron, Zone
from gateway.config.given_body import GivenBody
from gateway.config.model_route import FieldName, FieldValue, Method, PathTemplate
from gateway.config.store_url import StoreKind, StoreUrl, parse_store_url
from gateway.config.types import Count, Duration, Timeout, refuse

_DAY_S: Final = 86400.0


def _external(value: StoreUrl) -> StoreUrl:
    if value.kind is StoreKind.EMBEDDED:
        raise refuse("url", "a stream lives in a server of its own", "as in redis://host:6379")
    return value


def _key(value: str) -> str:
    if not value or len(value) > 512 or not value.isprintable():
        raise refuse("stream", "expected the key of a stream, as in erp.changes")
    return value


def _up_to_a_day(value: float) -> float:
    if value > _DAY_S:
        raise refuse("jitter", "must be at most 1d")
    return value


StreamUrl = Annotated[
    StoreUrl,
    BeforeValidator(parse_store_url),
    AfterValidator(_external),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Where the stream's server is: redis://, rediss://, unix://, "
            "redis+sentinel:// or redis+cluster://, as in store.url.",
            "pattern": r"^(?:rediss?|unix|redis\+sentinel|redis\+cluster)://.+$",
            "examples": ["redis://lockgate:${env:ERP_PASSWORD}@erp-bus:6379"],
        },
        mode="validation",
    ),
]
"""A `StoreUrl` of a server that others run."""

StreamKey = Annotated[str, AfterValidator(_key)]
"""The key of a stream."""


class MadeRequest(Model):
    """The request that an event begins as, where no client has made one."""

    method: Method | None = Field(
        default=None, description="The method; POST if the route takes it, else its first one."
    )
    path: PathTemplate | None = Field(
        default=None,
        description="The path, which the route must match; its match.path if that has no "
        "parameters.",
        examples=["/tenants/acme/sync"],
    )
    query: dict[str, str] = Field(default={}, description="Query parameters.")
    headers: dict[FieldName, FieldValue] = Field(default={}, description="Header fields.")


class ScheduledRequest(MadeRequest, GivenBody):
    """The request of a firing. Fields tell its target which schedule and which tick it was."""


class ScheduleConfig(Model):
    """A cron trigger: one event at each tick, however many gateways share the store."""

    cron: Cron = Field(description="When: a cron expression of five fields.")
    timezone: Zone = Field(default="UTC", description="The time zone that the fields are in.")
    route: str = Field(description="The asynchronous route that the events go to.")
    request: ScheduledRequest = Field(
        default_factory=ScheduledRequest, description="The request that each event begins as."
    )
    jitter: Annotated[Duration, AfterValidator(_up_to_a_day)] = Field(
        default=0.0,
        description="Spread firings over this long: each comes later by a part of it that its name "
        "and tick decide, the same one on all gateways.",
    )
    missed: Literal["skip", "one", "all"] = Field(
        default="one",
        description="What becomes of ticks that came more than a minute ago and were not fired: "
        "skip drops them, one fires the newest, all fires each of them, the newest 1000.",
    )
    enabled: bool = Field(
        default=True,
        description="false lets ticks pass; once it is true again, it counts from then.",
    )
    flag: str | None = Field(
        default=None,
        description="The flag, by its name under flags, that must be on for it to fire. Ticks that "
        "come meanwhile pass.",
    )


class StreamConfig(Model):
    """A stream of another Redis or Valkey server, whose entries become events of a route."""

    url: StreamUrl = Field(description="The server.")
    stream: StreamKey = Field(description="The key of the stream.", examples=["erp.changes"])
    group: StreamKey = Field(
        default="lockgate",
        description="The consumer group, made if it is not there. All gateways share its entries.",
    )
    route: str = Field(description="The asynchronous route that the events go to.")
    begin: Literal["new", "beginning"] = Field(
        default="new",
        alias="from",
        description="Where a group that has to be made begins: at entries that are new then, or at "
        "the stream's beginning.",
    )
    field: str | None = Field(
        default=None,
        min_length=1,
        description="The field of an entry that is the event's body, as it stands. Without it, and "
        "without body, the body is a JSON object of all fields.",
    )
    body: Any = Field(
        default=None,
        description="A JSON body made of the entry: strings that begin with = are CEL expressions "
        "over entry.id, entry.stream and entry.fields.",
        examples=[{"order_id": "=entry.fields.id", "source": "erp"}],
    )
    content_type: FieldValue = Field(
        default="application/json", description="The Content-Type of the event's request."
    )
    request: MadeRequest = Field(
        default_factory=MadeRequest,
        description="The request that each event begins as. Header fields whose value begins with "
        "= are CEL expressions as in body.",
    )
    batch: Count = Field(default=100, le=10_000, description="Entries that are read at once.")
    claim_after: Timeout = Field(
        default=60.0,
        ge=1,
        description="How long an entry may be with a consumer that has not confirmed it before "
        "another gateway takes it over.",
    )
    enabled: bool = Field(default=True, description="false leaves the stream alone.")
    flag: str | None = Field(
        default=None,
        description="The flag, by its name under flags, that must be on for it to be read.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> StreamConfig:
        if self.field is not None and self.body is not None:
            raise refuse("stream", "field and body can't both be given")
        return self
