"""canary: a share of a route's exchanges goes to another upstream.

Each side has a chain of its own: what the configuration says of the canary's upstream (timeouts,
retries, breaker, bulkhead, credentials) holds for canary traffic, and nothing that belongs to the
stable one is used for it. There is no falling back from one side to the other: retries stay on
their side, so that the canary's failures are seen.
"""

from __future__ import annotations

import re
from random import Random
from typing import ClassVar, Final

from pydantic import Field, field_validator, model_validator

from gateway.config.base import Model, PolicyConfig
from gateway.config.fields import EndToEndField
from gateway.config.model_route import FieldName, FieldValue
from gateway.config.types import Name, Ratio, refuse
from gateway.errors import ConfigError
from gateway.groups import Group, KeyOf, consumer_or_ip, cookie, ip, members, point
from gateway.message import Exchange, Handler, Response
from gateway.observability.families import CANARY
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.canary.decide import Facts, Side, decide

_STICKY: Final = re.compile(
    r"(consumer|ip|none|cookie)|(?:header:([!#$%&'*+.^_`|~0-9A-Za-z-]+))"
    r"|(?:cookie:([!#$%&'*+.^_`|~0-9A-Za-z-]+))",
    re.ASCII,
)
OWN_COOKIE: Final = b"lockgate-canary"
_COOKIE_VALUE: Final = re.compile(rb"[0-9a-f]{16}")
_COOKIE_AGE_S: Final = 30 * 86_400


class CallerRule(Model):
    """Callers by what they send or who they are; all that is given must hold."""

    header: dict[FieldName, FieldValue] = Field(
        default={},
        description="Header fields that must be there with exactly this value.",
        examples=[{"X-Canary": "1"}],
    )
    consumers: list[str] = Field(default=[], description="Consumers, by name.")
    tags: list[Name] = Field(
        default=[], description="Consumers that have one of these tags, beside those by name."
    )

    def group(self, context: BuildContext) -> Group:
        """The callers that it means."""
        known = context.config.consumers
        return Group(self.header, members(self.consumers, self.tags, known))


class CanaryConfig(PolicyConfig):
    """A share of the exchanges goes to another upstream."""

    upstream: Name = Field(description="The upstream that the share goes to.")
    weight: Ratio = Field(
        default=0.0, description="The share of the callers, beside those that when chooses."
    )
    sticky: str = Field(
        default="consumer",
        description="What keeps a caller on its side: consumer (or the address, of one that has "
        "not proved its name), ip, header:NAME, cookie:NAME, cookie (one that the gateway sets), "
        "or none to draw for each request.",
        json_schema_extra={"pattern": r"^(consumer|ip|none|cookie|header:.+|cookie:.+)$"},
        examples=["consumer", "header:X-Tenant", "cookie:session"],
    )
    when: CallerRule | None = Field(
        default=None, description="Callers that always meet the canary, whatever the weight."
    )
    unless: CallerRule | None = Field(
        default=None, description="Callers that never meet it; wins over when."
    )
    reply_header: EndToEndField | None = Field(
        default=None,
        description="A field of the answer that says which side gave it: stable or canary.",
        examples=["X-Lockgate-Side"],
    )

    @field_validator("sticky")
    @classmethod
    def _sticky_is_a_key(cls, value: str) -> str:
        if _STICKY.fullmatch(value) is None:
            hint = "one of consumer, ip, header:NAME, cookie:NAME, cookie, none"
            raise refuse("sticky", "this names nothing of a caller", hint)
        return value

    @model_validator(mode="after")
    def _takes_somebody(self) -> CanaryConfig:
        if not self.when and "weight" not in self.model_fields_set:
            raise refuse("canary", "nobody would meet it", "give weight, or when")
        for rule in (self.when, self.unless):
            if rule is not None and not (rule.header or rule.consumers or rule.tags):
                raise refuse("canary", "a rule needs header, consumers or tags")
        return self


class CanaryPolicy(Around):
    """Chooses the side of each exchange; `canary` is the chain to the other upstream."""

    name: ClassVar[str] = "canary"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[CanaryConfig]] = CanaryConfig

    def __init__(self, config: CanaryConfig, context: BuildContext, canary: Handler) -> None:
        self._canary = canary
        self._weight = config.weight
        self._route = context.route
        self._random: Random = context.random
        self._when = config.when.group(context) if config.when else None
        self._unless = config.unless.group(context) if config.unless else None
        self._key = _key_of(config.sticky)
        self._sets_cookie = config.sticky == "cookie"
        header = config.reply_header
        self._header = header.lower().encode("ascii") if header else None
        self._counts = context.metrics.counts(CANARY)

    @classmethod
    def build(cls, config: CanaryConfig, context: BuildContext) -> CanaryPolicy:
        """Have the chain to the canary made. Raises ConfigError if there is no stable side."""
        if not context.upstream:
            raise ConfigError("needs an upstream beside it, for everybody else")
        if config.upstream == context.upstream:
            raise ConfigError("is the upstream that the route has anyway", "upstream")
        return cls(config, context, context.forward_to(cls.name, "upstream", config.upstream))

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward to the side that the exchange belongs to."""
        side = self._side(exchange)
        exchange.side = side
        if self._header is not None:
            exchange.reply_headers.append((self._header, side.encode()))
        if side is Side.CANARY:
            forward = self._canary
        try:
            response = await forward(exchange)
        except Exception:
            self._counts.add(self._route, side, "error")
            raise
        self._counts.add(self._route, side, f"{response.status // 100}xx")
        return response

    def _side(self, exchange: Exchange) -> Side:
        excepted = self._unless is not None and self._unless.takes(exchange)
        chosen = self._when is not None and self._when.takes(exchange)
        place = 1.0
        if self._weight > 0.0 and not excepted and not chosen:
            place = self._point(exchange)
        return decide(self._weight, Facts(excepted, chosen, place))

    def _point(self, exchange: Exchange) -> float:
        key = self._key(exchange) if self._key is not None else b""
        if self._sets_cookie:
            key = self._cookie(exchange)
        # Nothing tells the caller from others: each of its requests is drawn for.
        return point(self._route, key) if key else self._random.random()

    def _cookie(self, exchange: Exchange) -> bytes:
        value = cookie(exchange.request.headers, OWN_COOKIE)
        if _COOKIE_VALUE.fullmatch(value) is not None:
            return value
        value = b"%016x" % self._random.getrandbits(64)
        secure = b"; Secure" if exchange.request.scheme == "https" else b""
        text = b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b"
        field = text % (OWN_COOKIE, value, _COOKIE_AGE_S, secure)
        exchange.reply_headers.append((b"set-cookie", field))
        return value


def _key_of(sticky: str) -> KeyOf | None:
    """What is hashed of an exchange; None if nothing is, or the gateway's own cookie."""
    if sticky in ("cookie", "none"):
        return None
    if sticky == "consumer":
        return consumer_or_ip
    if sticky == "ip":
        return ip
    kind, _, name = sticky.partition(":")
    field = name.lower().encode("ascii") if kind == "header" else name.encode("ascii")

    def of_header(exchange: Exchange) -> bytes:
        return exchange.request.headers.get(field) or ip(exchange)

    def of_cookie(exchange: Exchange) -> bytes:
        return cookie(exchange.request.headers, field) or ip(exchange)

    return of_header if kind == "header" else of_cookie
