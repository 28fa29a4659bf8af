"""Whole documents: real ones, broken ones, large ones."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.contracts.contract import Contract
from gateway.contracts.files import DocumentError, Files
from gateway.contracts.models import Models
from gateway.contracts.openapi import import_document
from gateway.contracts.operation import Operation, Unreadable, check_content, unpack
from tests.contracts.conftest import Import

DEMO = Path(__file__).parents[2] / "config" / "demo" / "orders.openapi.yaml"
OK = {"description": "fine"}


def demo() -> Contract:
    """The contract of the demo upstream."""
    files = Files(DEMO.parent)
    return import_document("orders", DEMO, files, Models({}, files, DEMO.parent))


def operation(contract: Contract, method: str, path: str) -> Operation:
    """The operation there."""
    found = contract.find(path)
    assert found is not None
    known = found[0].find(method)
    assert known is not None
    return known


def body(contract: Contract, data: bytes, kind: str = "application/json") -> list[tuple[str, str]]:
    """Pointers and keywords of what is wrong with the body of POST /orders."""
    known = operation(contract, "POST", "/orders")
    assert known.body is not None
    found = known.body.content.find(kind)
    assert found is not None
    return [(e.pointer, e.keyword) for e in check_content(found[1], found[0], data)]


def test_the_demo() -> None:
    """It imports without a warning, and says what its service takes."""
    contract = demo()

    assert contract.warnings == []
    assert operation(contract, "GET", "/orders/1001").label == "GET /orders/{order_id}"
    assert operation(contract, "HEAD", "/orders/events").label == "GET /orders/events"
    assert body(contract, b'{"lines":[{"sku":"A","quantity":1}]}') == []
    assert body(contract, b'{"lines":[{"sku":1,"quantity":0}]}') == [
        ("/lines/0/sku", "type"), ("/lines/0/quantity", "minimum"),
    ]  # fmt: skip
    assert operation(contract, "GET", "/orders").response(200) is not None
    assert operation(contract, "GET", "/orders").response(418) is None


def test_every_schema_of_a_document_is_used_one_way(load: Import) -> None:
    """The same document as 3.0 and as 3.1, from YAML and from JSON."""
    text = yaml.safe_load(DEMO.read_text())
    for version in ("3.0.3", "3.1.1"):
        contract = load(text["paths"], version=version, components=text["components"])
        assert body(contract, b'{"lines":[]}') == [("/lines", "minItems")]


def test_bases(load: Import) -> None:
    """Paths stand below the servers' paths, with their variables, and without them."""
    servers = [
        {"url": "https://api.example.com/v1/"},
        {"url": "/{base}/v2", "variables": {"base": {"default": "api"}}},
        {"url": "https://[bad"},
        {},
        3,
    ]
    contract = load({"/a/{x}": {"get": {"responses": {}}}}, servers=servers)

    for path in ("/v1/a/1", "/api/v2/a/1", "/a/1"):
        assert contract.find(path) is not None
    assert contract.find("/v3/a/1") is None
    assert contract.could_match("/v1/a/{other}")
    assert not contract.could_match("/b")
    assert [each.label for each in contract.matching("/v1/{rest:path}")] == ["GET /a/{x}"]


def test_bodies_by_media_type(load: Import) -> None:
    """JSON, forms, text; what is neither is not looked into."""
    schema = {"type": "object", "required": ["n"], "properties": {
        "n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False}  # fmt: skip
    kinds = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data",
             "application/xml", "application/vnd.x+json"]  # fmt: skip
    content: dict[str, Any] = {kind: {"schema": schema} for kind in kinds}
    content["text/plain"] = {"schema": {"type": "string", "maxLength": 3}}
    contract = load({"/orders": {"post": {"requestBody": {"content": content}, "responses": {}}}})

    form = "application/x-www-form-urlencoded"
    assert body(contract, b"n=1&tags=a&tags=b", form) == []
    assert body(contract, b"n=x&y=1", form) == [("", "additionalProperties"), ("/n", "type")]
    assert body(contract, b'{"n":1}', "application/vnd.x+json; charset=utf-8") == []
    assert body(contract, b"abcd", "text/plain") == [("", "maxLength")]
    assert body(contract, b"<n/>", "application/xml") == []
    assert body(contract, b"--x", "multipart/form-data; boundary=x") == []
    for kind, data in (
        ("application/json", b"{"),
        (form, b"n=%FF"),
        (form, b"n=1&n=2"),
        ("text/plain", b"\xff"),
    ):
        with pytest.raises(Unreadable):
            body(contract, data, kind)


def test_documents_of_several_files(load: Import) -> None:
    """Paths, parameters, bodies and schemas may stand in files of their own."""
    files = {
        "paths/orders.yaml": "post: {requestBody: {$ref: '../bodies.yaml#/order'}, responses: {}}",
        "bodies.yaml": "order: {required: true, content: {application/json: "
        "{schema: {$ref: 'schemas/order.json'}}}}",
        "schemas/order.json": {"type": "object", "properties": {
            "parent": {"$ref": "order.json"}, "line": {"$ref": "line.json#/Line"}}},
        "schemas/line.json": {"Line": {"type": "integer"}},
    }  # fmt: skip
    contract = load({"/orders": {"$ref": "paths/orders.yaml"}}, files=files)

    assert contract.warnings == []
    assert body(contract, b'{"parent":{"line":"x"}}') == [("/parent/line", "type")]


@pytest.mark.parametrize(
    ("paths", "warnings"),
    [
        ({"/a": 3}, 1),
        ({"/a": {"get": 3}}, 1),
        ({"/a": {"$ref": "#/nowhere"}}, 2),
        ({"/a": {"get": {"parameters": {}}}}, 1),
        ({"/a": {"get": {"parameters": [3, {"name": "x"}, {"name": "x", "in": "moon"}]}}}, 3),
        ({"/a": {"get": {"parameters": [{"$ref": "#/nowhere"}]}}}, 2),
        ({"/a": {"get": {"parameters": [{"name": "x", "in": "query", "style": "matrix"}]}}}, 1),
        ({"/a": {"post": {"requestBody": 3}}}, 1),
        ({"/a": {"post": {"requestBody": {"content": {}}}}}, 1),
        ({"/a": {"post": {"requestBody": {"content": {"json": {}}}}}}, 2),
        ({"/a": {"get": {"responses": {"20": OK, "2xx": OK, "200": 3, "default": OK}}}}, 2),
        ({"/a": {"get": {"responses": []}}}, 0),
        ({"a": {"get": {}}}, 1),
        ({"/a/{x": {"get": {}}}, 1),
        ({"/a/{x}": {"get": {}}, "/a/{y}": {"get": {}}}, 1),
        ({"/a/{x}": {"get": {}}, "x-note": 3}, 0),
        (3, 1),
    ],
)  # fmt: skip
def test_broken_parts_are_left_out(paths: Any, warnings: int, load: Import) -> None:
    """With a warning each, and the rest of the document in place."""
    contract = load(paths)
    assert len(contract.warnings) == warnings, contract.warnings
    if isinstance(paths, dict):
        contract = load({**paths, "/fine": {"get": {"responses": {"200": OK}}}})
        assert contract.find("/fine") is not None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "openapi: 2.0", "swagger: '2.0'\npaths: {}", "openapi: 3.2.0\npaths: {}", "a: [",
     "openapi: {}", "\xff", '{"openapi": "3.1.0"', "openapi: 4.0.0"],
)  # fmt: skip
def test_no_openapi_at_all(text: str, tmp_path: Path) -> None:
    """Ends the load, with the file's name."""
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("latin-1"))
    files = Files(tmp_path)

    with pytest.raises(DocumentError, match=r"x\.yaml"):
        import_document("x", path, files, Models({}, files, tmp_path))
    with pytest.raises(DocumentError, match="does not exist"):
        import_document("x", tmp_path / "none", files, Models({}, files, tmp_path))


def test_a_document_without_paths(load: Import) -> None:
    """3.1 allows it."""
    assert load().operations == []


def large(schemas: int) -> dict[str, Any]:
    """A description as large APIs have them: schemas that all lead to one another."""
    made = {
        f"S{n}": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "maxLength": 5000},
                **{f"p{k}": {"$ref": f"#/components/schemas/S{(n * 7 + k * 13) % schemas}"}
                   for k in range(5)},
                **{f"q{k}": {"type": "string", "enum": ["a", "b"], "nullable": True}
                   for k in range(10)},
            },
        }
        for n in range(schemas)
    }  # fmt: skip
    paths = {
        f"/things{n}/{{id}}": {
            "post": {
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "string"}}],
                "requestBody": {"content": {"application/json": {
                    "schema": {"$ref": f"#/components/schemas/S{n}"}}}},
                "responses": {"200": {"description": "", "content": {"application/json": {
                    "schema": {"$ref": f"#/components/schemas/S{n}"}}}}},
            }
        }
        for n in range(schemas)
    }  # fmt: skip
    return {"openapi": "3.0.3", "paths": paths, "components": {"schemas": made}}


def test_a_large_document_in_bounded_time(tmp_path: Path) -> None:
    """What is not compiled in time is compiled when it is needed."""
    path = tmp_path / "large.json"
    path.write_text(json.dumps(large(150)))
    files = Files(tmp_path)
    began = time.perf_counter()
    contract = import_document("large", path, files, Models({}, files, tmp_path))

    assert time.perf_counter() - began < 10
    known = operation(contract, "POST", "/things149/x")
    assert known.body is not None
    found = known.body.content.find("application/json")
    assert found is not None
    data = b'{"id":"x","p1":{"id":1}}'
    assert [e.pointer for e in check_content(found[1], found[0], data)] == ["/p1/id"]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_the_import_ends_well(seed: int, load: Import) -> None:
    """A document with parts exchanged, lost and swapped is imported, or is none; never a crash."""
    rng = random.Random(seed)
    document = yaml.safe_load(DEMO.read_text())
    for _ in range(25):
        holder: Any = document
        for _ in range(rng.randrange(1, 9)):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if not isinstance(holder[key], dict | list) or rng.random() < 0.15:
                holder[key] = rng.choice(
                    [None, 3, "x", [], {}, [None], {"$ref": "#/components"}, {"$ref": 3}, True,
                     {"$ref": "#/components/schemas/Order"}, -1, {"allOf": [{"$ref": "#"}]}, "("]
                )  # fmt: skip
                break
            holder = holder[key]
    document["openapi"] = "3.1.0"
    document.pop("info", None)
    version = document.pop("openapi")
    contract = load(document.pop("paths", None), version=version, **document)

    for known in contract.operations:
        for table in [known.body.content] if known.body else []:
            for name in table.names:
                found = table.find(name)
                if found is not None:
                    try:
                        check_content(found[1], found[0], b'{"lines":[{"sku":1}]}')
                    except Unreadable:
                        pass


def test_unpacking() -> None:
    """Compressed answers are read if they can be, within the bound."""
    import gzip
    import zlib

    data = b"x" * 1000
    assert unpack(data, "", 2000) == data
    assert unpack(gzip.compress(data), "gzip", 2000) == data
    assert unpack(zlib.compress(data), "deflate", 2000) == data
    assert unpack(gzip.compress(data), "gzip", 500) is None
    assert unpack(gzip.compress(data)[:-9], "gzip", 2000) is None
    assert unpack(gzip.compress(data) + b"more", "gzip", 2000) is None
    assert unpack(b"nonsense", "gzip", 2000) is None
    assert unpack(data, "br", 2000) is None
