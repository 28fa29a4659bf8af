"""How OpenAPI writes arrays and objects into parameters (its section on `style` and `explode`).

Text is split before it is decoded: an encoded comma is data, a plain one a separator. What can't be
taken apart raises Undecodable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from gateway.contracts.shapes import Shape, coerce

Pairs = Sequence[tuple[str, str]]
"""A query's parameters in order: decoded names, values as they stand there."""

_MAX_NESTING: Final = 5


class Undecodable(ValueError):
    """The text of a parameter is not written as its style has it. `reason` holds no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_text(raw: str, *, plus: bool = False) -> str:
    """Percent-decoded text; `plus` stands for a space in queries. Raises Undecodable."""
    if plus:
        raw = raw.replace("+", " ")
    if "%" not in raw and raw.isascii():
        return raw
    try:
        return unquote_to_bytes(raw.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise Undecodable("is not UTF-8") from None


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """The parameters of a query. Raises Undecodable if a name is not UTF-8."""
    pairs = []
    for part in query.decode("latin-1").split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((decode_text(name, plus=True), value))
    return pairs


def array(parts: Sequence[str], shape: Shape, *, plus: bool = False) -> list[Any]:
    """The items that these texts stand for."""
    item = shape.item()
    return [coerce(decode_text(part, plus=plus), item) for part in parts]


def flat_object(parts: Sequence[str], shape: Shape, *, plus: bool = False) -> dict[str, Any]:
    """The object of `name,value,name,value`."""
    if len(parts) % 2:
        raise Undecodable("a name is without a value")
    return _object(list(zip(parts[::2], parts[1::2], strict=True)), shape, plus=plus)


def exploded_object(parts: Sequence[str], shape: Shape, *, plus: bool = False) -> dict[str, Any]:
    """The object of `name=value` parts."""
    pairs = []
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise Undecodable("a name is without a value")
        pairs.append((name, value))
    return _object(pairs, shape, plus=plus)


def _object(pairs: Sequence[tuple[str, str]], shape: Shape, *, plus: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for raw_name, raw in pairs:
        name = decode_text(raw_name, plus=plus)
        if name in found:
            raise Undecodable("a property is there twice")
        found[name] = coerce(decode_text(raw, plus=plus), shape.member(name))
    return found


def simple(raw: str, shape: Shape, *, explode: bool) -> Any:
    """`a`, `a,b`, `R,100,G,200` or `R=100,G=200`."""
    if shape.is_array:
        return array(raw.split(",") if raw else [], shape)
    if shape.is_object:
        parts = raw.split(",") if raw else []
        return exploded_object(parts, shape) if explode else flat_object(parts, shape)
    return coerce(decode_text(raw), shape)


def label(raw: str, shape: Shape, *, explode: bool) -> Any:
    """`.a`, `.a.b` (`.a,b`), `.R,100,G,200` (`.R.100.G.200`) or `.R=100.G=200`.

    Versions of OpenAPI differ in the separator where nothing is exploded, so both are read.
    """
    if not raw.startswith("."):
        raise Undecodable("does not start with a dot")
    raw = raw[1:]
    if not (shape.is_array or shape.is_object):
        return coerce(decode_text(raw), shape)
    separator = "," if not explode and "," in raw else "."
    parts = raw.split(separator) if raw else []
    if shape.is_array:
        return array(parts, shape)
    return exploded_object(parts, shape) if explode else flat_object(parts, shape)


def matrix(raw: str, shape: Shape, *, name: str, explode: bool) -> Any:
    """`;n=a`, `;n=a,b` (`;n=a;n=b`), `;n=R,100,G,200` or `;R=100;G=200`."""
    if not raw.startswith(";"):
        raise Undecodable("does not start with a semicolon")
    parts = raw[1:].split(";")
    if explode and shape.is_object:
        return exploded_object(parts, shape)
    values = []
    for part in parts:
        found, _, value = part.partition("=")
        if decode_text(found) != name:
            raise Undecodable("names another parameter")
        values.append(value)
    if explode and shape.is_array:
        return array(values, shape)
    if len(values) != 1:
        raise Undecodable("is there more than once")
    return simple(values[0], shape, explode=False)


def separated(raw: str, shape: Shape, separators: Sequence[str]) -> Any:
    """Items, or names and values, with one of these texts between them; the first that is there."""
    for separator in separators:
        if separator in raw:
            parts = raw.split(separator)
            break
    else:
        parts = [raw] if raw else []
    if shape.is_object:
        return flat_object(parts, shape, plus=True)
    return array(parts, shape, plus=True)


def deep_object(name: str, pairs: Pairs, shape: Shape) -> dict[str, Any] | None:
    """The object of `name[a]=1&name[b][c]=2`; None if none of it is there."""
    found: dict[str, Any] = {}
    prefix = name + "["
    for key, raw in pairs:
        if not key.startswith(prefix):
            continue
        if not key.endswith("]"):
            raise Undecodable("a bracket is not closed")
        _put(found, key[len(prefix) : -1].split("]["), decode_text(raw, plus=True), shape)
    return found or None


def _put(into: dict[str, Any], steps: list[str], text: str, shape: Shape) -> None:
    if len(steps) > _MAX_NESTING:
        raise Undecodable("is nested too deeply")
    if len(steps) > 1 and not steps[-1]:
        # name[list][]=1 adds an item, as name[list]=1 does.
        steps = steps[:-1]
    for step in steps[:-1]:
        shape = shape.member(step)
        into = into.setdefault(step, {})
        if not isinstance(into, dict):
            raise Undecodable("a property is there twice")
    _set(into, steps[-1], text, shape.member(steps[-1]))


def _set(into: dict[str, Any], name: str, text: str, shape: Shape) -> None:
    if shape.is_array:
        items = into.setdefault(name, [])
        if not isinstance(items, list):
            raise Undecodable("a property is there twice")
        items.append(coerce(text, shape.item()))
    elif name in into:
        raise Undecodable("a property is there twice")
    else:
        into[name] = coerce(text, shape)


def form_object(pairs: Pairs, shape: Shape, taken: frozenset[str]) -> dict[str, Any] | None:
    """The object whose properties are parameters of their own; None if none of them is there.

    `taken` are the names of other parameters, which are not for further properties.
    """
    found: dict[str, Any] = {}
    for name, raw in pairs:
        if name in shape.properties or (shape.additional is not None and name not in taken):
            member = shape.member(name)
            _set(found, name, decode_text(raw, plus=True), member)
    return found or None


SEPARATORS: Final[Mapping[str, Sequence[str]]] = {
    "form": (",",),
    "spaceDelimited": ("%20", "+"),
    "pipeDelimited": ("|", "%7C", "%7c"),
}
