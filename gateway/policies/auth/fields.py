"""Header fields by which the upstream learns who is calling, and who may write them: we alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from gateway.config.base import PolicyConfig
from gateway.http1.head import connection_tokens
from gateway.message import Exchange, Principal, RawHeaders
from gateway.policies.auth.claims import lookup
from gateway.policies.base import BuildContext, Guard

if TYPE_CHECKING:
    from gateway.config.model import GatewayConfig

MAX_HYPHENS: Final = 6


class IdentityFields(Guard):
    """Takes the fields that policies of this gateway write from what the client sent.

    On every route, those without `auth` too: the same upstream may stand behind both. Not a key of
    the configuration: it is there as soon as some route forwards a claim.
    """

    name: ClassVar[str] = "identity_fields"
    Config: ClassVar[type[PolicyConfig]] = PolicyConfig

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = spellings(names)

    def check(self, exchange: Exchange) -> None:
        """Drop the fields, however they are spelt, and what Connection says of them."""
        headers = exchange.request.headers
        index = headers.index
        names = self._names
        if not names.isdisjoint(index):
            headers.replace([pair for pair in headers.raw if pair[0] not in names])
        if b"connection" in index and not names.isdisjoint(connection_tokens(headers.raw)):
            # A field named there would go no further, ours included.
            kept = sorted(connection_tokens(headers.raw) - names)
            headers.set(b"connection", b", ".join(kept))


def identity_fields(context: BuildContext) -> IdentityFields | None:
    """The guard for a route of this configuration; None if no route forwards anything."""
    key = ("identity fields", id(context.config))
    found: _Found = context.shared(key, lambda: _Found(context.config))
    return found.guard


class _Found:
    """Looked for once for a configuration, which it holds, so that its address stays its own."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        names = {
            name.lower().encode("ascii")
            for route in config.routes
            for name in _written(route.policies.get("auth"))
        }
        self.guard = IdentityFields(names) if names else None


def _written(auth: object) -> Collection[str]:
    names = cast("Collection[str] | None", getattr(auth, "written_fields", None))
    return names or ()


def spellings(names: Iterable[bytes]) -> frozenset[bytes]:
    """The names, and each with `_` or `.` for some `-`: to many servers that is the same field."""
    found = set()
    for name in names:
        parts = name.replace(b"_", b"-").replace(b".", b"-").split(b"-")
        for joins in product((b"-", b"_", b"."), repeat=len(parts) - 1):
            found.add(parts[0] + b"".join(j + p for j, p in zip(joins, parts[1:], strict=True)))
    return frozenset(found)


class Writer:
    """Writes the caller's claims and name into the request."""

    __slots__ = ("_claims", "_consumer")

    def __init__(self, claims: Mapping[str, str], consumer: str | None) -> None:
        self._claims = [(name.lower().encode("ascii"), path) for name, path in claims.items()]
        self._consumer = consumer.lower().encode("ascii") if consumer else None

    def write(self, exchange: Exchange, principal: Principal) -> None:
        """Add the fields. A claim that is not there, or can't be written, gives none."""
        fields: RawHeaders = []
        if self._consumer is not None:
            fields.append((self._consumer, field_value(principal.consumer)))
        for name, path in self._claims:
            fields.append((name, field_value(lookup(principal.claims, path))))
        headers = exchange.request.headers
        for name, value in fields:
            if value:
                headers.add(name, value)


def field_value(claim: Any) -> bytes:
    """A claim as a field's value: text as UTF-8, a list of words joined by commas, all else JSON.

    Empty if there is nothing to say, or if it holds a control character.
    """
    if claim is None:
        return b""
    if isinstance(claim, list) and claim and all(_is_word(each) for each in claim):
        claim = ", ".join(claim)
    if not isinstance(claim, str):
        claim = json.dumps(claim, separators=(",", ":"))
    if any(char < " " or char == "\x7f" for char in claim):
        return b""
    text: str = claim.strip(" ")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return b""


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not set(value) & set(' ,;"\\')
