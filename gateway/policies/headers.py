"""headers: fields that are set, added or removed on the way to the upstream and back.

Applies to what the upstream is sent and what it answers; problems that the gateway makes itself
are left alone. In each direction `remove` comes first, then `set`, then `add`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gateway.config.base import Model, PolicyConfig
from gateway.config.fields import EndToEndField, PlainValue
from gateway.message import Exchange, Handler, RawHeaders, Response
from gateway.policies.base import Around, BuildContext, Stage


class FieldRules(Model):
    """What happens to the header fields of one direction."""

    set: dict[EndToEndField, PlainValue] = Field(
        default={}, description="Fields to put in place of any of the same name."
    )
    add: dict[EndToEndField, PlainValue] = Field(
        default={}, description="Fields to append to those that are there."
    )
    remove: list[EndToEndField] = Field(default=[], description="Fields to take out.")


class HeadersConfig(PolicyConfig):
    """Changes to header fields."""

    request: FieldRules = Field(
        default_factory=FieldRules, description="What the upstream is sent."
    )
    response: FieldRules = Field(
        default_factory=FieldRules, description="What the client is answered."
    )


class HeadersPolicy(Around):
    """Edits the request's header fields, then the answer's."""

    name: ClassVar[str] = "headers"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[HeadersConfig]] = HeadersConfig

    def __init__(self, config: HeadersConfig) -> None:
        self._request = _Edit(config.request)
        self._response = _Edit(config.response)

    @classmethod
    def build(cls, config: HeadersConfig, context: BuildContext) -> HeadersPolicy:
        """Encode names and values once."""
        del context
        return cls(config)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Edit, forward, edit."""
        if self._request.changes:
            headers = exchange.request.headers
            headers.replace(self._request.apply(headers.raw))
        response = await forward(exchange)
        if self._response.changes:
            response.headers = self._response.apply(response.headers)
        return response


class _Edit:
    """The rules of one direction, as bytes. `changes` is False if there are none."""

    __slots__ = ("_added", "_dropped", "changes")

    def __init__(self, rules: FieldRules) -> None:
        replaced = {name.lower(): value for name, value in rules.set.items()}
        self._added: RawHeaders = [
            (name.lower().encode("ascii"), value.encode("ascii"))
            for name, value in [*replaced.items(), *rules.add.items()]
        ]
        dropped = {*replaced, *(name.lower() for name in rules.remove)}
        self._dropped = frozenset(name.encode("ascii") for name in dropped)
        self.changes = bool(self._added or self._dropped)

    def apply(self, fields: RawHeaders) -> RawHeaders:
        dropped = self._dropped
        return [*(pair for pair in fields if pair[0] not in dropped), *self._added]
