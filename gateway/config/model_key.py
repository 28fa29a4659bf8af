"""Identities that are proved by a key, a client certificate, or a webhook's signature."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.base import Model
from gateway.config.fields import EndToEndField
from gateway.config.types import Name, Secret


class ApiKey(Model):
    """One key of one consumer."""

    consumer: Name = Field(description="Whose key it is.")
    hash: str = Field(
        pattern=r"^sha256:[0-9a-f]{64}$", description="SHA-256 of the key, as sha256:<hex>."
    )
    scopes: list[str] = Field(default=[], description="What the key is good for.")


class ApiKeyIdentity(Model):
    """A key in a header field."""

    type: Literal["api_key"] = Field(description="api_key.")
    header: EndToEndField = Field(default="X-API-Key", description="The field that carries it.")
    keys: list[ApiKey] = Field(
        min_length=1, description="The keys; several of one consumer allow rotation."
    )


class MtlsIdentity(Model):
    """A client certificate that the listener verified."""

    type: Literal["mtls"] = Field(description="mtls.")
    subjects: list[str] = Field(
        min_length=1,
        description="Which certificates: SPIFFE ids, DNS names or subject names; * stands for one "
        "part.",
        examples=[["spiffe://prod/ns/*/sa/*"]],
    )


class WebhookIdentity(Model):
    """The signature of a webhook's sender over the body."""

    type: Literal["webhook"] = Field(description="webhook.")
    scheme: Literal["standard", "github", "stripe", "slack", "shopify", "hmac"] = Field(
        description="Whose way of signing."
    )
    secret: Secret = Field(description="The secret shared with the sender.")
