"""The `server:` section: where the gateway listens, and how much it takes from one client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gateway.config.base import Model
from gateway.config.types import (
    Address,
    Cidr,
    ConfigPath,
    Count,
    Duration,
    Listen,
    Secret,
    Size,
    Timeout,
    refuse,
)


class ServerTls(Model):
    """TLS on the public listener. The files are read again when they change."""

    cert: ConfigPath = Field(description="The certificate chain, PEM.")
    key: ConfigPath = Field(description="The certificate's private key, PEM.")
    client_ca: ConfigPath | None = Field(
        default=None, description="The authorities whose client certificates are accepted, PEM."
    )
    client_cert: Literal["none", "optional", "required"] = Field(
        default="none", description="Whether a client must show a certificate."
    )

    @model_validator(mode="after")
    def _needs_authority(self) -> ServerTls:
        if self.client_cert != "none" and self.client_ca is None:
            raise refuse("tls", f"client_cert: {self.client_cert} needs client_ca as well")
        if self.client_cert == "none" and self.client_ca is not None:
            hint = "add client_cert: optional or client_cert: required"
            raise refuse("tls", "client_ca has no effect while client_cert is none", hint)
        return self


class ServerLimits(Model):
    """The most that one client or one request may take."""

    headers: Size = Field(
        default=32 * 1024, ge=256, description="All header fields of a request together; 431."
    )
    header_count: Count = Field(default=128, description="Header fields of a request; 431.")
    target: Size = Field(default=8 * 1024, ge=64, description="The request target; 414.")
    body: Size | None = Field(
        default=10 * 1024 * 1024,
        description="A request body, if its route says nothing else; 413. null: no limit.",
    )
    connections: Count = Field(
        default=10_000, description="Client connections open at once, for each worker."
    )
    cache: Size = Field(
        default=64 * 1024 * 1024,
        description="Memory for the cached answers of all routes, for each worker.",
    )


class ServerTimeouts(Model):
    """How long the gateway waits for a client."""

    headers: Timeout = Field(
        default=10.0, description="From a request's first byte to the end of its header; 408."
    )
    body_idle: Timeout = Field(
        default=30.0, description="Between two pieces of a request body; 408."
    )
    keep_alive: Timeout = Field(
        default=75.0, description="Between two requests of one connection, which is then closed."
    )
    drain: Duration = Field(
        default=30.0,
        description="For requests in flight when the gateway stops; then they are cut.",
    )


class ServerConfig(Model):
    """The listeners and the processes behind them."""

    listen: Listen = Field(default=Address("127.0.0.1", 8080), description="The public listener.")
    admin: Listen | None = Field(
        default=Address("127.0.0.1", 9901),
        description="Health, metrics and the admin API; never on the public listener. null: none.",
    )
    workers: Count | Literal["auto"] = Field(
        default=1, description="Processes that share the listener; auto is one for each core."
    )
    tls: ServerTls | None = Field(default=None, description="TLS on the public listener.")
    trusted_proxies: list[Cidr] = Field(
        default=[],
        description="Networks whose Forwarded and X-Forwarded-* fields are believed; nobody's if "
        "empty.",
    )
    limits: ServerLimits = Field(
        default_factory=ServerLimits, description="The most that a client may send."
    )
    timeouts: ServerTimeouts = Field(
        default_factory=ServerTimeouts, description="How long the gateway waits for a client."
    )
    deliver: bool = Field(
        default=True,
        description="Whether this gateway delivers the events of asynchronous routes itself; false "
        "leaves them to `lockgate worker`.",
    )
    admin_token: Secret | None = Field(
        default=None,
        description="The bearer token of the admin API. Required unless admin is on loopback or "
        "a unix socket. Give it by reference.",
    )
