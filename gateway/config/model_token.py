"""Identities that are proved by a token: one that the gateway verifies, or one it asks about."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import Model
from gateway.config.types import ConfigPath, Duration, Secret, Size, Timeout, refuse

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
CONSUMER_CLAIMS = "client_id|azp|sub"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _url(text: str) -> str:
    if not _is_url(text) or not text.isascii() or any(char.isspace() for char in text):
        raise refuse("url", "expected a URL such as https://idp.internal/introspect")
    if "@" in urlsplit(text).netloc:
        raise refuse("url", "a URL here carries no user name or password")
    if urlsplit(text).fragment:
        raise refuse("url", "a URL here has no fragment")
    return text


Url = Annotated[str, AfterValidator(_url)]


class TokenIdentity(Model):
    """What tokens of both kinds have in common."""

    leeway: Duration = Field(
        default=30.0, le=600.0, description="How far clocks may be apart, for exp, nbf and iat."
    )
    scopes_claim: str = Field(
        default="scope",
        min_length=1,
        description="The claim that holds the scopes, as text or a list; dots lead inside.",
    )
    consumer_claim: str = Field(
        default=CONSUMER_CLAIMS,
        min_length=1,
        description="The claim that names the consumer; of several, the first that is there.",
    )
    require: dict[str, Any] = Field(
        default={}, description="Claims that must have this value, or one of these values."
    )
    certificate_bound: bool = Field(
        default=False,
        description="Whether every token must be bound to the client's certificate (RFC 8705). One "
        "that is bound is always checked.",
    )
    max_token: Size = Field(
        default=8 * 1024, ge=64, description="The longest token that is looked at."
    )
    timeout: Timeout = Field(
        default=5.0, le=60.0, description="For one call to the identity provider."
    )
    ca: ConfigPath | None = Field(
        default=None,
        description="The authorities to trust for such calls, PEM; the system's if left out.",
    )


class JwtIdentity(TokenIdentity):
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
    profile: Literal["at+jwt"] | None = Field(
        default=None,
        description="at+jwt takes access tokens by RFC 9068 alone: its typ, and its claims.",
    )
    refresh: Timeout = Field(
        default=300.0,
        description="How long keys are used before they are fetched anew; the provider's "
        "Cache-Control may say less. A file is read again when it changes.",
    )
    grace: Duration = Field(
        default=3600.0,
        description="How much longer the last keys are used if the provider can't be reached.",
    )

    @model_validator(mode="after")
    def _keys_can_be_found(self) -> Self:
        if self.jwks is None:
            if not _is_url(self.issuer) or urlsplit(self.issuer).query:
                message = "keys can only be discovered at an issuer that is a URL"
                raise refuse("issuer", message, "give jwks: a URL or a file")
        elif "://" in self.jwks:
            _url(self.jwks)
        if not all([self.audience] if isinstance(self.audience, str) else self.audience):
            raise refuse("audience", "an audience can't be empty")
        return self


class IntrospectionIdentity(TokenIdentity):
    """An opaque token that the authorization server is asked about (RFC 7662)."""

    type: Literal["introspection"] = Field(description="introspection.")
    url: Url = Field(description="The introspection endpoint.")
    client_id: str = Field(min_length=1, description="The gateway's own client id there.")
    client_secret: Secret = Field(description="The gateway's own secret there.")
    cache: Duration = Field(
        default=30.0, description="How long an answer is kept; never beyond the token's exp."
    )
    audience: str | list[str] | None = Field(
        default=None,
        min_length=1,
        description="The `aud` that an answer must name; one of them, of several.",
    )
    issuer: str | None = Field(
        default=None, min_length=1, description="The exact `iss` that an answer must name."
    )
