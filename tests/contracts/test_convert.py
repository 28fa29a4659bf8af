"""OpenAPI's schemas as JSON Schema: 3.0 and 3.1, both directions, and what is not quite right."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contracts.contract import Contract
from gateway.contracts.schema import Schema
from tests.contracts.conftest import Import

REF = "#/components/schemas/"


def body_schema(contract: Contract) -> Schema:
    """The validator of what POST / takes."""
    found = contract.find("/")
    assert found is not None
    operation = found[0].find("POST")
    assert operation is not None and operation.body is not None
    entry = operation.body.content.find("application/json")
    assert entry is not None
    schema = entry[1].schema()
    assert schema is not None
    return schema


def answer_schema(contract: Contract) -> Schema:
    """The validator of what POST / answers."""
    found = contract.find("/")
    assert found is not None
    operation = found[0].find("POST")
    assert operation is not None
    table = operation.response(200)
    assert table is not None
    entry = table.find("application/json")
    assert entry is not None
    schema = entry[1].schema()
    assert schema is not None
    return schema


def paths(schema: Any) -> dict[str, Any]:
    """POST / takes and answers this."""
    content = {"application/json": {"schema": schema}}
    return {
        "/": {
            "post": {
                "requestBody": {"content": content},
                "responses": {"200": {"description": "", "content": content}},
            }
        }
    }


CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    # version, schema, valid, invalid
    ("3.0.3", {"type": "string", "nullable": True}, ["a", None], [1]),
    ("3.0.3", {"type": "string", "nullable": False}, ["a"], [None]),
    ("3.0.3", {"type": "string", "nullable": True, "enum": ["a"]}, ["a", None], ["b"]),
    ("3.0.3", {"nullable": True, "allOf": [{"$ref": REF + "N"}]}, [3, None], ["x"]),
    ("3.0.3", {"nullable": True}, ["a", None], []),
    ("3.1.0", {"type": ["string", "null"]}, ["a", None], [1]),
    ("3.1.0", {"type": ["string", None]}, ["a", None], [1]),
    ("3.0.3", {"minimum": 3, "exclusiveMinimum": True}, [4], [3]),
    ("3.0.3", {"minimum": 3, "exclusiveMinimum": False}, [3], [2]),
    ("3.0.3", {"maximum": 3, "exclusiveMaximum": True}, [2], [3]),
    ("3.0.3", {"exclusiveMinimum": True}, [1], []),
    ("3.1.0", {"exclusiveMinimum": 3}, [4], [3]),
    ("3.0.3", {"type": "integer", "format": "int32"}, [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
    ("3.0.3", {"type": "integer", "format": "int64"}, [2**63 - 1], [2**63]),
    ("3.0.3", {"type": "integer", "format": "int32", "minimum": 0}, [0], [-1, 2**31]),
    ("3.0.3", {"type": "string", "format": "date"}, ["2026-11-25"], ["25.11.2026"]),
    ("3.0.3", {"type": "string", "format": "made-up"}, ["x"], [1]),
    ("3.0.3", {"type": "number", "format": "double"}, [1.5], ["x"]),
    # Beside a $ref, 3.0 takes notice of nothing; 3.1 of everything.
    ("3.0.3", {"$ref": REF + "N", "maximum": 5}, [9], ["x"]),
    ("3.1.0", {"$ref": REF + "N", "maximum": 5}, [3], [9, "x"]),
    ("3.0.3", {"type": "object", "example": {"a": {}}, "xml": {}, "x-y": 1}, [{}], [1]),
    ("3.1.0", {"examples": [1], "title": "t", "deprecated": True, "default": 1, "const": 2},
     [2], [1]),
    ("3.1.0", {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"],
               "unevaluatedProperties": False}, [{"a": 1}], [{"a": 2}, {"a": 1, "b": 2}]),
    ("3.1.0", {"prefixItems": [{"type": "integer"}], "items": False}, [[1]], [["a"], [1, 2]]),
    ("3.1.0", {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"minimum": 1}},
     ["a", 1], ["ab", 0]),
    ("3.1.0", {"patternProperties": {"^a": {"type": "integer"}}}, [{"a": 1, "b": ""}], [{"a": ""}]),
    ("3.1.0", True, [1], []),
    ("3.1.0", False, [], [1]),
    ("3.1.0", {"$defs": {"x": {"type": "integer"}}, "items": {"$ref": REF + "D/$defs/x"}},
     [[1]], [["a"]]),
    ("3.1.0", {"not": {"type": "string"}, "uniqueItems": True}, [[1, 2]], ["a", [1, 1]]),
    # Round and round.
    ("3.0.3", {"$ref": REF + "Tree"}, [{"left": {"left": {}}}],
     [{"left": {"left": {"value": "x"}}}]),
    ("3.0.3", {"$ref": REF + "Loop"}, [1, "a"], []),
    # What is not right is left out, and the rest holds.
    ("3.0.3", {"type": "string", "required": True, "maxLength": 2}, ["ab"], ["abc"]),
    ("3.0.3", {"type": "strong", "maxLength": 2}, ["ab"], ["abc"]),
    ("3.0.3", {"type": "string", "pattern": "(", "maxLength": 2}, ["ab"], ["abc"]),
    ("3.0.3", {"type": "string", "pattern": "^(?=x)", "maxLength": 2}, ["ab"], ["abc"]),
    ("3.0.3", {"type": "integer", "minimum": "3", "maximum": 9}, [1], [10]),
    ("3.0.3", {"type": "array", "items": [{"type": "integer"}]}, [[1]], [["a"]]),
    ("3.0.3", {"type": "array", "items": 3, "minItems": 1}, [["a"]], [[]]),
    ("3.0.3", {"type": "object", "properties": [], "minProperties": 1}, [{"a": 1}], [{}]),
    ("3.0.3", {"type": "object", "properties": {"a": None, "b": {"type": "integer"}}},
     [{"a": "x"}], [{"b": "x"}]),
    ("3.0.3", {"type": "object", "properties": {"a": {"$ref": REF + "Nowhere"},
               "b": {"type": "integer"}}}, [{"a": "x"}], [{"b": "x"}]),
    ("3.0.3", {"$ref": "#nowhere"}, [1], []),
    ("3.0.3", {"$ref": "https://example.com/a.json"}, [1], []),
    ("3.0.3", {"$ref": "../../../../../../etc/passwd"}, [1], []),
    ("3.0.3", {"enum": "a", "type": "string"}, ["b"], [1]),
    ("3.0.3", {"enum": [], "type": "string"}, ["b"], [1]),
    ("3.0.3", {"allOf": {}, "type": "string"}, ["b"], [1]),
    ("3.0.3", {"multipleOf": 0, "type": "integer"}, [1], ["a"]),
    ("3.0.3", {"minLength": -1, "maxLength": 2.5, "type": "string"}, ["abcd"], [1]),
    ("3.0.3", "string", [1], []),
    ("3.0.3", {"made": "up", "type": "string"}, ["a"], [1]),
    ("3.0.3", {"type": "object", "required": ["a", "a", 3]}, [{}], [1]),
    ("3.0.3", {"type": "object", "required": ["a", "a"]}, [{"a": 1}], [{}]),
    ("3.0.3", {"type": "object", "additionalProperties": "no"}, [{"a": 1}], [1]),
    ("3.0.3", {"type": "object", "properties": {"required": {"type": "integer"}}},
     [{"required": 1}], [{"required": "a"}]),
]  # fmt: skip
COMPONENTS = {
    "schemas": {
        "N": {"type": "integer"},
        "D": {"$defs": {"x": {"type": "integer"}}},
        "Tree": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "left": {"$ref": REF + "Tree"},
                "right": {"$ref": REF + "Tree"},
            },
        },
        "Loop": {"$ref": REF + "Pool"},
        "Pool": {"$ref": REF + "Loop"},
    }
}


@pytest.mark.parametrize(("version", "schema", "valid", "invalid"), CASES)
def test_conversion(
    version: str, schema: Any, valid: list[Any], invalid: list[Any], load: Import
) -> None:
    """Values that a schema takes, and that it does not."""
    found = body_schema(load(paths(schema), version=version, components=COMPONENTS))

    for value in valid:
        assert found.check(value, "body") == [], value
    for value in invalid:
        assert found.check(value, "body"), value


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_what_is_sent_one_way_only(version: str, load: Import) -> None:
    """A readOnly property is for answers, a writeOnly one for requests, required or not."""
    schema = {
        "type": "object",
        "required": ["id", "name", "password"],
        "properties": {
            "id": {"type": "string", "readOnly": True},
            "made": {"$ref": REF + "Made"},
            "name": {"type": "string"},
            "password": {"type": "string", "writeOnly": True},
        },
    }
    components = {"schemas": {"Made": {"type": "string", "readOnly": True}, "S": schema}}
    contract = load(paths({"$ref": REF + "S"}), version=version, components=components)
    request, answer = body_schema(contract), answer_schema(contract)

    assert request.is_valid({"name": "a", "password": "b"})
    assert not request.is_valid({"name": "a"})
    assert not request.is_valid({"name": "a", "password": "b", "id": "1"})
    assert not request.is_valid({"name": "a", "password": "b", "made": "1"})
    assert answer.is_valid({"name": "a", "id": "1", "made": "now"})
    assert not answer.is_valid({"name": "a"})
    assert not answer.is_valid({"name": "a", "id": "1", "password": "b"})


def test_required_beside_the_schema_that_says_read_only(load: Import) -> None:
    """The property stands in one part of an allOf, `required` in another."""
    base = {"type": "object", "properties": {"id": {"type": "string", "readOnly": True}}}
    schema = {"allOf": [{"$ref": REF + "Base"}, {"required": ["id", "name"]}], "required": ["id"]}
    contract = load(paths(schema), version="3.0.0", components={"schemas": {"Base": base}})

    assert body_schema(contract).is_valid({"name": "a"})
    assert not body_schema(contract).is_valid({})
    assert answer_schema(contract).is_valid({"id": "1", "name": "a"})
    assert not answer_schema(contract).is_valid({"name": "a"})


PETS = {
    "Cat": {"type": "object", "required": ["kind"], "properties": {
        "kind": {"type": "string"}, "lives": {"type": "integer"}}},
    "Dog": {"type": "object", "required": ["kind", "bark"], "properties": {
        "kind": {"type": "string"}, "bark": {"type": "string"}}},
}  # fmt: skip


@pytest.mark.parametrize("branches", ["oneOf", "anyOf"])
def test_discriminator_without_a_mapping(branches: str, load: Import) -> None:
    """The value is the name of a schema; that schema alone is told to be broken."""
    schema = {
        branches: [{"$ref": REF + "Cat"}, {"$ref": REF + "Dog"}],
        "discriminator": {"propertyName": "kind"},
    }
    found = body_schema(load(paths(schema), version="3.0.3", components={"schemas": PETS}))

    assert found.is_valid({"kind": "Cat", "lives": 7})
    assert found.is_valid({"kind": "Dog", "bark": "loud"})
    (wrong,) = found.check({"kind": "Cat", "lives": "x"}, "body")
    assert (wrong.pointer, wrong.keyword) == ("/lives", "type")
    for value in ({"kind": "Cow"}, {"lives": 1}, {"kind": "Dog"}, "Cat", None, {"kind": 3}):
        assert not found.is_valid(value), value


def test_discriminator_with_a_mapping(load: Import) -> None:
    """Names of the mapping's own, as references and as names; the implicit ones stay."""
    schema = {
        "oneOf": [{"$ref": REF + "Cat"}, {"$ref": REF + "Dog"}],
        "discriminator": {"propertyName": "kind", "mapping": {"c": REF + "Cat", "d": "Dog"}},
    }
    found = body_schema(load(paths(schema), components={"schemas": PETS}))

    for kind in ("c", "Cat"):
        assert found.is_valid({"kind": kind, "lives": 1})
    assert found.is_valid({"kind": "d", "bark": "x"})
    assert not found.is_valid({"kind": "d", "lives": 1})


def test_discriminator_of_a_parent(load: Import) -> None:
    """Schemas that build on it are known by their names, over several steps."""
    schemas = {
        "Pet": {"type": "object", "required": ["kind"],
                "properties": {"kind": {"type": "string"}},
                "discriminator": {"propertyName": "kind", "mapping": {"kitty": REF + "Cat"}}},
        "Cat": {"allOf": [{"$ref": REF + "Pet"}, {"required": ["lives"]}]},
        "Dog": {"allOf": [{"$ref": REF + "Pet"}, {"required": ["bark"]}]},
        "Puppy": {"allOf": [{"$ref": REF + "Dog"}, {"required": ["age"]}]},
    }  # fmt: skip
    contract = load(paths({"items": {"$ref": REF + "Pet"}}), components={"schemas": schemas})
    found = body_schema(contract)

    assert contract.warnings == []
    for value in (
        {"kind": "Cat", "lives": 1},
        {"kind": "kitty", "lives": 1},
        {"kind": "Dog", "bark": 1},
        {"kind": "Puppy", "bark": 1, "age": 1},
        {"kind": "Pet"},
    ):
        assert found.is_valid([value]), value
    for value in (
        {"kind": "Cat"},
        {"kind": "kitty"},
        {"kind": "Puppy", "bark": 1},
        {"kind": "Cow"},
    ):
        assert not found.is_valid([value]), value


def test_discriminator_that_leads_nowhere(load: Import) -> None:
    """Alternatives in place have no names: they are tried, as without it."""
    schema = {
        "oneOf": [{"type": "integer"}, {"type": "null"}],
        "discriminator": {"propertyName": "k"},
    }
    contract = load(paths(schema))

    assert body_schema(contract).is_valid(3)
    assert not body_schema(contract).is_valid("x")
    assert len(contract.warnings) == 2  # one for each direction


def test_warnings_say_where(load: Import) -> None:
    """With the file and a JSON pointer, once each."""
    contract = load(paths({"type": "strong", "items": {"pattern": "("}}))
    prefix = "openapi.json#/paths/~1/post/"

    assert f"{prefix}requestBody/content/application~1json/schema/type: " in "\n".join(
        contract.warnings
    )
    assert all(each.startswith("openapi.json#/") for each in contract.warnings)
    assert len(contract.warnings) == 4
