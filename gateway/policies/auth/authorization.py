"""Whether a caller who is known may do this: scopes, claims, and an expression."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from gateway.errors import INSUFFICIENT_SCOPE, NOT_PERMITTED, RawHeaders, Rejection
from gateway.expressions import Expression, ExpressionFailed
from gateway.message import Exchange, Principal
from gateway.policies.auth.claims import missing_claim
from gateway.policies.auth.identity import Identity

logger = logging.getLogger("gateway.auth")


class Authorization:
    """What one route asks of its callers. `asks` is False if that is nothing."""

    __slots__ = ("_claims", "_identities", "_require", "_scopes", "_scopes_any", "asks")

    def __init__(
        self,
        identities: Mapping[str, Identity],
        *,
        scopes: frozenset[str],
        scopes_any: frozenset[str],
        claims: Mapping[str, Any],
        require: Expression | None,
    ) -> None:
        self._identities = identities
        self._scopes = scopes
        self._scopes_any = scopes_any
        self._claims = claims
        self._require = require
        self.asks = bool(scopes or scopes_any or claims or require)

    def judge(self, exchange: Exchange, principal: Principal) -> Rejection | None:
        """Why this caller may not, or None."""
        held = principal.scopes
        if not self._scopes <= held:
            missing = " ".join(sorted(self._scopes - held))
            detail = f"the credentials lack the scope {missing}"
            return self._lacks(principal, detail, self._scopes)
        if self._scopes_any and held.isdisjoint(self._scopes_any):
            detail = f"the credentials have none of the scopes {' '.join(sorted(self._scopes_any))}"
            return self._lacks(principal, detail, self._scopes_any)
        if self._claims:
            name = missing_claim(principal.claims, self._claims)
            if name is not None:
                return Rejection(NOT_PERMITTED, f"the claim {name} does not allow this")
        return None if self._require is None else self.judge_anonymous(exchange)

    def judge_anonymous(self, exchange: Exchange) -> Rejection | None:
        """Why a caller without rights may not: only the expression is asked."""
        if self._require is None:
            return None
        try:
            if self._require.holds(exchange):
                return None
            return Rejection(NOT_PERMITTED, "the rule of this route does not hold")
        except ExpressionFailed as failed:
            # The caller is not told what the rule looked for.
            logger.info(
                "an expression failed, so the request was refused",
                extra={
                    "route": exchange.route,
                    "correlation_id": exchange.correlation_id,
                    "detail": failed.reason,
                },
            )
            return Rejection(NOT_PERMITTED, "the rule of this route can't be applied")

    def _lacks(self, principal: Principal, detail: str, scopes: frozenset[str]) -> Rejection:
        headers: RawHeaders = []
        identity = self._identities.get(principal.identity)
        if identity is not None and identity.challenge.startswith("Bearer"):
            wanted = " ".join(sorted(scopes))
            value = f'{identity.challenge}, error="insufficient_scope", scope="{wanted}"'
            headers.append((b"www-authenticate", value.encode("ascii", "replace")))
        return Rejection(INSUFFICIENT_SCOPE, detail, headers)
