"""What kind of value a schema is after, so that text, which is all a parameter is, becomes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from gateway.contracts.strict_json import MalformedJson, exact_number

_MAX_DEPTH: Final = 6
_MAX_STEPS: Final = 200
_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,399})", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMERIC: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_KIND: Final[dict[type, str]] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}

Lookup = Callable[[str], Any]
"""Gives the schema that a `$ref` means, or None."""


class Shape:
    """The types that a value may have, and the shapes of what is in it."""

    __slots__ = ("additional", "items", "properties", "types")

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.items: Shape | None = None
        self.properties: dict[str, Shape] = {}
        self.additional: Shape | None = None

    @property
    def is_array(self) -> bool:
        """Whether an array is meant."""
        return "array" in self.types

    @property
    def is_object(self) -> bool:
        """Whether an object is meant, and not an array."""
        return "object" in self.types and "array" not in self.types

    def item(self) -> Shape:
        """The shape of an array's items."""
        return self.items or TEXT

    def member(self, name: str) -> Shape:
        """The shape of an object's property."""
        return self.properties.get(name) or self.additional or TEXT


TEXT: Final = Shape()


def shape_of(schema: Any, lookup: Lookup) -> Shape:
    """The shape that a schema, and what it refers to, asks for; in bounded time."""
    return _Reader(lookup).read(schema, 0)


class _Reader:
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._steps = 0

    def read(self, schema: Any, depth: int) -> Shape:
        shape = Shape()
        self._add(schema, shape, depth, ())
        return shape

    def _add(self, schema: Any, shape: Shape, depth: int, seen: tuple[str, ...]) -> None:
        self._steps += 1
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            return
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            self._add(self._lookup(reference), shape, depth, (*seen, reference))
        self._types(schema, shape)
        for key in ("allOf", "anyOf", "oneOf"):
            for branch in _schemas(schema.get(key)):
                self._add(branch, shape, depth, seen)
        for key in ("then", "else"):
            self._add(schema.get(key), shape, depth, seen)
        self._inside(schema, shape, depth)

    def _inside(self, schema: dict[str, Any], shape: Shape, depth: int) -> None:
        if "items" in schema and shape.items is None:
            shape.items = self.read(schema["items"], depth + 1)
        properties = schema.get("properties")
        if isinstance(properties, dict):
            for name, each in properties.items():
                if name not in shape.properties:
                    shape.properties[name] = self.read(each, depth + 1)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict) or additional is True:
            shape.additional = shape.additional or self.read(additional, depth + 1)

    @staticmethod
    def _types(schema: dict[str, Any], shape: Shape) -> None:
        types = schema.get("type")
        if isinstance(types, str):
            shape.types.add(types)
            return
        if isinstance(types, list):
            shape.types.update(each for each in types if isinstance(each, str))
            return
        values = schema.get("enum")
        for value in values if isinstance(values, list) else []:
            shape.types.add(_KIND.get(type(value), "string"))
        if "const" in schema:
            shape.types.add(_KIND.get(type(schema["const"]), "string"))
        if "items" in schema or "prefixItems" in schema:
            shape.types.add("array")
        if "properties" in schema:
            shape.types.add("object")
        if any(key in schema for key in _NUMERIC):
            shape.types.add("number")


def _schemas(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def coerce(text: str, shape: Shape) -> Any:
    """The value that `text` stands for, if it is one of the shape's types; else the text itself."""
    types = shape.types
    if not types or (len(types) == 1 and "string" in types):
        return text
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if ("integer" in types or "number" in types) and _WHOLE.fullmatch(text):
        return int(text)
    if ("number" in types or "integer" in types) and _NUMBER.fullmatch(text):
        return _decimal(text)
    if "null" in types and "string" not in types and text in ("", "null"):
        return None
    return text


def _decimal(text: str) -> Any:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return exact_number(text)
    except MalformedJson:
        return text
