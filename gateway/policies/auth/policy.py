"""auth: who is calling, and may they. Asks the identities that a route names, then authorizes.

The identities are asked in the order in which they are written; the first that accepts settles who
the caller is. Credentials that one refuses may still be accepted by another. That something can't
be checked now (503) matters only if nobody accepts.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import RefusingPolicyConfig
from gateway.config.fields import EndToEndField
from gateway.config.types import Name, refuse
from gateway.errors import (
    IDENTITY_UNAVAILABLE,
    INVALID_CREDENTIALS,
    MISSING_CREDENTIALS,
    ConfigError,
    RawHeaders,
    Rejection,
)
from gateway.expressions import Expression, ExpressionError
from gateway.message import NOTHING_REPEATS, Exchange, Headers, Principal
from gateway.policies.auth.authorization import Authorization
from gateway.policies.auth.fields import MAX_HYPHENS, Writer
from gateway.policies.auth.identity import Foreign, Identity, Verdict
from gateway.policies.auth.kinds import directory
from gateway.policies.base import BuildContext, Guard


def _expression(text: str) -> str:
    try:
        Expression(text)
    except ExpressionError as error:
        raise refuse("expression", str(error)) from None
    return text


def _written(name: str) -> str:
    if name.count("-") + name.count("_") > MAX_HYPHENS:
        raise refuse("field_name", f"the field may have {MAX_HYPHENS} hyphens")
    return name


Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")]
WrittenField = Annotated[EndToEndField, AfterValidator(_written)]


class AuthConfig(RefusingPolicyConfig):
    """Who may call the route."""

    any: list[Name] = Field(
        min_length=1,
        description="The identities that are accepted, by name, in the order they are asked.",
        examples=[["staff", "partners"]],
    )
    optional: bool = Field(
        default=False,
        description="Whether a request without credentials passes as anonymous. Bad ones never do.",
    )
    scopes: list[Scope] = Field(
        default=[], description="Scopes that the caller must have, all of them."
    )
    scopes_any: list[Scope] = Field(
        default=[], description="Scopes of which the caller must have at least one."
    )
    claims: dict[str, Any] = Field(
        default={},
        description="Claims that must have this value, or one of these values; dots lead inside.",
        examples=[{"tenant": ["acme", "globex"]}],
    )
    require: Annotated[str, AfterValidator(_expression)] | None = Field(
        default=None,
        description="A CEL expression that must be true, over request, params, claims, consumer.",
        examples=["claims.tenant == params.tenant"],
    )
    forward_claims: dict[WrittenField, str] = Field(
        default={},
        description="Header fields that tell the upstream a claim, by the claim's name. What "
        "clients send under these names is dropped, on every route.",
        examples=[{"X-Tenant": "tenant"}],
    )
    forward_consumer: WrittenField | None = Field(
        default=None, description="The header field that tells the upstream the consumer's name."
    )
    hide_credentials: bool = Field(
        default=False,
        description="Whether the fields that carry credentials are kept from the upstream.",
    )

    @model_validator(mode="after")
    def _anonymous_has_no_rights(self) -> AuthConfig:
        if self.optional and (self.scopes or self.scopes_any or self.claims):
            message = "an anonymous caller has no scopes and no claims"
            raise refuse("auth", message, "leave optional out, or test them in require")
        return self

    @property
    def written_fields(self) -> list[str]:
        """The header fields that the upstream is told."""
        own = [self.forward_consumer] if self.forward_consumer else []
        return [*self.forward_claims, *own]


class AuthPolicy(Guard):
    """Sets `exchange.principal`, or refuses: 401, 403, and 503 if nobody can tell."""

    name: ClassVar[str] = "auth"
    Config: ClassVar[type[AuthConfig]] = AuthConfig
    switchable: ClassVar[bool] = False

    def __init__(
        self, config: AuthConfig, identities: list[Identity], *, asynchronous: bool = False
    ) -> None:
        self._asynchronous = asynchronous
        self._identities = identities
        self._first = identities[0].authenticate
        self._optional = config.optional
        self._authorization = Authorization(
            {each.name: each for each in identities},
            scopes=frozenset(config.scopes),
            scopes_any=frozenset(config.scopes_any),
            claims=config.claims,
            require=Expression(config.require) if config.require else None,
        )
        self._writer = Writer(config.forward_claims, config.forward_consumer)
        self._writes = bool(config.written_fields)
        hides = config.hide_credentials
        self._hidden = frozenset[bytes]().union(
            *(each.fields if hides else each.secrets for each in identities)
        )
        # Nothing to do but to know who it is.
        self._plain = not (self._authorization.asks or self._writes or self._hidden)

    @classmethod
    def build(cls, config: AuthConfig, context: BuildContext) -> AuthPolicy:
        """Find the identities. Raises ConfigError for a name that there is not."""
        known = directory(context)
        identities = []
        for position, name in enumerate(config.any):
            try:
                identities.append(known.find(name, context))
            except ConfigError as error:
                raise ConfigError(error.message, f"any[{position}]") from error
        route = context.config.routes_by_name.get(context.route)
        asynchronous = route is not None and "delivery" in route.policies
        return cls(config, identities, asynchronous=asynchronous)

    def check(self, exchange: Exchange) -> Rejection | Awaitable[Rejection | None] | None:
        """Settle who is calling, then whether they may."""
        if self._asynchronous:
            # Repetitions are answered further in, with the first one's id.
            exchange.repeats = NOTHING_REPEATS
        verdict = self._first(exchange)
        if type(verdict) is Principal:
            if self._plain:
                exchange.principal = verdict
                return None
            return self._admit(exchange, verdict)
        return self._ask(exchange, verdict, 0, [])

    def _ask(
        self,
        exchange: Exchange,
        verdict: Verdict | Awaitable[Verdict],
        position: int,
        refused: list[tuple[int, Rejection]],
    ) -> Rejection | Awaitable[Rejection | None] | None:
        """Go on from the verdict of the identity at `position`, at once as far as that goes."""
        while True:
            if isinstance(verdict, Principal):
                return self._admit(exchange, verdict)
            if isinstance(verdict, Rejection):
                refused.append((position, verdict))
            elif verdict is not None:
                return self._wait(exchange, verdict, position, refused)
            position += 1
            if position == len(self._identities):
                return self._refuse(exchange, refused)
            verdict = self._identities[position].authenticate(exchange)

    async def _wait(
        self,
        exchange: Exchange,
        verdict: Awaitable[Verdict],
        position: int,
        refused: list[tuple[int, Rejection]],
    ) -> Rejection | None:
        outcome = self._ask(exchange, await verdict, position, refused)
        if outcome is None or isinstance(outcome, Rejection):
            return outcome
        return await outcome

    def _admit(self, exchange: Exchange, principal: Principal) -> Rejection | None:
        exchange.principal = principal
        # First, because in report mode the request goes on whatever is said below.
        if self._hidden:
            self._hide(exchange.request.headers)
        if self._authorization.asks:
            rejection = self._authorization.judge(exchange, principal)
            if rejection is not None:
                return rejection
        if self._writes:
            self._writer.write(exchange, principal)
        return None

    def _hide(self, headers: Headers) -> None:
        if not self._hidden.isdisjoint(headers.index):
            headers.replace([pair for pair in headers.raw if pair[0] not in self._hidden])

    def _refuse(self, exchange: Exchange, refused: list[tuple[int, Rejection]]) -> Rejection | None:
        if not refused:
            if self._optional:
                return self._authorization.judge_anonymous(exchange)
            detail = "no credentials were sent that this route takes"
            return Rejection(MISSING_CREDENTIALS, detail, self._challenges(None))
        position, chosen = min(refused, key=_weight)
        if chosen.kind is not INVALID_CREDENTIALS:
            return chosen
        return Rejection(
            chosen.kind, chosen.detail, self._challenges((position, chosen)), chosen.extensions
        )

    def _challenges(self, chosen: tuple[int, Rejection] | None) -> RawHeaders:
        """A WWW-Authenticate for each identity; the refused one's own says why (RFC 6750 3)."""
        fields: RawHeaders = []
        for position, identity in enumerate(self._identities):
            own = []
            if chosen is not None and chosen[0] == position:
                own = chosen[1].headers
            plain = [(b"www-authenticate", identity.challenge.encode("ascii", "replace"))]
            fields += [pair for pair in own or plain if pair[1] and pair not in fields]
        return fields


def _weight(entry: tuple[int, Rejection]) -> int:
    """Which of several refusals is told: the one that says most about what to do."""
    rejection = entry[1]
    if rejection.kind is IDENTITY_UNAVAILABLE:
        return 0
    if rejection.kind is not INVALID_CREDENTIALS:
        return 1
    return 3 if isinstance(rejection, Foreign) else 2
