"""The `upstreams:` section: the services behind the gateway and how they are reached."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from gateway.config.base import Model
from gateway.config.model_balance import Balance, HealthConfig, OutliersConfig
from gateway.config.types import (
    ConfigPath,
    Count,
    Duration,
    Percent,
    TargetUrl,
    Timeout,
    Whole,
    refuse,
)


def _or_bare_url(schema: dict[str, Any]) -> None:
    """Let editors take a bare URL for a target, as the validator does."""
    mapping = {**schema}
    url = {key: schema["properties"]["url"][key] for key in ("type", "pattern", "examples")}
    schema.clear()
    schema.update(anyOf=[url, mapping], description=mapping.pop("description"))


class TargetConfig(Model):
    """One address of an upstream. A bare URL stands for a target of weight 1."""

    model_config = ConfigDict(json_schema_extra=_or_bare_url)

    url: TargetUrl = Field(description="Where the target is.")
    weight: Whole = Field(
        default=1, ge=0, le=1000, description="Its share of the traffic; 0 takes none."
    )
    priority: Whole = Field(
        default=0,
        ge=0,
        le=100,
        description="0 is used first; a higher number only while too few of the lower ones are "
        "healthy. Needs health or outliers.",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class ConnectionsConfig(Model):
    """The pool of connections to each target."""

    max: Count = Field(
        default=256, description="Connections open at once to one target, for each worker."
    )
    keep_alive: Duration = Field(
        default=60.0,
        description="How long an idle connection is kept. Choose less than the target keeps it.",
    )


class UpstreamTls(Model):
    """TLS towards the targets whose URL says https."""

    ca: ConfigPath | None = Field(
        default=None, description="The authorities to trust, PEM; the system's if left out."
    )
    cert: ConfigPath | None = Field(default=None, description="The client certificate, PEM.")
    key: ConfigPath | None = Field(default=None, description="Its private key, PEM.")
    server_name: str | None = Field(
        default=None,
        min_length=1,
        description="The name to ask for and to verify; the URL's host if left out.",
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> UpstreamTls:
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise refuse("tls", f"{given} needs {missing} as well")
        return self


class UpstreamConfig(Model):
    """A service that requests are forwarded to."""

    targets: list[TargetConfig] = Field(
        min_length=1, description="Its addresses: URLs, or URLs with a weight."
    )
    balance: Balance = Field(default="round_robin", description="How a target is chosen.")
    health: HealthConfig | None = Field(
        default=None, description="Active checks; left out, there are none."
    )
    outliers: OutliersConfig | None = Field(
        default=None, description="Ejection of targets whose requests fail; left out, none is."
    )
    slow_start: Duration = Field(
        default=10.0,
        description="The time over which a target that comes back gets its share of the traffic, "
        "from a tenth to all of it; 0s for at once.",
    )
    panic: Percent = Field(
        default=0.25,
        description="If less than this share of the targets' weight is healthy, all are used; "
        "0% never, and if none is left the answer is 503.",
    )
    connect_timeout: Timeout = Field(default=1.0, description="Opening a connection, TLS included.")
    connections: ConnectionsConfig = Field(
        default_factory=ConnectionsConfig, description="The pool of connections."
    )
    tls: UpstreamTls | None = Field(
        default=None, description="TLS towards the targets whose URL says https."
    )
    policies: dict[str, SerializeAsAny[BaseModel] | None] = Field(
        default_factory=dict,
        description="Filled by the loader: policies that every route to it starts from.",
    )

    @model_validator(mode="after")
    def _some_target_takes_traffic(self) -> UpstreamConfig:
        if all(target.weight == 0 for target in self.targets):
            raise refuse("targets", "every target has weight 0, so none would take a request")
        return self

    @model_validator(mode="after")
    def _priorities_work(self) -> UpstreamConfig:
        levels = {target.priority for target in self.targets}
        if len(levels) > 1 and self.health is None and self.outliers is None:
            raise refuse("targets", "priority needs health or outliers: else nothing fails over")
        return self
