"""Parameters in every style that OpenAPI has, as its tables show them, and as they must not be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contracts.parameters import Parameter, Parts, check_all, cookie_pairs
from gateway.contracts.schema import Schema
from gateway.contracts.shapes import shape_of
from gateway.contracts.styles import Undecodable, query_pairs
from tests.contracts.conftest import Import

EMPTY = ""
STRING = {"type": "string"}
ARRAY = {"type": "array", "items": {"type": "string"}}
NUMBERS = {"type": "array", "items": {"type": "integer"}}
OBJECT = {"type": "object", "properties": {"R": {"type": "integer"}, "G": {"type": "integer"},
          "B": {"type": "integer"}}, "required": ["R", "G", "B"]}  # fmt: skip
COLOURS = ["blue", "black", "brown"]
RGB = {"R": 100, "G": 200, "B": 150}


def parameter(where: str, schema: Any, **options: Any) -> Parameter:
    """The parameter `color`."""
    made = Parameter("color", where, lambda: Schema(schema), shape_of(schema, lambda _: None))
    for name, value in options.items():
        setattr(made, name, value)
    return made


def parts(where: str, text: str) -> Parts:
    """A request with this query, path segment, field or cookies."""
    headers = {b"color": [text.encode()]} if where == "header" else {}
    return Parts(
        query_pairs(text.encode()) if where == "query" else [],
        {"color": text} if where == "path" else {},
        lambda name: headers.get(name, []),
        cookie_pairs([text.encode()]) if where == "cookie" else [],
    )


# The table of the specification: where, style, explode, schema, the text, the value.
TABLE: list[tuple[str, str, bool, Any, str, Any]] = [
    ("path", "matrix", False, STRING, ";color=blue", "blue"),
    ("path", "matrix", True, STRING, ";color=", ""),
    ("path", "matrix", False, ARRAY, ";color=blue,black,brown", COLOURS),
    ("path", "matrix", False, OBJECT, ";color=R,100,G,200,B,150", RGB),
    ("path", "matrix", True, ARRAY, ";color=blue;color=black;color=brown", COLOURS),
    ("path", "matrix", True, OBJECT, ";R=100;G=200;B=150", RGB),
    ("path", "label", False, STRING, ".blue", "blue"),
    ("path", "label", False, ARRAY, ".blue,black,brown", COLOURS),
    ("path", "label", False, ARRAY, ".blue.black.brown", COLOURS),
    ("path", "label", False, OBJECT, ".R,100,G,200,B,150", RGB),
    ("path", "label", True, ARRAY, ".blue.black.brown", COLOURS),
    ("path", "label", True, OBJECT, ".R=100.G=200.B=150", RGB),
    ("path", "simple", False, STRING, "blue", "blue"),
    ("path", "simple", False, ARRAY, "blue,black,brown", COLOURS),
    ("path", "simple", False, OBJECT, "R,100,G,200,B,150", RGB),
    ("path", "simple", True, OBJECT, "R=100,G=200,B=150", RGB),
    ("path", "simple", False, STRING, "a%2Cb%20%C3%A9", "a,b \u00e9"),
    ("path", "simple", False, ARRAY, "a%2Cb,c", ["a,b", "c"]),
    ("query", "form", True, STRING, "color=blue", "blue"),
    ("query", "form", True, STRING, "color=", ""),
    ("query", "form", True, STRING, "color=a+b%26c", "a b&c"),
    ("query", "form", True, STRING, "x=1&color=blue&y=2", "blue"),
    ("query", "form", True, STRING, "col%6Fr=blue", "blue"),
    ("query", "form", True, ARRAY, "color=blue&color=black&color=brown", COLOURS),
    ("query", "form", True, OBJECT, "R=100&G=200&B=150", RGB),
    ("query", "form", False, ARRAY, "color=blue,black,brown", COLOURS),
    ("query", "form", False, ARRAY, "color=a%2Cb,c", ["a,b", "c"]),
    ("query", "form", False, OBJECT, "color=R,100,G,200,B,150", RGB),
    ("query", "spaceDelimited", False, ARRAY, "color=blue%20black%20brown", COLOURS),
    ("query", "spaceDelimited", False, ARRAY, "color=blue+black+brown", COLOURS),
    ("query", "spaceDelimited", False, OBJECT, "color=R%20100%20G%20200%20B%20150", RGB),
    ("query", "spaceDelimited", True, ARRAY, "color=blue&color=black&color=brown", COLOURS),
    ("query", "pipeDelimited", False, ARRAY, "color=blue%7Cblack%7Cbrown", COLOURS),
    ("query", "pipeDelimited", False, ARRAY, "color=blue|black|brown", COLOURS),
    ("query", "pipeDelimited", False, OBJECT, "color=R%7C100%7CG%7C200%7CB%7C150", RGB),
    ("query", "deepObject", True, OBJECT, "color[R]=100&color[G]=200&color[B]=150", RGB),
    ("query", "deepObject", True, OBJECT, "color%5BR%5D=100&color%5BG%5D=200&color[B]=150", RGB),
    ("header", "simple", False, STRING, "blue", "blue"),
    ("header", "simple", False, STRING, "100%", "100%"),
    ("header", "simple", False, ARRAY, "blue, black,brown", COLOURS),
    ("header", "simple", False, ARRAY, "a%20b", ["a%20b"]),
    ("header", "simple", False, OBJECT, "R,100,G,200,B,150", RGB),
    ("header", "simple", True, OBJECT, "R=100,G=200,B=150", RGB),
    ("cookie", "form", True, STRING, "a=1; color=blue", "blue"),
    ("cookie", "form", False, ARRAY, "color=blue,black,brown", COLOURS),
]


@pytest.mark.parametrize(("where", "style", "explode", "schema", "text", "value"), TABLE)
def test_styles(where: str, style: str, explode: bool, schema: Any, text: str, value: Any) -> None:
    """Each text means the value that the specification's table says."""
    made = parameter(where, schema, style=style, explode=explode)
    # The same, held to the value itself.
    exact = parameter(where, {**schema, "const": value}, style=style, explode=explode)

    assert made.check(parts(where, text)) == []
    assert exact.check(parts(where, text)) == []


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "integer"}, "42", 42),
        ({"type": "integer"}, "-1", -1),
        ({"type": "integer"}, "123456789012345678901234567890", 123456789012345678901234567890),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "1e2", 100),
        ({"type": "number"}, "3", 3),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "false", False),
        ({"type": ["integer", "null"]}, "", None),
        ({"type": "string"}, "42", "42"),
        ({"type": ["string", "integer"]}, "42", 42),
        ({"anyOf": [{"type": "integer", "maximum": 9}, {"const": "42"}]}, "42", "42"),
        ({"type": ["string", "integer"], "minLength": 1}, "a", "a"),
        ({"enum": [1, 2]}, "2", 2),
        ({"allOf": [{"type": "integer"}, {"minimum": 1}]}, "2", 2),
        ({"minimum": 1}, "2", 2),
        ({}, "2", "2"),
    ],
)
def test_text_becomes_what_the_schema_is_after(schema: Any, text: str, value: Any) -> None:
    """By type, and by what the types of alternatives are."""
    made = parameter("query", {"allOf": [schema, {"const": value}]})

    assert made.check(parts("query", f"color={text}")) == []


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "1.5"),
        ({"type": "integer"}, "1.0x"),
        ({"type": "integer"}, "+1"),
        ({"type": "integer"}, "007"),
        ({"type": "integer"}, "%201"),
        ({"type": "integer"}, ""),
        ({"type": "integer"}, "9" * 5000),
        ({"type": "integer"}, "%D9%A3"),
        ({"type": "number"}, "NaN"),
        ({"type": "number"}, "Infinity"),
        ({"type": "number"}, "1e999999999"),
        ({"type": "number"}, "0x10"),
        ({"type": "boolean"}, "True"),
        ({"type": "boolean"}, "1"),
        ({"type": "integer", "maximum": 5}, "6"),
        ({"type": "string", "maxLength": 1}, "ab"),
    ],
)
def test_text_that_is_not_of_the_type(schema: Any, text: str) -> None:
    """Is one violation, of this parameter, without its text."""
    (found,) = parameter("query", schema).check(parts("query", f"color={text}"))

    assert (found.where, found.pointer) == ("query", "color")
    assert not text or text not in found.message


@pytest.mark.parametrize(
    ("where", "options", "schema", "text"),
    [
        ("query", {}, STRING, "color=a&color=b"),
        ("query", {"explode": False}, ARRAY, "color=a&color=b"),
        ("query", {}, STRING, "color=%FF"),
        ("query", {}, STRING, "color=%ED%A0%80"),
        ("query", {"explode": False}, OBJECT, "color=R,1,G"),
        ("query", {"explode": False}, OBJECT, "color=R,1,R,2"),
        ("query", {}, OBJECT, "R=1&R=2&G=1&B=1"),
        ("query", {"style": "deepObject"}, OBJECT, "color[R=1"),
        ("query", {"style": "deepObject"}, OBJECT, "color[R]=1&color[R]=2"),
        ("query", {"style": "deepObject"}, OBJECT, "color[R]=1&color[R][x]=2"),
        ("query", {"style": "deepObject"}, OBJECT, "color[R][x]=1&color[R]=2"),
        ("query", {"style": "deepObject"}, OBJECT, "color" + "[a]" * 50 + "=1"),
        ("path", {"style": "label"}, STRING, "blue"),
        ("path", {"style": "matrix"}, STRING, "blue"),
        ("path", {"style": "matrix"}, STRING, ";colour=blue"),
        ("path", {"style": "matrix"}, STRING, ";color=a;color=b"),
        ("path", {"explode": True}, OBJECT, "R=1,G"),
        ("path", {}, STRING, "%FF"),
        ("query", {"content": True}, OBJECT, "color={"),
        ("query", {"content": True}, OBJECT, 'color={"R":1,"R":2}'),
        ("cookie", {}, STRING, "color=a; color=b"),
    ],
)
def test_text_that_is_not_in_the_style(
    where: str, options: dict[str, Any], schema: Any, text: str
) -> None:
    """What could be read in two ways, or in none, is refused by name."""
    (found,) = parameter(where, schema, **options).check(parts(where, text))

    assert (found.where, found.pointer, found.keyword) == (where, "color", "style")


def test_json_in_a_parameter() -> None:
    """A parameter with `content` is a JSON text of its own."""
    made = parameter("query", OBJECT, content=True)

    assert made.check(parts("query", "color=%7B%22R%22:1,%22G%22:2,%22B%22:3%7D")) == []
    (found,) = made.check(parts("query", 'color={"R":1,"G":2,"B":"x"}'))
    assert found.pointer == "color/B"


def test_nested_deep_objects() -> None:
    """Further brackets are objects in objects, and lists where the schema has them."""
    inner = {"type": "object", "properties": {"n": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"ids": NUMBERS, "by": inner}}
    value = {"ids": [1, 2, 3], "by": {"n": 4}}
    made = parameter("query", {**schema, "const": value}, style="deepObject")

    text = "color[ids]=1&color[ids]=2&color[ids][]=3&color[by][n]=4"
    assert made.check(parts("query", text)) == []


def test_required_and_empty() -> None:
    """What must be there is missed; what may be empty is."""
    assert parameter("query", STRING).check(parts("query", "")) == []
    (found,) = parameter("query", NUMBERS, required=True).check(parts("query", "x=1"))
    assert found.keyword == "required"
    (found,) = parameter("query", OBJECT, required=True).check(parts("query", "x=1"))
    assert found.keyword == "required"
    assert parameter("query", {"type": "integer"}, allow_empty=True).check(
        parts("query", "color=")
    ) == []  # fmt: skip


def test_parameters_of_an_operation(load: Import) -> None:
    """Those of the path hold for each of its methods, which may say otherwise; all are told."""
    path = {
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
            {"name": "limit", "in": "query", "schema": {"type": "integer"}},
            {"$ref": "#/components/parameters/Tenant"},
        ],
        "get": {
            "parameters": [
                {"name": "limit", "in": "query", "required": True, "schema": {"maximum": 9}},
                {"name": "filter", "in": "query", "style": "deepObject",
                 "schema": {"$ref": "#/components/schemas/F"}},
                {"name": "Accept", "in": "header", "schema": {"type": "integer"}},
            ]
        },
    }  # fmt: skip
    components = {
        "parameters": {"Tenant": {"name": "X-Tenant", "in": "header", "required": True,
                                  "schema": {"type": "string", "pattern": "^[a-z]+$"}}},
        "schemas": {"F": {"type": "object", "additionalProperties": {"type": "integer"}}},
    }  # fmt: skip
    contract = load({"/things/{id}": path}, components=components)
    found = contract.find("/things/x")
    assert found is not None
    operation = found[0].find("GET")
    assert operation is not None
    headers = {b"x-tenant": [b"BIG"]}

    violations = check_all(
        operation.parameters,
        Parts(query_pairs(b"limit=10&filter[a]=x"), found[1], lambda n: headers.get(n, []), []),
    )
    assert [(each.where, each.pointer, each.keyword) for each in violations] == [
        ("path", "id", "type"),
        ("query", "limit", "maximum"),
        ("header", "X-Tenant", "pattern"),
        ("query", "filter/a", "type"),
    ]


SCHEMAS = st.sampled_from(
    [STRING, ARRAY, NUMBERS, OBJECT, {}, {"type": ["integer", "string", "null"]},
     {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}}]
)  # fmt: skip
STYLES = st.sampled_from(
    [("query", "form"), ("query", "spaceDelimited"), ("query", "pipeDelimited"),
     ("query", "deepObject"), ("path", "simple"), ("path", "label"), ("path", "matrix"),
     ("header", "simple"), ("cookie", "form")]
)  # fmt: skip
TEXTS = st.text(
    st.sampled_from('color=&;,.|[]%+ 20FFED"{}:\xe91e9-') | st.characters(max_codepoint=255),
    max_size=30,
) | st.sampled_from(["color[", "color[]=1", "color[][]=", ";color=1;", ".R=1.G", "color=%", "&&"])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(SCHEMAS, STYLES, st.booleans(), st.booleans(), TEXTS)
def test_no_text_ends_in_anything_but_violations(
    schema: Any, style: tuple[str, str], explode: bool, content: bool, text: str
) -> None:
    """Whatever a client writes, the answer is a list."""
    where, name = style
    made = parameter(where, schema, style=name, explode=explode, content=content)
    data = text.encode("latin-1")
    headers = {b"color": [data]}
    try:
        query = query_pairs(data)
    except Undecodable:
        query = []
    given_parts = Parts(
        query, {"color": text}, lambda key: headers.get(key, []), cookie_pairs([data])
    )

    for found in made.check(given_parts):
        json.dumps(found.as_mapping())
