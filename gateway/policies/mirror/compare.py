"""How the mirror's answer differs from the one that the client got. Pure.

The comparison is of one request's two answers; what may differ by right (dates, ids) is left out by
not naming it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.message import RawHeaders

_KINDS: Final[dict[type, str]] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "number",
    list: "array",
    str: "string",
    type(None): "null",
}
_ABSENT: Final = "nothing"
_MISSING: Final = object()
_UNREADABLE: Final = object()
# Differences of one aspect that are told.
_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer. `body` is None if it was too large to keep, or broke off."""

    status: int
    headers: RawHeaders
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What is compared. Header names are lower case, `fields` are JSON pointers (RFC 6901)."""

    status: bool = True
    headers: tuple[bytes, ...] = ()
    schema: bool = False
    fields: tuple[str, ...] = ()

    @property
    def needs_body(self) -> bool:
        """Whether the bodies are looked at."""
        return self.schema or bool(self.fields)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs: `aspect` is status, headers, schema or fields.

    `where` is a header's name or a pointer, `*` in it any item of an array.
    """

    aspect: str
    where: str
    expected: Any
    found: Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` is `equal`, the first aspect that differs, or `unreadable`: a body can't be read."""

    result: str
    differences: tuple[Difference, ...] = ()


def compare(primary: Seen, mirrored: Seen, rules: Rules) -> Verdict:
    """The verdict, with a few differences of each aspect."""
    found: list[Difference] = []
    if rules.status and primary.status != mirrored.status:
        found.append(Difference("status", "", primary.status, mirrored.status))
    found += _headers(primary.headers, mirrored.headers, rules.headers)
    readable = True
    if rules.needs_body:
        expected, actual = _read(primary), _read(mirrored)
        readable = expected is not _UNREADABLE and actual is not _UNREADABLE
        if readable:
            found += _first(schema_differences(expected, actual)) if rules.schema else []
            found += _first(_fields(expected, actual, rules.fields))
    if found:
        return Verdict(found[0].aspect, tuple(found))
    return Verdict("equal" if readable else "unreadable")


def _first(differences: Iterator[Difference]) -> list[Difference]:
    return [each for each, _ in zip(differences, range(_TOLD), strict=False)]


def _headers(
    primary: RawHeaders, mirrored: RawHeaders, names: Sequence[bytes]
) -> Iterator[Difference]:
    for name in names:
        expected = b", ".join(value for key, value in primary if key == name)
        actual = b", ".join(value for key, value in mirrored if key == name)
        if expected != actual:
            texts = expected.decode("latin-1"), actual.decode("latin-1")
            yield Difference("headers", name.decode("ascii"), *texts)


def _read(seen: Seen) -> Any:
    """The body as JSON; nothing if it is empty."""
    if seen.body is None or any(name == b"content-encoding" for name, _ in seen.headers):
        return _UNREADABLE
    if not seen.body:
        return _MISSING
    try:
        return msgspec.json.decode(seen.body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _UNREADABLE


def schema_differences(expected: Any, actual: Any) -> Iterator[Difference]:
    """Where the two have values of different kinds, or one has none.

    The items of an array are taken together: what kinds they have, and which members. An empty
    array says nothing of its items.
    """
    one, other = _shape(expected), _shape(actual)
    for pointer in sorted(one.keys() | other.keys()):
        kinds, kinds_there = one.get(pointer), other.get(pointer)
        if kinds == kinds_there or _is_open(pointer, one) or _is_open(pointer, other):
            continue
        yield Difference("schema", pointer, _words(kinds), _words(kinds_there))


def _words(kinds: set[str] | None) -> str:
    return " or ".join(sorted(kinds)) if kinds else _ABSENT


def _is_open(pointer: str, shape: dict[str, set[str]]) -> bool:
    """Whether the pointer leads into items of an array that has none there, or beyond a member
    that is told already because it is missing.
    """
    if pointer in shape:
        return False
    parent = pointer.rpartition("/")[0]
    if pointer.endswith("/*"):
        return True
    return bool(pointer) and (parent not in shape or "object" not in shape[parent])


def _shape(value: Any) -> dict[str, set[str]]:
    """The kinds of value by pointer."""
    shape: dict[str, set[str]] = {}
    if value is _MISSING:
        return shape
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        pointer, each = left.pop()
        shape.setdefault(pointer, set()).add(_KINDS[type(each)])
        if isinstance(each, dict):
            left += ((f"{pointer}/{_escape(key)}", member) for key, member in each.items())
        elif isinstance(each, list):
            left += ((f"{pointer}/*", item) for item in each)
    return shape


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _fields(expected: Any, actual: Any, pointers: Sequence[str]) -> Iterator[Difference]:
    for pointer in pointers:
        one, other = resolve(expected, pointer), resolve(actual, pointer)
        # True is no 1 here, which it is to Python.
        if type(one) is not type(other) or one != other:
            texts = tuple(_ABSENT if each is _MISSING else each for each in (one, other))
            yield Difference("fields", pointer, *texts)


def resolve(value: Any, pointer: str) -> Any:
    """What a JSON pointer leads to; a marker of its own if there is nothing."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            return _MISSING
    return value
