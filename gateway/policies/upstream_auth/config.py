"""What stands under `upstreams.<name>.auth`: one of four types."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, RootModel, model_validator

from gateway.config.base import Model
from gateway.config.fields import EndToEndField
from gateway.config.types import ConfigPath, Secret, Timeout, refuse


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isascii() or not value.isprintable() or " " in value:
        raise refuse("url", "expected a URL such as https://idp.internal/token")
    if parts.username is not None or parts.fragment:
        # RFC 6749 section 3.2 forbids the fragment; a password here would end up in logs.
        raise refuse("url", "the URL of a token endpoint has no user and no fragment")
    return value


class ClientCredentials(Model):
    """A token that the authorization server gives for the gateway's own sake (RFC 6749 4.4)."""

    type: Literal["client_credentials"] = Field(description="client_credentials.")
    token_url: Annotated[str, AfterValidator(_endpoint)] = Field(
        description="The token endpoint.", examples=["https://idp.internal/token"]
    )
    client_id: str = Field(min_length=1, description="The gateway's own client id there.")
    client_secret: Secret = Field(description="The gateway's own secret there.")
    client_auth: Literal["basic", "body"] = Field(
        default="basic",
        description="How the endpoint is shown id and secret: in the Authorization field, or in "
        "the form.",
    )
    scopes: list[str] = Field(default=[], description="The scopes to ask for.")
    audience: str | None = Field(
        default=None, min_length=1, description="The audience to ask for, where that is in use."
    )
    resource: str | list[str] = Field(
        default=[], description="The resources that the token is for (RFC 8707)."
    )
    params: dict[str, str] = Field(
        default={}, description="Further parameters of the form, as the endpoint wants them."
    )

    timeout: Timeout = Field(default=5.0, description="How long one request for a token may take.")
    ca: ConfigPath | None = Field(
        default=None, description="The authorities to trust there, PEM; the system's if left out."
    )

    @model_validator(mode="after")
    def _own_params(self) -> ClientCredentials:
        own = {"grant_type", "client_id", "client_secret", "scope", "audience", "resource"}
        if own & self.params.keys():
            raise refuse("params", "params can't hold what has a key of its own")
        if any(not scope or not scope.isascii() or " " in scope for scope in self.scopes):
            raise refuse("scopes", "a scope is ASCII without spaces")
        return self


class BearerCredentials(Model):
    """A token that somebody else keeps fresh."""

    type: Literal["bearer"] = Field(description="bearer.")
    token: Secret = Field(description="The token, without the word Bearer.")


class BasicCredentials(Model):
    """A user name and a password (RFC 7617)."""

    type: Literal["basic"] = Field(description="basic.")
    username: str = Field(min_length=1, pattern=r"^[^:]*$", description="The user name.")
    password: Secret = Field(description="The password.")


class HeaderCredentials(Model):
    """A field of the upstream's own choice, such as X-API-Key."""

    type: Literal["header"] = Field(description="header.")
    name: EndToEndField = Field(description="The field's name.", examples=["X-Key"])
    value: Secret = Field(description="Its value.")


class UpstreamAuthConfig(
    RootModel[
        Annotated[
            ClientCredentials | BearerCredentials | BasicCredentials | HeaderCredentials,
            Field(discriminator="type"),
        ]
    ]
):
    """The gateway's own credentials for the upstream."""

    model_config = ConfigDict(frozen=True)
