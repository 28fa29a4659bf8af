"""Which values JSON Schema's keywords may have: what is left of a schema that is not quite one."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from gateway.contracts.schema import check_pattern

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
SUBSCHEMAS: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
LISTS_OF_SCHEMAS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAPS_OF_SCHEMAS: Final = frozenset({"dependentSchemas", "patternProperties", "properties"})
# What says nothing about which values are valid, or is dealt with on its own.
IGNORED: Final = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$ref",
        "$schema",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "nullable",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    }
)


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _count(value: Any) -> bool:
    return _number(value) and value >= 0 and value == int(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_json(value: Any) -> bool:
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)
        elif isinstance(each, float) and not math.isfinite(each):
            return False
    return True


def _dependent(value: Any) -> bool:
    return isinstance(value, dict) and all(_names(each) for each in value.values())


def is_type(value: Any) -> bool:
    """Whether this is a type's name."""
    return isinstance(value, str) and value in _TYPES


@lru_cache(maxsize=4096)
def is_pattern(value: str) -> bool:
    """Whether this is a regular expression that can be matched in linear time."""
    return check_pattern(value)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "const": _is_json,
    "dependentRequired": _dependent,
    "enum": lambda value: isinstance(value, list) and bool(value) and _is_json(value),
    "format": lambda value: isinstance(value, str),
    "maxContains": _count,
    "maxItems": _count,
    "maxLength": _count,
    "maxProperties": _count,
    "maximum": _number,
    "minContains": _count,
    "minItems": _count,
    "minLength": _count,
    "minProperties": _count,
    "minimum": _number,
    "multipleOf": lambda value: _number(value) and value > 0,
    "uniqueItems": lambda value: isinstance(value, bool),
}


def is_known(key: str) -> bool:
    """Whether this keyword stands for itself, and its value can be judged by `is_fit`."""
    return key in _CHECKS


def is_fit(key: str, value: Any) -> bool:
    """Whether a keyword may have this value."""
    return _CHECKS[key](value)
