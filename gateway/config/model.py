"""The whole configuration as one frozen model: what the gateway is built from.

Here stand only shapes, defaults and what one section can check by itself. What one section says of
another (an upstream's name, a profile) is checked in `checks.py`; policies come from outside.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, Field, SerializeAsAny

from gateway.config.base import Model
from gateway.config.model_content import ConsumerConfig, ContractConfig, ModelConfig
from gateway.config.model_flag import FlagConfig
from gateway.config.model_identity import IdentityConfig
from gateway.config.model_route import (
    MatchConfig,
    PluginUse,
    RespondConfig,
    RewriteConfig,
    RewriteQuery,
    RouteConfig,
)
from gateway.config.model_server import (
    ServerConfig,
    ServerLimits,
    ServerTimeouts,
    ServerTls,
)
from gateway.config.model_source import ScheduleConfig, StreamConfig
from gateway.config.model_store import StoreConfig
from gateway.config.model_upstream import (
    ConnectionsConfig,
    TargetConfig,
    UpstreamConfig,
    UpstreamTls,
)
from gateway.config.types import Count, LogTarget, Name, Ratio, Timeout

__all__ = [
    "AccessLogConfig",
    "AuditConfig",
    "ConnectionsConfig",
    "ConsumerConfig",
    "ContractConfig",
    "GatewayConfig",
    "IdentityConfig",
    "MatchConfig",
    "ModelConfig",
    "PluginUse",
    "RedactConfig",
    "RespondConfig",
    "RewriteConfig",
    "RewriteQuery",
    "RouteConfig",
    "ScheduleConfig",
    "ServerConfig",
    "ServerLimits",
    "ServerTimeouts",
    "ServerTls",
    "StoreConfig",
    "StreamConfig",
    "TargetConfig",
    "TelemetryConfig",
    "UpstreamConfig",
    "UpstreamTls",
]


class AccessLogConfig(Model):
    """One line for every exchange."""

    format: Literal["json"] = Field(default="json", description="How a line is written.")
    sample: Ratio = Field(
        default=1.0,
        description="The share of exchanges that are logged. Failed ones (status 500 and above) "
        "always are.",
    )
    to: LogTarget = Field(
        default="stdout", description="Where lines go: stdout, stderr or the path of a file."
    )


class RedactConfig(Model):
    """What never shows in logs, traces or the admin API."""

    headers: list[str] = Field(
        default=["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"],
        description="Header fields whose values are replaced.",
    )
    query: list[str] = Field(
        default=["access_token", "api_key"],
        description="Query parameters whose values are replaced.",
    )
    fields: list[str] = Field(
        default=[], description="JSON fields whose values are replaced, such as $.password."
    )


class AuditConfig(Model):
    """The record of every automated action, in the store."""

    retention: Timeout = Field(default=30 * 86400.0, description="How long entries are kept.")
    max: Count = Field(
        default=5_000_000, description="How many entries are kept; the oldest go first."
    )


class AlertsConfig(Model):
    """Who is told of what somebody should look at."""

    webhook: str = Field(
        pattern=r"^https?://\S+$",
        description="It gets a POST with JSON of events that were given up, on routes with "
        "dead_letter.alert: at most one a minute for each route and reason.",
        examples=["https://ops.internal/hook"],
    )


class TelemetryConfig(Model):
    """What the gateway tells about its work."""

    access_log: AccessLogConfig | None = Field(
        default_factory=AccessLogConfig,
        description="The access log; null switches it off.",
    )
    redact: RedactConfig = Field(
        default_factory=RedactConfig,
        description="What is replaced wherever the gateway writes about a request.",
    )
    audit: AuditConfig | None = Field(
        default_factory=AuditConfig,
        description="The record of what asynchronous routes did, and of routes with audit: true; "
        "null switches it off.",
    )
    alerts: AlertsConfig | None = Field(
        default=None, description="Who is told of dead letters; nobody if left out."
    )


PolicyLayer = dict[str, SerializeAsAny[BaseModel] | list[PluginUse] | None]
"""Policies by key; None switches one off. The key `plugins` holds plugin uses."""


class GatewayConfig(Model):
    """Everything that stands in the configuration file and the files it includes."""

    version: Literal[1] = Field(default=1, description="The version of this format.")
    include: list[str] = Field(
        default=[],
        description="Files to read as well, as globs relative to this file. They may hold every "
        "top-level key but version and server.",
    )
    server: ServerConfig = Field(
        default_factory=ServerConfig, description="Listeners, workers, limits and time-outs."
    )
    telemetry: TelemetryConfig = Field(
        default_factory=TelemetryConfig, description="Logs and what is kept out of them."
    )
    store: StoreConfig = Field(
        default_factory=StoreConfig,
        description="Where limits, claims, queues and shared caches are kept.",
    )
    identities: dict[str, IdentityConfig] = Field(
        default={}, description="Who may be calling, by name. Routes name them under auth."
    )
    consumers: dict[str, ConsumerConfig] = Field(
        default={}, description="Facts about callers, joined by the consumer's name."
    )
    models: dict[str, ModelConfig] = Field(
        default={}, description="Canonical models by name: JSON Schema 2020-12."
    )
    contracts: dict[str, ContractConfig] = Field(
        default={}, description="OpenAPI documents by name."
    )
    flags: dict[str, FlagConfig] = Field(
        default={},
        description="Switches by name: on, off, a share such as 10%, or a group. Routes and "
        "policies name them under flag; the admin API changes them at run time.",
    )
    upstreams: dict[str, UpstreamConfig] = Field(
        default={}, description="The services that requests are forwarded to, by name."
    )
    defaults: PolicyLayer = Field(
        default={},
        description="Policies that every route starts from. A route's own key replaces one, null "
        "removes it.",
    )
    profiles: dict[str, PolicyLayer] = Field(
        default={},
        description="Named bundles of policies. A route lists them under use; its own keys win.",
    )
    routes: list[RouteConfig] = Field(
        default=[], description="What is answered, and how. Their order means nothing."
    )
    schedules: dict[Name, ScheduleConfig] = Field(
        default={}, description="Cron triggers by name: events of asynchronous routes."
    )
    streams: dict[Name, StreamConfig] = Field(
        default={},
        description="Streams of other Redis servers by name: their entries become events of "
        "asynchronous routes.",
    )
    plugins: list[str] = Field(
        default=[],
        description="Policies from outside: Python files, or installed entry points of the group "
        "lockgate.policies.",
    )

    @cached_property
    def routes_by_name(self) -> dict[str, RouteConfig]:
        """The routes, to be looked up."""
        return {route.name: route for route in self.routes}
