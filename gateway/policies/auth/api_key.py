"""api_key: a key in a header field.

The key goes no further than here: it is taken out of the request, unless the configuration wants
the upstream to have it, and it is never in a log or an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import INVALID_CREDENTIALS, ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.identity import Foreign, Identity, Verdict
from gateway.policies.auth.keys import KeyTable, StoredKey, digest_of, is_valid
from gateway.policies.auth.kinds import directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.clock import Clock
    from gateway.config.model_key import ApiKeyIdentity
    from gateway.policies.base import BuildContext

_SCHEMES: Final = (b"apikey", b"bearer")


class ApiKeys(Identity):
    """Proves a consumer by one of its keys. The look-up costs the same however many there are."""

    def __init__(
        self, name: str, config: ApiKeyIdentity, tiers: Mapping[str, str], clock: Clock
    ) -> None:
        self.name = name
        self.challenge = f'ApiKey realm="{name}"'
        self._field = config.header.lower().encode()
        self.fields = frozenset({self._field})
        self._in_authorization = self._field == b"authorization"
        self._forward = config.forward
        self._now = clock.wall
        keys = [
            StoredKey(
                digest_of(key.hash), key.consumer, frozenset(key.scopes), key.not_before, key.expires
            )
            for key in config.keys
        ]
        self._table = KeyTable(keys)
        self._principals = {
            key.digest: Principal(
                key.consumer, {"key": key.label}, key.scopes, name, tiers.get(key.consumer, "")
            )
            for key in keys
        }

    def authenticate(self, exchange: Exchange) -> Verdict:
        """Find whose key the request carries."""
        headers = exchange.request.headers
        value = headers.get(self._field)
        if value is None:
            return None
        if len(headers.get_all(self._field)) > 1:
            return Rejection(INVALID_CREDENTIALS, "the field of the key stands there several times")
        if self._in_authorization:
            return self._from_authorization(exchange, value)
        return self._judge(exchange, value)

    def _from_authorization(self, exchange: Exchange, value: bytes) -> Verdict:
        scheme, space, key = value.partition(b" ")
        if not space:
            return self._judge(exchange, value)
        scheme = scheme.lower()
        if scheme not in _SCHEMES:
            return None
        verdict = self._judge(exchange, key.strip(b" "))
        if scheme == b"bearer" and isinstance(verdict, Rejection):
            # A token of another kind stands in the same place.
            return Foreign(verdict.kind, verdict.detail)
        return verdict

    def _judge(self, exchange: Exchange, presented: bytes) -> Verdict:
        key = self._table.find(presented)
        if key is None:
            return Rejection(INVALID_CREDENTIALS, "the key is not known")
        if not is_valid(key, self._now()):
            return Rejection(INVALID_CREDENTIALS, "the key is not valid at this time")
        if not self._forward:
            exchange.request.headers.remove(self._field)
        return self._principals[key.digest]


def build(name: str, config: ApiKeyIdentity, context: BuildContext) -> ApiKeys:
    """Index the keys. Raises ConfigError if one stands there twice."""
    try:
        return ApiKeys(name, config, directory(context).tiers, context.clock)
    except ValueError as error:
        raise ConfigError(str(error)) from None
