"""Compiled schemas: what they say of values, and what they don't let anyone do."""

from __future__ import annotations

import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contracts.schema import MAX_NODES, Registry, Schema, SchemaError
from gateway.contracts.violations import MAX_VIOLATIONS, summary

SECRET = "hunter2-secret"
CASES: list[tuple[Any, Any, str, str, str]] = [
    # schema, value, pointer, keyword, message
    ({"type": "integer"}, SECRET, "", "type", "is not of type integer"),
    ({"type": ["integer", "null"]}, SECRET, "", "type", "is not of type integer or null"),
    ({"required": ["id"]}, {}, "", "required", 'the property "id" is missing'),
    ({"properties": {"a/b": {"type": "null"}}}, {"a/b": SECRET}, "/a~1b", "type",
     "is not of type null"),
    ({"items": {"minimum": 3}}, [3, 2], "/1", "minimum", "is less than the minimum of 3"),
    ({"maximum": 3}, 4, "", "maximum", "is greater than the maximum of 3"),
    ({"exclusiveMinimum": 3}, 3, "", "exclusiveMinimum",
     "is less than or equal to the minimum of 3"),
    ({"exclusiveMaximum": 3}, 3, "", "exclusiveMaximum",
     "is greater than or equal to the maximum of 3"),
    ({"multipleOf": 2}, 3, "", "multipleOf", "is not a multiple of 2"),
    ({"minLength": 20}, SECRET, "", "minLength", "is shorter than 20 characters"),
    ({"maxLength": 2}, SECRET, "", "maxLength", "is longer than 2 characters"),
    ({"pattern": "^[0-9]+$"}, SECRET, "", "pattern", 'does not match "^[0-9]+$"'),
    ({"format": "email"}, SECRET, "", "format", 'is not a "email"'),
    ({"enum": ["a"]}, SECRET, "", "enum", "is not one of the values that are allowed"),
    ({"const": "a"}, SECRET, "", "const", "is not the value that is expected"),
    ({"minItems": 2}, [SECRET], "", "minItems", "has less than 2 items"),
    ({"maxItems": 0}, [SECRET], "", "maxItems", "has more than 0 items"),
    ({"uniqueItems": True}, [SECRET, SECRET], "", "uniqueItems", "holds the same item twice"),
    ({"contains": {"type": "null"}}, [SECRET], "", "contains",
     "does not hold the items that it must"),
    ({"minProperties": 2}, {"a": SECRET}, "", "minProperties", "has less than 2 properties"),
    ({"properties": {}, "additionalProperties": False}, {"b": SECRET}, "", "additionalProperties",
     "these properties are not allowed: 'b'"),
    ({"properties": {"a": False}}, {"a": SECRET}, "/a", "false", "is not allowed here"),
    ({"not": {"type": "string"}}, SECRET, "", "not", "is what it must not be"),
    ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, SECRET, "", "oneOf",
     "meets several of the alternatives, and must meet one"),
    ({"anyOf": [{"type": "null"}]}, SECRET, "", "type", "is not of type null"),
    ({"if": {"type": "string"}, "then": {"maxLength": 1}}, SECRET, "", "maxLength",
     "is longer than 1 character"),
    ({"dependentRequired": {"a": ["b"]}}, {"a": SECRET}, "", "dependentRequired",
     'the property "b" is missing'),
    ({"propertyNames": {"maxLength": 1}}, {"ab": SECRET}, "", "maxLength",
     "is longer than 1 character"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value", "pointer", "keyword", "message"), CASES)
def test_what_is_told(schema: Any, value: Any, pointer: str, keyword: str, message: str) -> None:
    """A violation says where, which keyword, and what was asked for; never what was there."""
    (found,) = Schema(schema).check(value, "body")

    assert found.as_mapping() == {
        "in": "body", "pointer": pointer, "keyword": keyword, "message": message,
    }  # fmt: skip
    assert SECRET not in str(found)


def test_the_value_is_not_in_the_message_whatever_it_holds() -> None:
    """A value that looks like the end of a message is still only a value."""
    tricky = f'x is not of type "{SECRET}" is less than the minimum of {SECRET}'
    for schema in ({"type": "integer"}, {"maxLength": 1}, {"pattern": "^$"}, {"enum": [1]}):
        for found in Schema(schema).check(tricky, "body"):
            assert SECRET not in found.message


def test_all_are_told_and_a_bounded_number_shown() -> None:
    """One answer has every violation, up to a bound, and their count."""
    found = Schema({"items": {"type": "integer"}}).check(["x"] * 250, "body")
    members = summary(found)

    assert len(found) == 250
    assert members["violations_total"] == 250
    shown = members["violations"]
    assert isinstance(shown, list)
    assert [each["pointer"] for each in shown] == [f"/{n}" for n in range(MAX_VIOLATIONS)]


def test_of_a_very_large_value_the_first_is_told() -> None:
    """Looking for all of them would stop everyone else for seconds."""
    schema = Schema({"items": {"anyOf": [{"required": ["a", "b"]}, {"type": "string"}]}})
    began = time.perf_counter()
    found = schema.check([{"c": 1}] * (MAX_NODES * 4), "body")

    assert len(found) == 1
    assert found[0].pointer == "/0"
    assert time.perf_counter() - began < 2


def test_long_pointers_are_cut() -> None:
    """A name of a megabyte does not come back as one."""
    schema = Schema({"additionalProperties": {"type": "integer"}})
    (found,) = schema.check({"a" * 1_000_000: "x"}, "body")

    assert len(found.as_mapping()["pointer"]) < 300
    (found,) = Schema({"properties": {}, "additionalProperties": False}).check(
        {"a" * 1_000_000: "x"}, "body"
    )
    assert len(found.message) < 300


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": {"type": "text"}}}, "/properties/a/type"),
        ({"pattern": "("}, "/pattern"),
        ({"items": {"pattern": "(?=x)y"}}, "/items/pattern"),
        ({"pattern": r"(a)\1"}, "/pattern"),
        ({"$schema": "https://example.com/dialect"}, "/$schema"),
        ({"$ref": "#/nowhere"}, ""),
        ({"$ref": "https://example.com/order.json"}, ""),
        ({"$ref": "http://169.254.169.254/latest"}, ""),
        ({"$ref": "file:///etc/passwd"}, ""),
        ({"minimum": "3"}, "/minimum"),
    ],
)
def test_what_can_not_be_compiled_says_where(schema: Any, pointer: str) -> None:
    """With a JSON pointer; and nothing is fetched to find out."""
    with pytest.raises(SchemaError) as caught:
        Schema(schema)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"not": {"$ref": "#"}},
        {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#"}]}}},
    ],
)
def test_schemas_that_lead_back_to_themselves_end(schema: Any) -> None:
    """A reference round in a circle is no endless loop."""
    Schema(schema).check({"a": [1]}, "body")


def test_patterns_take_linear_time() -> None:
    """The classic that doubles its time with each letter."""
    schema = Schema({"pattern": "^(a+)+$"})
    began = time.perf_counter()

    assert schema.check("a" * 50_000 + "!", "body")
    assert time.perf_counter() - began < 1


def test_older_drafts_that_say_so_are_read_as_such() -> None:
    """Tuples in `items` were right once."""
    schema = Schema(
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    )

    assert schema.check([1], "body")


def test_registry() -> None:
    """What is in it can be referred to; nothing else can."""
    registry = Registry([("test:a", {"$defs": {"n": {"type": "integer"}}})])

    assert Schema({"$ref": "test:a#/$defs/n"}, registry).check("x", "body")
    with pytest.raises(SchemaError):
        Schema({"$ref": "test:b"}, registry)


SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "object", "array", "number"]),
        "minimum": st.integers(-3, 3),
        "maxLength": st.integers(0, 3),
        "enum": st.lists(st.integers(0, 3) | st.text("ab", max_size=2), min_size=1, max_size=3),
        "required": st.lists(st.sampled_from("ab"), unique=True),
        "items": st.sampled_from([{"type": "integer"}, {"anyOf": [{"const": 1}, {"const": "a"}]}]),
        "properties": st.just({"a": {"type": "integer", "minimum": 1}, "b": {"enum": ["x"]}}),
        "additionalProperties": st.booleans(),
    },
)
INSTANCES = st.recursive(
    st.none() | st.booleans() | st.integers(-4, 4) | st.text("ab", max_size=4) | st.decimals(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)


@given(SCHEMAS, INSTANCES)
def test_violations_if_and_only_if_invalid(schema: dict[str, Any], value: Any) -> None:
    """The list is empty just when the library takes the value, and each pointer leads into it."""
    found = Schema(schema).check(value, "body")

    assert bool(found) is not jsonschema_rs.is_valid(schema, value)
    for each in found:
        at = value
        for step in each.pointer.split("/")[1:]:
            at = at[int(step)] if isinstance(at, list) else at[step]
