"""api_key: a key in a header field.

The key goes no further than the gateway: it is one of `secrets`, unless the configuration wants the
upstream to have it, and it is never in a log or an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import INVALID_CREDENTIALS, ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.identity import Foreign, Identity, Verdict
from gateway.policies.auth.key_table import KeyTable, StoredKey, digest_of, is_valid
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
        self._takes_out = self._in_authorization and not config.forward
        # What stands in Authorization may be another identity's token, which an upstream may want.
        if not (config.forward or self._in_authorization):
            self.secrets = self.fields
        self._now = clock.wall
        keys = [
            StoredKey(
                digest_of(key.hash),
                key.consumer,
                frozenset(key.scopes),
                key.not_before,
                key.expires,
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
        # A field can only be there twice if some field is.
        if len(headers.raw) != len(headers.index) and len(headers.get_all(self._field)) > 1:
            return Rejection(INVALID_CREDENTIALS, "the field of the key stands there several times")
        if self._in_authorization:
            verdict = self._from_authorization(value)
            if self._takes_out and isinstance(verdict, Principal):
                headers.remove(self._field)
            return verdict
        return self._judge(value)

    def _from_authorization(self, value: bytes) -> Verdict:
        scheme, space, key = value.partition(b" ")
        if not space:
            return self._judge(value)
        scheme = scheme.lower()
        if scheme not in _SCHEMES:
            return None
        verdict = self._judge(key.strip(b" "))
        if scheme == b"bearer" and isinstance(verdict, Rejection):
            # A token of another kind stands in the same place.
            return Foreign(verdict.kind, verdict.detail)
        return verdict

    def _judge(self, presented: bytes) -> Verdict:
        key = self._table.find(presented)
        if key is None:
            return Rejection(INVALID_CREDENTIALS, "the key is not known")
        if not is_valid(key, self._now()):
            return Rejection(INVALID_CREDENTIALS, "the key is not valid at this time")
        return self._principals[key.digest]


def build(name: str, config: ApiKeyIdentity, context: BuildContext) -> ApiKeys:
    """Index the keys. Raises ConfigError if one stands there twice."""
    try:
        return ApiKeys(name, config, directory(context).tiers, context.clock)
    except ValueError as error:
        raise ConfigError(str(error)) from None
