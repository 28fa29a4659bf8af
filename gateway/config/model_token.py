"""Identities that are proved by a token: one that the gateway verifies, or one it asks about."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gateway.config.base import Model
from gateway.config.types import Duration, Secret

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class JwtIdentity(Model):
    """A JWT in the Authorization field, verified with the issuer's keys (RFC 7519, RFC 8725)."""

    type: Literal["jwt"] = Field(description="jwt.")
    issuer: str = Field(
        min_length=1,
        description="The exact `iss` of its tokens, and where its keys are discovered.",
        examples=["https://idp.internal"],
    )
    audience: str | list[str] = Field(
        min_length=1, description="The `aud` that a token must name; one of them, of several."
    )
    algorithms: list[Algorithm] = Field(
        default=["RS256", "ES256"], min_length=1, description="The signatures that are accepted."
    )
    jwks: str | None = Field(
        default=None,
        min_length=1,
        description="The keys: a URL or a file; found by OIDC discovery at the issuer if left out.",
    )
    leeway: Duration = Field(
        default=30.0, description="How far clocks may be apart, for exp, nbf and iat."
    )
    scopes_claim: str = Field(default="scope", description="The claim that holds the scopes.")
    consumer_claim: str = Field(
        default="client_id|azp|sub",
        description="The claim that names the consumer; of several, the first that is there.",
    )
    require: dict[str, Any] = Field(
        default={}, description="Claims that must have this value, or one of these values."
    )


class IntrospectionIdentity(Model):
    """An opaque token that the authorization server is asked about (RFC 7662)."""

    type: Literal["introspection"] = Field(description="introspection.")
    url: str = Field(min_length=1, description="The introspection endpoint.")
    client_id: str = Field(min_length=1, description="The gateway's own client id there.")
    client_secret: Secret = Field(description="The gateway's own secret there.")
    cache: Duration = Field(
        default=30.0, description="How long an answer is kept; never beyond the token's exp."
    )
