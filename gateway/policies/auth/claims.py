"""Claims: finding them, comparing them, and the principal that they describe. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.errors import NOT_PERMITTED, Rejection
from gateway.message import Principal

MAX_CONSUMER: Final = 512


def lookup(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name; else, if the name has dots, what they lead to. None if not there."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def matches(claim: Any, wanted: Any) -> bool:
    """Whether a claim has the wanted value, or one of several; of a list, one entry must have."""
    choices = wanted if isinstance(wanted, list) else [wanted]
    held = claim if isinstance(claim, list) else [claim]
    return any(_same(each, choice) for each in held for choice in choices)


def _same(one: Any, other: Any) -> bool:
    # True == 1 in Python, and in no token.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and bool(one == other)


def missing_claim(claims: Mapping[str, Any], required: Mapping[str, Any]) -> str | None:
    """The name of the first required claim that is not as it must be."""
    for name, wanted in required.items():
        if not matches(lookup(claims, name), wanted):
            return name
    return None


class Reader:
    """Makes the principal of verified claims. `consumer` is names with `|` between them."""

    __slots__ = ("_consumer", "_identity", "_require", "_scopes", "_tiers")

    def __init__(
        self,
        identity: str,
        *,
        consumer: str,
        scopes: str,
        require: Mapping[str, Any],
        tiers: Mapping[str, str],
    ) -> None:
        self._identity = identity
        self._consumer: Sequence[str] = [name.strip() for name in consumer.split("|")]
        self._scopes = scopes
        self._require = require
        self._tiers = tiers

    def principal(self, claims: Mapping[str, Any]) -> Principal | Rejection | str:
        """Whom the claims describe; a Rejection if they lack what is required here; or, as text,
        why they describe nobody.
        """
        consumer = self._name(claims)
        if not consumer:
            return "the token names no consumer"
        lacking = missing_claim(claims, self._require)
        if lacking is not None:
            return Rejection(NOT_PERMITTED, f"the claim {lacking} is not what it must be here")
        scopes = scopes_of(lookup(claims, self._scopes))
        if scopes is None:
            return f"the claim {self._scopes} is neither text nor a list of text"
        tier = self._tiers.get(consumer, "")
        return Principal(consumer, claims, scopes, self._identity, tier)

    def _name(self, claims: Mapping[str, Any]) -> str:
        for path in self._consumer:
            value = lookup(claims, path)
            if value is None or value == "":
                continue
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if not isinstance(value, str) or len(value) > MAX_CONSUMER:
                return ""
            return value
        return ""


def scopes_of(claim: Any) -> frozenset[str] | None:
    """Scopes from text with spaces between, or from a list; None if it is neither."""
    if claim is None:
        return frozenset()
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        return frozenset(claim)
    return None
