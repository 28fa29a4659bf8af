"""jwt: tokens that are verified here, with the issuer's public keys.

The order of the checks, cheapest first: size and form, header, issuer, what needs a key, claims. A
token that passed is remembered until it ends or its key is withdrawn.
"""

from __future__ import annotations

from collections.abc import Awaitable
from hashlib import sha256
from hmac import compare_digest

from gateway.clock import Clock
from gateway.config.model_token import JwtIdentity
from gateway.errors import ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.observability.families import IDENTITY_PROVIDER_CALLS
from gateway.policies.auth import compact, validity
from gateway.policies.auth.bearer import FIELD, BearerIdentity
from gateway.policies.auth.claims import Reader
from gateway.policies.auth.compact import Malformed, Signed
from gateway.policies.auth.freshness import Freshness
from gateway.policies.auth.identity import Verdict, unavailable
from gateway.policies.auth.keys import Key
from gateway.policies.auth.kinds import directory, keep
from gateway.policies.auth.places import AtUrl, Discovered, InFile, NoKeys, Place
from gateway.policies.auth.remembered import Entry, Remembered
from gateway.policies.auth.source import KeySource, Unknown
from gateway.policies.auth.validity import Unacceptable
from gateway.policies.base import BuildContext

_FILE_EVERY_S = 2.0


def build(name: str, config: JwtIdentity, context: BuildContext) -> SignedToken:
    """The identity, with the keys that it shares with others of the same issuer.

    Raises ConfigError if the keys stand in a file that can't be used.
    """
    place, key = _place(config, context)
    refresh = _FILE_EVERY_S if isinstance(place, InFile) else config.refresh
    counts = context.metrics.counts(IDENTITY_PROVIDER_CALLS)
    source: KeySource = context.shared(
        ("issuer keys", *key, refresh, config.grace),
        lambda: KeySource(
            name,
            place,
            Freshness(refresh, config.grace),
            clock=context.clock,
            counts=counts,
            patience=config.timeout,
        ),
    )
    reader = Reader(
        name,
        consumer=config.consumer_claim,
        scopes=config.scopes_claim,
        require=config.require,
        tiers=directory(context).tiers,
    )
    return keep(
        name, config, context, lambda: SignedToken(name, config, source, reader, context.clock)
    )


def _place(config: JwtIdentity, context: BuildContext) -> tuple[Place, tuple[object, ...]]:
    jwks = config.jwks
    if jwks is not None and not jwks.startswith(("https://", "http://")):
        file = InFile(context.base_dir / jwks)
        try:
            file.read_now()
        except NoKeys as error:
            raise ConfigError(error.reason) from None
        return file, (str(context.base_dir / jwks),)
    from gateway.control.client import Trust  # noqa: PLC0415 - see BuildContext.http

    trust, http = Trust(ca=config.ca), context.http()
    key = (config.issuer if jwks is None else "", jwks, trust, config.timeout)
    if jwks is not None:
        return AtUrl(jwks, http, trust, config.timeout), key
    return Discovered(config.issuer, http, trust, config.timeout), key


class SignedToken(BearerIdentity):
    """One issuer's tokens for one audience."""

    def __init__(
        self, name: str, config: JwtIdentity, source: KeySource, reader: Reader, clock: Clock
    ) -> None:
        super().__init__(name, config.max_token)
        audience = config.audience
        self._issuer = config.issuer
        self._audiences = frozenset([audience] if isinstance(audience, str) else audience)
        self._algorithms = frozenset(config.algorithms)
        self._types = frozenset({compact.ACCESS_TOKEN}) if config.profile else compact.PLAIN_TYPES
        self._profile = config.profile is not None
        self._bound = config.certificate_bound
        self._leeway = config.leeway
        self._source = source
        self._reader = reader
        self._wall = clock.wall
        self.remembered = Remembered()

    async def start(self) -> None:
        """Forget tokens from now on when their key is withdrawn."""
        self._source.on_change(self._keys_changed)

    async def aclose(self) -> None:
        """Listen no more."""
        self._source.off_change(self._keys_changed)

    def _keys_changed(self, good: frozenset[bytes]) -> None:
        self.remembered.forget(unless=lambda entry: entry.key in good)

    def authenticate(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """Judge the token in Authorization; at once, unless keys must be waited for."""
        headers = exchange.request.headers
        credentials = headers.index.get(FIELD)
        if credentials is None:
            return None
        if len(headers.index) == len(headers.raw) and len(credentials) <= self._max_token:
            memory = self.remembered
            # The usual case without a call: this runs for every request.
            entry = memory.young.get(sha256(credentials).digest())
            if entry is None:
                entry = memory.find(credentials)
            if entry is not None:
                principal, begins, ends, thumbprint, _ = entry
                if begins <= self._wall() < ends:
                    if thumbprint is None:
                        return principal
                    return self._bound_to(exchange, thumbprint) or principal
        return self._judge(exchange, credentials)

    def _judge(self, exchange: Exchange, credentials: bytes) -> Verdict | Awaitable[Verdict]:
        token = self.token(exchange, credentials)
        if not isinstance(token, bytes):
            return token
        try:
            signed = self._read(token)
        except Malformed as error:
            return self.refuse(error.reason)
        except Unacceptable as error:
            return self.refuse(error.reason, foreign=error.foreign)
        keys = self._source.known(signed.kid, signed.algorithm)
        if keys is None:
            return self._look(exchange, credentials, signed)
        return self._verify(exchange, credentials, signed, keys)

    def _read(self, token: bytes) -> Signed:
        signed = compact.take_apart(token)
        # Before the rest, so that another issuer's token is told from a bad one of ours.
        validity.check_issuer(signed.claims, self._issuer)
        if signed.algorithm not in self._algorithms:
            raise Malformed("the token's algorithm is not accepted")
        if signed.type not in self._types and (signed.type or self._profile):
            raise Malformed("the token's typ is not that of an access token")
        return signed

    async def _look(self, exchange: Exchange, credentials: bytes, signed: Signed) -> Verdict:
        keys = await self._source.look(signed.kid, signed.algorithm)
        if isinstance(keys, Unknown):
            detail = f"the keys of the identity {self.name} can't be had now"
            return unavailable(detail, keys.retry_after)
        if not keys:
            return self.refuse("the token's key is not known")
        return self._verify(exchange, credentials, signed, keys)

    def _verify(
        self, exchange: Exchange, credentials: bytes, signed: Signed, keys: list[Key]
    ) -> Verdict:
        if not keys:
            return self.refuse("the token's key may not be used with its algorithm")
        for key in keys:
            if key.verifies(signed.algorithm, signed.signing_input, signed.signature):
                return self._accept(exchange, credentials, signed, key)
        return self.refuse("the token's signature is not valid")

    def _accept(self, exchange: Exchange, credentials: bytes, signed: Signed, key: Key) -> Verdict:
        claims = signed.claims
        try:
            validity.check_audience(claims, self._audiences)
            if self._profile:
                validity.check_profile(claims)
            window = validity.window(claims, self._wall(), self._leeway)
        except Unacceptable as error:
            return self.refuse(error.reason, foreign=error.foreign)
        if window.thumbprint is None and self._bound:
            return self.refuse("the token is not bound to a client certificate")
        if window.thumbprint is not None:
            refusal = self._bound_to(exchange, window.thumbprint)
            if refusal is not None:
                return refusal
        principal = self._reader.principal(claims)
        if isinstance(principal, str):
            return self.refuse(principal)
        if isinstance(principal, Principal):
            entry = Entry(principal, window.begins, window.ends, window.thumbprint, key.digest)
            self.remembered.add(credentials, entry)
        return principal

    def _bound_to(self, exchange: Exchange, thumbprint: str) -> Rejection | None:
        """Refuse a token that is bound to another certificate than the client's (RFC 8705 3)."""
        certificate = exchange.request.certificate
        if certificate is not None and compare_digest(certificate.thumbprint, thumbprint):
            return None
        return self.refuse("the token is bound to another client certificate")
