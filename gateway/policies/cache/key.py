"""What a request asks of the cache, and under which key: who may share an answer with whom.

The key of an answer is its URI (host with port, scheme, path in its normal form, query as it was),
and its *slot*: the route, and whatever else parts requests. That is the caller if the route says
`vary_on: [consumer]`, the fields that `vary_on` names, and fields that some servers let replace
the host, path or method: an answer made under their influence is found only by requests that send
the same. Answers with Vary are told apart below the slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from gateway.message import Exchange, Headers, Principal, Request
from gateway.policies.cache.directives import RequestControl, request_control
from gateway.policies.cache.rules import joined

Uri = tuple[bytes, str, str, bytes]
"""Host with port in lower case, scheme, path, query."""

Slot = tuple[str, str, tuple[bytes, ...]]
"""Route, a digest of what the route does to requests, and the values that part callers."""

OVERRIDES: Final = frozenset(
    {
        b"front-end-https",
        b"x-forwarded-host",
        b"x-forwarded-path",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-uri",
        b"x-host",
        b"x-http-host-override",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-host",
        b"x-original-uri",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-url-scheme",
    }
)
"""Fields that some server or framework takes for the host, path, scheme or method."""

_CONDITIONS: Final = (b"if-none-match", b"if-modified-since")
# Left to the origin: parts of content, and conditions on what it has now (section 4.3.2).
_ORIGIN_ONLY: Final = frozenset({b"if-match", b"if-range", b"if-unmodified-since", b"range"})
_SPECIAL: Final = (
    OVERRIDES
    | _ORIGIN_ONLY
    | {b"authorization", b"cache-control", b"cookie", b"pragma", *_CONDITIONS}
)
_LONGEST: Final = 64

# Normalised as in selecting fields: lists that mean the same are the same.
_NO_LISTS: Final = frozenset(
    {b"authorization", b"cookie", b"from", b"host", b"origin", b"proxy-authorization", b"referer",
     b"user-agent"}
)  # fmt: skip
_ANY_CASE: Final = frozenset({b"accept-charset", b"accept-encoding", b"accept-language"})


@dataclass(slots=True)
class Ask:
    """What one request asks of the cache.

    `control` is its Cache-Control, None if it says nothing. `none_match` and `modified_since` are
    its conditions, `conditional` says that it has any. `bypass` says that it is left to the origin,
    `credentials` that it came with some that the slot does not part.
    """

    slot: Slot
    control: RequestControl | None = None
    none_match: bytes | None = None
    modified_since: bytes | None = None
    conditional: bool = False
    bypass: bool = False
    credentials: bool = False


class Reader:
    """Reads the requests of one route.

    `fingerprint` changes when the route would get other answers; `by_consumer` and `fields` are
    what its `vary_on` says.
    """

    def __init__(
        self, route: str, fingerprint: str, *, by_consumer: bool, fields: tuple[bytes, ...]
    ) -> None:
        self._route = route
        self._fingerprint = fingerprint
        self._by_consumer = by_consumer
        self._fields = fields
        self._special = _SPECIAL | frozenset(fields)
        self._parts_all = by_consumer or bool(fields)
        self._plain = Ask((route, fingerprint, ()))
        self._known = Ask((route, fingerprint, ()), credentials=True)

    def read(self, exchange: Exchange) -> Ask:
        """What a request asks. The result may be shared with others: do not change it."""
        headers = exchange.request.headers
        if self._special.isdisjoint(headers.index) and not self._parts_all:
            return self._plain if exchange.principal is None else self._known
        return self._read(headers, exchange.principal)

    def _read(self, headers: Headers, principal: Principal | None) -> Ask:
        index = headers.index
        return Ask(
            (self._route, self._fingerprint, self._parts(headers, principal)),
            _control(headers),
            _value(headers, b"if-none-match"),
            _value(headers, b"if-modified-since"),
            conditional=not index.keys().isdisjoint(_CONDITIONS),
            bypass=not _ORIGIN_ONLY.isdisjoint(index),
            credentials=self._has_credentials(index, principal),
        )

    def _parts(self, headers: Headers, principal: Principal | None) -> tuple[bytes, ...]:
        parts: list[bytes] = []
        if self._by_consumer:
            parts.append(b"" if principal is None else _caller(principal))
        for name in self._fields:
            value = normal_value(name, headers.get_all(name))
            parts.append(b"-" if value is None else b"=" + value)
        # A set keeps no order; the parts must have one.
        overriding = sorted(OVERRIDES.intersection(headers.index))
        parts.extend(name + b"=" + joined(headers.get_all(name)) for name in overriding)
        return tuple([short(part) for part in parts])

    def _has_credentials(self, index: dict[bytes, bytes], principal: Principal | None) -> bool:
        parted = self._by_consumer and principal is not None
        if principal is not None and not parted:
            return True
        if b"authorization" in index and not parted and b"authorization" not in self._fields:
            return True
        return b"cookie" in index and b"cookie" not in self._fields


def uri_of(request: Request) -> Uri:
    """The URI that a request is for. Host counts with its port: some answers repeat it."""
    host = request.headers.index.get(b"host", b"")
    return host.lower(), request.scheme, request.path, request.query


def selection(names: tuple[bytes, ...], headers: Headers) -> tuple[bytes | None, ...]:
    """The values by which Vary tells requests apart (RFC 9111 section 4.1)."""
    index = headers.index
    return tuple(
        [
            short(normal_value(name, headers.get_all(name)) or b"") if name in index else None
            for name in names
        ]
    )


def normal_value(name: bytes, values: list[bytes]) -> bytes | None:
    """A selecting field's value in the form in which two requests are compared (section 4.1).

    Lines are joined, white space around commas goes, and case where it never means anything. A
    field that is absent (None) matches only where it is absent.
    """
    if not values:
        return None
    value = joined(values)
    if name in _NO_LISTS or b'"' in value:
        return value
    value = b",".join([stripped for each in value.split(b",") if (stripped := each.strip(b" \t"))])
    return value.lower() if name in _ANY_CASE else value


def short(value: bytes) -> bytes:
    """The value, or a digest of it if it is long, so that keys stay small and hold no tokens."""
    # What looks like a digest is one as well, or a short value could stand for a long one.
    if len(value) <= _LONGEST and value[:1] != b"#":
        return value
    return b"#" + blake2b(value, digest_size=24).digest()


def _caller(principal: Principal) -> bytes:
    # One client application may stand for many people: its name alone would not part them.
    claims = principal.claims
    parts = (principal.consumer, str(claims.get("iss", "")), str(claims.get("sub", "")))
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=24).digest()


def _control(headers: Headers) -> RequestControl | None:
    index = headers.index
    if b"cache-control" in index:
        return request_control(joined(headers.get_all(b"cache-control")))
    # Pragma counts only where there is no Cache-Control (RFC 9111 section 5.4).
    if b"pragma" in index and b"no-cache" in joined(headers.get_all(b"pragma")).lower():
        return request_control(b"no-cache")
    return None


def _value(headers: Headers, name: bytes) -> bytes | None:
    return joined(headers.get_all(name)) if name in headers.index else None
