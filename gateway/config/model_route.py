"""The `routes:` section: which requests a route takes, where they go, what is used on them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, SerializeAsAny, model_validator

from gateway.config.base import Model
from gateway.config.given_body import GivenBody
from gateway.config.types import Name, Whole, refuse

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HOST: Final = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]+|\*|\[[0-9a-f:.]+\]", re.ASCII)


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise refuse("path", "a path starts with /")
    if any(char in value for char in "?#") or not value.isprintable():
        raise refuse("path", "a path holds no query, fragment or control character")
    return value


def _host(value: str) -> str:
    host = value.lower().rstrip(".")
    if not _HOST.fullmatch(host):
        hint = "leave the port out" if re.search(r":[0-9]+$", value) else ""
        raise refuse("host", "expected a host such as api.internal or *.internal", hint)
    return host


def _method(value: str) -> str:
    # Methods are case-sensitive (RFC 9110 section 9.1); lower case is a slip, not a wish.
    if not _TOKEN.fullmatch(value) or value != value.upper():
        raise refuse("method", "expected a method in upper case, such as GET")
    return value


def _field_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise refuse("field_name", "expected the name of a header field")
    return value


def _field_value(value: str) -> str:
    # CR, LF and NUL would end the field early on the wire (RFC 9110 section 5.5).
    if any(char in value for char in "\r\n\0"):
        raise refuse("field_value", "a header field's value can't contain CR, LF or NUL")
    return value


PathTemplate = Annotated[str, AfterValidator(_path)]
HostPattern = Annotated[str, AfterValidator(_host)]
Method = Annotated[str, AfterValidator(_method)]
FieldName = Annotated[str, AfterValidator(_field_name)]
FieldValue = Annotated[str, AfterValidator(_field_value)]


class MatchConfig(Model):
    """Which requests a route takes. All that is given must hold."""

    host: HostPattern | None = Field(
        default=None,
        description="The host: exact, or *.internal for every name below; any if left out.",
    )
    path: PathTemplate = Field(
        description="The path: /orders/{id} matches one segment, {rest:path} what is left.",
        examples=["/v1/orders/{order_id}", "/files/{rest:path}"],
    )
    methods: list[Method] | None = Field(
        default=None, min_length=1, description="The methods; every method if left out."
    )
    headers: dict[FieldName, FieldValue] = Field(
        default_factory=dict,
        description="Header fields that must be there with exactly this value.",
    )


class RespondConfig(GivenBody):
    """An answer that the gateway gives by itself."""

    status: Whole = Field(default=200, ge=200, le=599, description="The status code.")
    headers: dict[FieldName, FieldValue] = Field(
        default_factory=dict, description="Header fields of the answer."
    )

    @model_validator(mode="after")
    def _may_have_body(self) -> RespondConfig:
        if self.status in (204, 304) and (self.has_json or self.body):
            raise refuse("respond", f"an answer of status {self.status} has no body")
        return self


class RewriteQuery(Model):
    """Changes to the query that the upstream sees."""

    add: dict[str, str] = Field(default_factory=dict, description="Parameters to append.")
    remove: list[str] = Field(default_factory=list, description="Parameters to take out.")


class RewriteConfig(Model):
    """What the upstream sees instead of what the client asked for."""

    path: PathTemplate | None = Field(
        default=None,
        description="The path to ask for; it may use the parameters of match.path.",
        examples=["/orders/{order_id}"],
    )
    host: str = Field(
        default="preserve",
        min_length=1,
        description="The Host field: preserve is the client's, upstream the target's, anything "
        "else is sent as it stands.",
    )
    query: RewriteQuery = Field(default_factory=RewriteQuery, description="Changes to the query.")

    @model_validator(mode="after")
    def _host_is_clean(self) -> RewriteConfig:
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", self.host, re.ASCII):
            raise refuse("host", "host must be preserve, upstream or a host name")
        return self


class PluginUse(Model):
    """A policy from outside `gateway/`, used on a route."""

    use: Name = Field(description="The policy's name.")
    config: SerializeAsAny[BaseModel] | None = Field(
        default=None,
        alias="with",
        description="Its configuration; null switches it off if it is on by default.",
    )


class RouteConfig(Model):
    """One route: what it matches, where it goes, and the policies between."""

    name: Name = Field(
        description="Its name, unique: the label in metrics and logs.", examples=["orders.read"]
    )
    match: MatchConfig = Field(description="Which requests it takes.")
    upstream: str | None = Field(
        default=None, description="The upstream to forward to; this or respond."
    )
    respond: RespondConfig | None = Field(
        default=None, description="An answer that the gateway gives by itself."
    )
    rewrite: RewriteConfig | None = Field(
        default=None, description="What the upstream sees instead."
    )
    use: list[str] = Field(
        default_factory=list, description="Profiles to take policies from; a later one wins."
    )
    enabled: bool = Field(default=True, description="Whether the route exists at all.")
    policies: dict[str, SerializeAsAny[BaseModel]] = Field(
        default_factory=dict,
        description="Filled by the loader: defaults, profiles and the route's own keys, merged.",
    )
    plugins: list[PluginUse] = Field(
        default_factory=list, description="Policies from plugins used on this route."
    )
    elsewhere: dict[str, dict[str, SerializeAsAny[BaseModel]]] = Field(
        default={},
        exclude=True,
        description="Filled by the loader: what policies would be for each further upstream that "
        "one of them names.",
    )

    # The position in `routes` of the one that this stands beside, see `Policy.companion`; -1: none.
    _beside: int = PrivateAttr(default=-1)

    @property
    def beside(self) -> int:
        """The position in `routes` of the route that this one stands beside; -1 for none."""
        return self._beside

    @model_validator(mode="after")
    def _one_destination(self) -> RouteConfig:
        # An asynchronous route may name its upstreams under delivery alone.
        asynchronous = self.policies.get("delivery") is not None
        if self.upstream is None and self.respond is None and not asynchronous:
            raise refuse("route", "needs upstream or respond")
        if self.upstream is not None and self.respond is not None:
            raise refuse("route", "upstream and respond can't both be given")
        if self.respond is not None and asynchronous:
            raise refuse("route", "a route that delivers later can't respond by itself")
        if self.rewrite is not None and self.upstream is None and not asynchronous:
            raise refuse("route", "rewrite changes what an upstream sees, and there is none here")
        return self
