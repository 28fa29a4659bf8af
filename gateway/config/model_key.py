"""Identities that are proved by a key, a client certificate, or a webhook's signature."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.config.base import Model
from gateway.config.fields import EndToEndField
from gateway.config.moment import Moment
from gateway.config.types import Duration, Name, Secret, Size, Timeout, refuse

# Fields that end up in logs, or that say something else.
_NO_KEY_FIELD: Final = frozenset({"cookie", "content-length", "content-type", "origin", "referer",
                                  "user-agent"})  # fmt: skip
# RFC 6749 section 3.3.
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+", re.ASCII)


def _key_field(name: str) -> str:
    if name.lower() in _NO_KEY_FIELD:
        raise refuse("field_name", f"{name} is no field for a key")
    return name


def _scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise refuse("scope", "a scope is visible ASCII without spaces, quotes and backslashes")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Secrets = Annotated[
    list[Secret],
    BeforeValidator(_as_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ],
            "writeOnly": True,
            "examples": ["${env:NAME}", ["${env:NEW}", "${env:OLD}"]],
        },
        mode="validation",
    ),
]
KeyField = Annotated[EndToEndField, AfterValidator(_key_field)]
Scope = Annotated[str, AfterValidator(_scope)]


class ApiKey(Model):
    """One key of one consumer."""

    consumer: Name = Field(description="Whose key it is.")
    hash: str = Field(
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="SHA-256 of the key, as sha256:<hex>; `lockgate key new` makes both.",
    )
    scopes: list[Scope] = Field(default=[], description="What the key is good for.")
    not_before: Moment | None = Field(default=None, description="When it begins to work.")
    expires: Moment | None = Field(default=None, description="When it stops working.")

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> ApiKey:
        begins, ends = self.not_before, self.expires
        if begins is not None and ends is not None and begins >= ends:
            raise refuse("expires", "the key would expire before it begins to work")
        return self


class ApiKeyIdentity(Model):
    """A key in a header field."""

    type: Literal["api_key"] = Field(description="api_key.")
    header: KeyField = Field(
        default="X-API-Key",
        description="The field that carries it; in Authorization, behind ApiKey or Bearer.",
    )
    keys: list[ApiKey] = Field(
        min_length=1, description="The keys; several of one consumer allow rotation."
    )
    forward: bool = Field(
        default=False, description="Whether the upstream gets the key too, instead of nothing."
    )


class MtlsIdentity(Model):
    """A client certificate that the listener verified."""

    type: Literal["mtls"] = Field(description="mtls.")
    subjects: list[str] = Field(
        min_length=1,
        description="Which certificates: SPIFFE ids and other URIs, DNS names, e-mail addresses, "
        "IP addresses, or subjects (RFC 4514). * stands for one part; alone, for every "
        "certificate.",
        examples=[["spiffe://prod/ns/*/sa/*"], ["CN=billing,O=Acme"]],
    )


class WebhookIdentity(Model):
    """The signature of a webhook's sender over the body."""

    type: Literal["webhook"] = Field(description="webhook.")
    scheme: Literal["standard", "github", "stripe", "slack", "shopify", "hmac"] = Field(
        description="Whose way of signing; hmac is any other, described by the keys below."
    )
    secret: Secrets = Field(
        min_length=1, description="The secret shared with the sender; several during rotation."
    )
    window: Timeout = Field(
        default=300.0,
        description="How far the sender's time may be from ours, in schemes that sign one.",
    )
    remember: Duration = Field(
        default=86400.0,
        description="How long the id of a delivery that was answered 2xx is remembered in the "
        "store, to refuse it the next time; 0s to refuse none.",
    )
    on_store_error: Literal["closed", "open"] = Field(
        default="closed",
        description="Without the store: closed refuses with 503, so that the sender comes again; "
        "open takes deliveries that may be repeated ones.",
    )
    max_body: Size = Field(
        default=25 * 1024 * 1024,
        description="The largest body that is held to verify it; the route's own limit holds too.",
    )
    header: KeyField | None = Field(
        default=None, description="hmac: the field that carries the signature."
    )
    algorithm: Literal["sha256", "sha512"] = Field(
        default="sha256", description="hmac: the hash function."
    )
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="hmac: how the signature is written."
    )
    prefix: str = Field(
        default="",
        pattern=r"^[!-~]*$",
        description="hmac: what stands before it.",
        examples=["sha256="],
    )
    timestamp_header: KeyField | None = Field(
        default=None, description="hmac: the field with the Unix time, if one is signed."
    )
    id_header: KeyField | None = Field(
        default=None, description="hmac: the field that tells deliveries apart, if there is one."
    )
    payload: str = Field(
        default="{body}",
        description="hmac: the signed text, with {body}, {timestamp} and {id} in their places.",
        examples=["{timestamp}.{body}"],
    )

    @model_validator(mode="after")
    def _options_of_hmac(self) -> WebhookIdentity:
        if self.scheme == "hmac":
            if self.header is None:
                raise refuse("header", "hmac needs header: the field that carries the signature")
            return self
        for key in _HMAC_ALONE & self.model_fields_set:
            raise refuse(key, f"{key} belongs to the scheme hmac; {self.scheme} has its own")
        return self

    @property
    def secrets(self) -> list[str]:
        """The secrets as text, in their order."""
        return [each.get_secret_value() for each in self.secret]


_HMAC_ALONE: Final = {
    "header", "algorithm", "encoding", "prefix", "timestamp_header", "id_header", "payload",
}  # fmt: skip
