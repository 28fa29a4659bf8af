"""A value that a JSON Schema allows, as far as that can be guessed: what generated requests send.

Written examples, defaults and constants come first; else the smallest value of the type. Of
patterns only the usual ones are met, by trying; conditions are not solved. Whoever uses such writes
the request into the scenario.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_MAX_DEPTH: Final = 12
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1S",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "3f0c8e8e-3b0d-4d52-9a5b-6f0f2f0f2f01",
}

_TRIED: Final = (
    "1001", "1", "12345678", "a", "A", "abc", "ABC", "AB", "EUR", "A-1", "a-1", "abc_123",
    "ABC-123", "1.0.0", "#00ff00", "+15550100", "/", *_FORMATS.values(),
)  # fmt: skip

Resolve = Callable[[str], Any]
"""What a `$ref` means; None if nothing."""


def example(schema: Any, resolve: Resolve, depth: int = 0) -> Any:
    """A value for `schema`."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {}
    if isinstance(schema.get("$ref"), str):
        return example(resolve(schema["$ref"]), resolve, depth + 1)
    for key in ("example", "const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("oneOf", "anyOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            rest = {name: value for name, value in schema.items() if name != key}
            return example(_joined([rest, schema[key][0]], resolve), resolve, depth + 1)
    if isinstance(schema.get("allOf"), list):
        rest = {name: value for name, value in schema.items() if name != "allOf"}
        return example(_joined([rest, *schema["allOf"]], resolve), resolve, depth + 1)
    return _of_type(schema, resolve, depth)


def _of_type(schema: dict[str, Any], resolve: Resolve, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema or "required" in schema else "string"
    if kind == "object":
        return _object(schema, resolve, depth)
    if kind == "array":
        items = schema.get("items", {})
        return [example(items, resolve, depth + 1)] * max(0, int(schema.get("minItems", 1)))
    if kind == "string":
        return _text(schema)
    if kind in ("integer", "number"):
        return _number(schema)
    return {"boolean": True}.get(str(kind))


def _object(schema: dict[str, Any], resolve: Resolve, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    known: dict[str, Any] = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    return {str(name): example(known.get(name, {}), resolve, depth + 1) for name in names}


def _text(schema: dict[str, Any]) -> str:
    text = _FORMATS.get(str(schema.get("format")), "text")
    if isinstance(schema.get("pattern"), str):
        tried = (each for each in (text, *_TRIED) if matches(schema["pattern"], each))
        return next(tried, text)
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def matches(pattern: str, text: str) -> bool:
    """Whether a schema's pattern is found in the text; not if it is beyond Python's syntax."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _number(schema: dict[str, Any]) -> float:
    least = schema.get("minimum")
    above = schema.get("exclusiveMinimum")
    if isinstance(above, int | float) and not isinstance(above, bool):
        least = above + 1
    if not isinstance(least, int | float):
        most = schema.get("maximum", 1)
        return min(1, most) if isinstance(most, int | float) else 1
    step = schema.get("multipleOf")
    if isinstance(step, int | float) and step > 0 and least % step:
        least += step - least % step
    return least


def _joined(parts: list[Any], resolve: Resolve) -> dict[str, Any]:
    """Several schemas that must all hold, as one: enough for objects put together from parts."""
    whole: dict[str, Any] = {}
    for each in parts:
        part, seen = each, 0
        while isinstance(part, dict) and isinstance(part.get("$ref"), str) and seen < _MAX_DEPTH:
            part, seen = resolve(part["$ref"]), seen + 1
        if not isinstance(part, dict):
            continue
        properties = {**whole.get("properties", {}), **part.get("properties", {})}
        required = [*whole.get("required", []), *part.get("required", [])]
        whole |= part
        if properties:
            whole["properties"] = properties
        if required:
            whole["required"] = list(dict.fromkeys(required))
    return whole
