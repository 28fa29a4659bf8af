"""webhook: the signature of a webhook's sender, over the exact bytes of the body.

What the fields say is judged first, so that a request that can't be good costs no reading. Then the
body is read whole, verified, and goes on to the upstream as it came. Deliveries that were taken
already are refused, see `deliveries.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import (
    INVALID_CREDENTIALS,
    STORE_UNAVAILABLE,
    WEBHOOK_REPLAYED,
    ConfigError,
    Rejection,
    StoreError,
)
from gateway.message import Exchange, Principal
from gateway.policies.auth.deliveries import Deliveries, Seen
from gateway.policies.auth.identity import Identity, Verdict
from gateway.policies.auth.kinds import directory, keep
from gateway.policies.auth.signatures import (
    SCHEMES,
    Claim,
    HmacOptions,
    Malformed,
    Scheme,
    hmac_scheme,
    is_proved,
)

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.model_key import WebhookIdentity
    from gateway.observability.metrics import Metrics
    from gateway.policies.base import BuildContext

# Above this many bytes the hash takes a millisecond or more, which others need not wait for.
_IN_THREAD: Final = 1024 * 1024
_IN_FLIGHT_RETRY: Final = [(b"retry-after", b"5")]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one sender's webhooks have to be. `window` is in seconds, `max_body` in bytes."""

    scheme: Scheme
    keys: tuple[bytes, ...]
    window: float
    max_body: int
    fail_open: bool


class Webhooks(Identity):
    """Proves that a sender signed the request. Without `deliveries`, repeated ones are taken."""

    def __init__(
        self,
        principal: Principal,
        rules: Rules,
        deliveries: Deliveries | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.name = principal.identity
        self.challenge = f'Webhook realm="{self.name}"'
        self.fields = frozenset(rules.scheme.fields)
        self._principal = principal
        self._rules = rules
        self._deliveries = deliveries
        self._now = clock.wall
        self._metrics = metrics
        self._first = rules.scheme.fields[0]

    def authenticate(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """Judge the signature's form at once, then the signature over the body."""
        headers = exchange.request.headers
        if self._first not in headers:
            return None
        rules = self._rules
        try:
            claim = rules.scheme.read(headers)
        except Malformed as error:
            return _refuse(str(error))
        if claim.timestamp is not None and abs(claim.timestamp - self._now()) > rules.window:
            return _refuse("the timestamp is too far from the present")
        return self._verify(exchange, claim)

    async def _verify(self, exchange: Exchange, claim: Claim) -> Verdict:
        rules = self._rules
        scheme = rules.scheme
        body = await exchange.request.read_body(rules.max_body)
        if len(body) < _IN_THREAD:
            proved = is_proved(claim, body, rules.keys, scheme.algorithm)
        else:
            proved = await asyncio.to_thread(is_proved, claim, body, rules.keys, scheme.algorithm)
        if not proved:
            return _refuse("the signature does not match")
        delivery = claim.id
        if scheme.body_id is not None:
            delivery = scheme.body_id(body)
        if self._deliveries is not None:
            rejection = await self._take(exchange, self._deliveries, claim, delivery)
            if rejection is not None:
                return rejection
        return self._proved(claim, delivery)

    async def _take(
        self, exchange: Exchange, deliveries: Deliveries, claim: Claim, delivery: bytes | None
    ) -> Rejection | None:
        if delivery is None:
            if self._rules.scheme.has_id:
                return _refuse("the delivery has no id")
            # It has a time and no id: within the window, the signature tells it from others.
            delivery = claim.signatures[0]
        if exchange.repeats is not None:
            name = f"webhook\n{self.name}\n{delivery.hex()}"
            exchange.repeats = (name, deliveries.remember, "")
            return None
        try:
            seen = await deliveries.take(exchange, delivery)
        except StoreError as error:
            if self._rules.fail_open:
                self._report(exchange)
                return None
            return Rejection(STORE_UNAVAILABLE, error.detail, headers=_IN_FLIGHT_RETRY)
        if seen is Seen.NEW:
            return None
        if seen is Seen.IN_FLIGHT:
            detail = "this delivery is being processed"
            return Rejection(WEBHOOK_REPLAYED, detail, headers=_IN_FLIGHT_RETRY)
        return Rejection(WEBHOOK_REPLAYED, "this delivery was taken before")

    def _report(self, exchange: Exchange) -> None:
        """Say, where report mode would, that this might have been refused."""
        code = STORE_UNAVAILABLE.code
        self._metrics.route(exchange.route).report("auth", code)
        exchange.reported = [*(exchange.reported or ()), f"auth:{code}"]

    def _proved(self, claim: Claim, delivery: bytes | None) -> Principal:
        known = self._principal
        claims: dict[str, Any] = dict(known.claims)
        if delivery is not None:
            claims["id"] = delivery.decode("ascii", "replace")
        if claim.timestamp is not None:
            claims["timestamp"] = claim.timestamp
        return Principal(known.consumer, claims, known.scopes, known.identity, known.tier)

    async def aclose(self) -> None:
        """Write down what is still to be remembered."""
        if self._deliveries is not None:
            await self._deliveries.aclose()


def _refuse(detail: str) -> Rejection:
    return Rejection(INVALID_CREDENTIALS, detail)


def build(name: str, config: WebhookIdentity, context: BuildContext) -> Webhooks:
    """Read scheme and secrets. Raises ConfigError, without any secret."""
    scheme = _scheme(config)
    keys = []
    for position, secret in enumerate(config.secrets):
        try:
            keys.append(scheme.key(secret))
        except ValueError as error:
            raise ConfigError(str(error), f"secret[{position}]") from None
    rules = Rules(
        scheme, tuple(keys), config.window, config.max_body, config.on_store_error == "open"
    )
    tier = directory(context).tiers.get(name, "")
    principal = Principal(name, {"scheme": config.scheme}, identity=name, tier=tier)
    store = None
    # What has neither id nor time can't be told from a second, equal delivery.
    if config.remember > 0 and (scheme.has_id or scheme.has_timestamp):
        store = context.store()

    def make() -> Webhooks:
        deliveries = None
        if store is not None:
            deliveries = Deliveries(store, name, config.remember, context.random)
        return Webhooks(principal, rules, deliveries, context.clock, context.metrics)

    return keep(name, config, context, make)


def _scheme(config: WebhookIdentity) -> Scheme:
    if config.scheme != "hmac":
        return SCHEMES[config.scheme]
    try:
        return hmac_scheme(
            HmacOptions(
                header=(config.header or "").lower(),
                algorithm=config.algorithm,
                encoding=config.encoding,
                prefix=config.prefix,
                timestamp_header=(config.timestamp_header or "").lower(),
                id_header=(config.id_header or "").lower(),
                payload=config.payload,
            )
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
