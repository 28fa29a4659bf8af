"""A key made of a request: what repetitions have in common, or what must stay in order. Pure.

header                           the Idempotency-Key field, a quoted string or bare
body.event_id                    one field of the JSON body
hash(headers.X-Event-Id, body.order_id)     several facts, hashed
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.message import Headers

FIELD: Final = b"idempotency-key"
MAX_LENGTH: Final = 255
_ABSENT: Final = object()
_SOURCE: Final = re.compile(
    r"(?:(body)\.(?P<body>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)"
    r"|(headers)\.(?P<header>[A-Za-z0-9_-]+)|(query)\.(?P<query>[A-Za-z0-9_-]+)"
    r"|(params)\.(?P<param>[A-Za-z0-9_]+))",
    re.ASCII,
)
_HASH: Final = re.compile(r"hash\((?P<sources>[^()]*)\)")
# RFC 9651 section 3.3.3: printable ASCII in quotes, with \\ and \" escaped.
_QUOTED: Final = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:;.*)?')
_BARE: Final = re.compile(rb"[!#-\[\]-~]+")


class BadKey(ValueError):
    """The request has a key that is none, or lacks what its key is made of."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a key may be made of. `body` is the parsed JSON, or None if nobody asked for it."""

    headers: Headers
    query: bytes
    params: Mapping[str, str]
    body: Any = None


Source = Callable[[Facts], Any]


def read_field(headers: Headers) -> str | None:
    """The Idempotency-Key that the client sent, or None. Raises BadKey.

    The draft asks for a quoted string (section 2.1); bare keys are what most clients send.
    """
    values = headers.get_all(FIELD)
    if not values:
        return None
    if len(values) > 1:
        raise BadKey("Idempotency-Key is given more than once")
    value = values[0]
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(rb'\\(["\\])', rb"\1", quoted[1]) if quoted else value
    if not key or (quoted is None and _BARE.fullmatch(value) is None):
        raise BadKey("Idempotency-Key is no quoted string and no bare key")
    if len(key) > MAX_LENGTH:
        raise BadKey(f"Idempotency-Key is longer than {MAX_LENGTH} characters")
    return key.decode("ascii")


class KeyRule:
    """A compiled `key:`. `needs_body` says whether the JSON body must be parsed for it."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, whose text is fit for the configuration's author."""
        self.from_header = text == "header"
        sources: list[str] = []
        if not self.from_header:
            hashed = _HASH.fullmatch(text)
            sources = [part.strip() for part in hashed["sources"].split(",")] if hashed else [text]
        self.hashed = text.startswith("hash(")
        self._sources = [(source, _compile(source)) for source in sources]
        self.needs_body = any(source.startswith("body.") for source in sources)

    def derive(self, facts: Facts) -> str:
        """The key of a request, when it is not the client's own. Raises BadKey."""
        found: list[str] = []
        for name, source in self._sources:
            value = source(facts)
            if value is _ABSENT or value is None or value == "":
                raise BadKey(f"{name} is missing, which the key is made of")
            if isinstance(value, dict | list):
                value = msgspec.json.encode(value, order="deterministic").decode()
            found.append(str(value))
        if not self.hashed:
            return found[0] if len(found[0]) <= MAX_LENGTH else _digest(found)
        return _digest(found)


def _digest(parts: list[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def _compile(text: str) -> Source:
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected header, or body.field, headers.Name, query.name, params.name, "
            "or hash(...) of several of them"
        )
    if match["body"]:
        return _from_body(tuple(match["body"].split(".")))
    if match["header"]:
        return _from_header(match["header"].lower().encode())
    if match["query"]:
        return _from_query(match["query"])
    return _from_params(match["param"])


def _from_body(steps: tuple[str, ...]) -> Source:
    def take(facts: Facts) -> Any:
        value = facts.body
        for step in steps:
            if not isinstance(value, dict) or step not in value:
                return _ABSENT
            value = value[step]
        return value

    return take


def _from_header(name: bytes) -> Source:
    def take(facts: Facts) -> Any:
        values = facts.headers.get_all(name)
        return b", ".join(values).decode("latin-1") if values else _ABSENT

    return take


def _from_query(name: str) -> Source:
    wanted = name.encode()

    def take(facts: Facts) -> Any:
        for part in facts.query.split(b"&"):
            key, _, value = part.partition(b"=")
            if key == wanted:
                return value.decode("latin-1")
        return _ABSENT

    return take


def _from_params(name: str) -> Source:
    return lambda facts: facts.params.get(name, _ABSENT)
