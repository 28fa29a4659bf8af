"""Examples of schemas are what the schemas ask for."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from gateway.chaos.example import example

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["id", "lines", "when"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]{8}$"},
        "when": {"type": "string", "format": "date-time"},
        "note": {"type": "string"},
        "lines": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/line"}},
    },
    "additionalProperties": False,
    "$defs": {
        "line": {
            "allOf": [
                {"type": "object", "required": ["sku"], "properties": {"sku": {"minLength": 6}}},
                {
                    "required": ["n"],
                    "properties": {"n": {"type": "integer", "exclusiveMinimum": 3}},
                },
            ]
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        ORDER,
        {"enum": ["b", "a"]},
        {"const": None},
        {"type": ["null", "integer"], "minimum": 7, "multipleOf": 5},
        {"type": "number", "maximum": -2},
        {"oneOf": [{"type": "boolean"}, {"type": "string"}]},
        {"type": "object", "required": ["a"], "anyOf": [{"properties": {"a": {"const": 1}}}]},
        {"type": "string", "maxLength": 2},
        {"type": "null"},
        {"required": ["x"]},
        True,
    ],
    ids=str,
)
def test_an_example_meets_its_schema(schema: Any) -> None:
    """Types, bounds, patterns that are usual, parts that are joined, references."""

    def resolve(reference: str) -> Any:
        node: Any = schema
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        return node

    assert jsonschema_rs.is_valid(schema, example(schema, resolve))


def test_what_someone_wrote_comes_first() -> None:
    """Examples and defaults are taken as they are."""
    nothing: Any = lambda reference: None  # noqa: E731

    assert example({"type": "string", "example": "mine"}, nothing) == "mine"
    assert example({"type": "string", "examples": ["one", "two"]}, nothing) == "one"
    assert example({"type": "integer", "default": 4}, nothing) == 4


def test_schemas_without_end_end() -> None:
    """A schema that needs itself, a reference to nothing, a pattern that is none."""
    circle: Any = {"type": "object", "required": ["me"], "properties": {"me": {"$ref": "#"}}}

    assert example(circle, lambda reference: circle)
    assert example({"$ref": "#/gone"}, lambda reference: None) == {}
    assert example({"type": "string", "pattern": "("}, lambda reference: None) == "text"
