"""Models: by name, from files, referring to each other, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.model_content import ModelConfig
from gateway.contracts.files import MAX_FILES, Files
from gateway.contracts.models import Models
from gateway.contracts.schema import SchemaError


def make(folder: Path, **schemas: Any) -> Models:
    """Models of these schemas, or files."""
    configs = {
        name: ModelConfig.model_validate({"schema": schema}, context={"base_dir": folder})
        for name, schema in schemas.items()
    }
    return Models(configs, Files(folder), folder)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_models_refer_to_each_other_and_to_files(tmp_path: Path) -> None:
    """In circles, with fragments, by file relative to the file, and by `$id`."""
    write(
        tmp_path / "c/order.json",
        {
            "$id": "https://example.com/order.json",
            "properties": {
                "line": {"$ref": "parts/line.yaml#/$defs/l"},
                "customer": {"$ref": "models:customer"},
                "own": {"$ref": "#/$defs/q"},
                "other": {"$ref": "https://example.com/other.json"},
            },
            "$defs": {"q": {"type": "integer"}},
        },
    )
    write(tmp_path / "c/parts/line.yaml", "$defs:\n  l: {$ref: ../text.json}\n")
    write(tmp_path / "c/text.json", {"type": "string"})
    models = make(
        tmp_path,
        order="c/order.json",
        customer={"properties": {"order": {"$ref": "models:order"}}, "required": ["id"]},
        other={"$id": "https://example.com/other.json", "type": "null"},
    )
    assert models.errors == []
    order = models.get("order")
    assert order is not None

    value = {"line": 1, "customer": {"order": {"own": "x"}}, "other": 1}
    assert [(each.pointer, each.keyword) for each in order.check(value, "body")] == [
        ("/line", "type"),
        ("/customer", "required"),
        ("/customer/order/own", "type"),
        ("/other", "type"),
    ]
    assert models.compile({"$ref": "models:order#/$defs/q"}).check("x", "body")
    assert models.compile({"$ref": "c/text.json"}).check(1, "body")
    assert models.get("nobody") is None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "models:nobody"}, "there is no model for models:nobody"),
        ({"$ref": "http://169.254.169.254/"}, "is not a file, and nothing is fetched"),
        ({"$ref": "//evil.example/x"}, "is not a file, and nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "is not a file, and nothing is fetched"),
        ({"$ref": "../../../../../etc/passwd"}, "outside the directories"),
        ({"$ref": "/etc/passwd"}, "outside the directories"),
        ({"$ref": "link.json"}, "outside the directories"),
        ({"$ref": "nowhere.json"}, "does not exist"),
        ({"$ref": "pipe"}, "no regular file"),
        ({"$ref": "."}, "no regular file"),
        ({"$ref": "broken.json"}, "is not JSON"),
        ({"$ref": "broken.yaml"}, "is not YAML: line"),
        ({"$ref": "latin.yaml"}, "is not UTF-8"),
        ({"$ref": "ok.json#/nowhere"}, "'/nowhere' does not exist"),
        ({"properties": {"a": {"type": "text"}}}, "#/properties/a/type"),
        ({"properties": {"a": {"$ref": "wrong.json"}}}, "wrong.json#/items/minimum"),
        ({"pattern": "(?!x)"}, "#/pattern: no regular expression"),
        ({"$ref": "a\x00b"}, "can't be a file's"),
    ],
)
def test_what_can_not_be_used_says_why(schema: Any, message: str, tmp_path: Path) -> None:
    """As a model, with its place; and in place."""
    import os

    base = tmp_path / "base"
    write(base / "broken.json", "{")
    write(base / "broken.yaml", "a: [")
    write(base / "ok.json", {})
    write(base / "wrong.json", {"items": {"minimum": "x"}})
    (base / "latin.yaml").write_bytes(b"a: \xe9")
    os.mkfifo(base / "pipe")
    write(tmp_path / "secret.json", {"const": "s3cret"})
    (base / "link.json").symlink_to(tmp_path / "secret.json")

    (error,) = make(base, bad=schema).errors
    assert message in error.message
    assert error.path in ("models.bad.schema", "models")
    if "wrong.json" not in message:
        with pytest.raises(SchemaError) as caught:
            make(base).compile(schema)
        assert message.removeprefix("#") in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is the model's error; the others are told as well."""
    models = make(tmp_path, one="one.json", two={"type": "x"})

    assert min(error.path for error in models.errors) == "models.one.schema"


def test_a_chain_of_files_is_bounded(tmp_path: Path) -> None:
    """A generated heap of files is not read without end."""
    for number in range(MAX_FILES + 10):
        write(tmp_path / f"f{number}.json", {"items": {"$ref": f"f{number + 1}.json"}})

    (error, *_) = make(tmp_path, deep="f0.json").errors
    assert "more than" in error.message or "deeply" in error.message


def test_deep_schemas(tmp_path: Path) -> None:
    """A schema without a bottom is refused, not followed."""
    schema: Any = {}
    for _ in range(180):
        schema = {"items": schema}
    write(tmp_path / "deep.json", json.dumps(schema))

    assert make(tmp_path, deep="deep.json").errors
