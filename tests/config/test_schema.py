"""The JSON Schema for editors agrees with the loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.config.issues import Issue
from gateway.config.nodes import plain
from gateway.config.reader import read_yaml
from gateway.config.references import References
from gateway.config.schema import DIALECT, json_schema
from tests.config.toy import catalog

CASES = Path(__file__).parent / "cases"
ROUTE = {"name": "a", "match": {"path": "/a"}, "respond": {}}


class AsWritten(References):
    """Leaves references as they stand, which is what an editor sees."""

    def resolve(self, text: str) -> tuple[str, str]:
        return text, "a reference"


def data_of(name: str) -> Any:
    issues: list[Issue] = []
    node = read_yaml((CASES / f"{name}.yaml").read_bytes(), name, AsWritten({}, CASES), issues)
    assert node is not None
    return plain(node)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(catalog, ["signature.py", "stamp.py"])


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Any:
    return pytest.importorskip("jsonschema_rs").Draft202012Validator(schema)


def test_it_is_a_whole_document(schema: dict[str, Any]) -> None:
    """The schema names its dialect, and each link in it leads somewhere."""
    text = json.dumps(schema)

    assert schema["$schema"] == DIALECT
    assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) == set(schema["$defs"])


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    """Every property that a person can write has a description."""
    bare = [
        f"{name}.{key}"
        for name, definition in {"": schema, **schema["$defs"]}.items()
        for key, value in definition.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]

    assert bare == []


def test_unknown_keys_are_refused_everywhere(schema: dict[str, Any]) -> None:
    """Every mapping with known keys takes no others."""
    mappings = [schema, *schema["$defs"].values()]

    assert all(part["additionalProperties"] is False for part in mappings if "properties" in part)


def test_defaults_are_written_with_their_units(schema: dict[str, Any]) -> None:
    """A default is shown the way a person writes it."""
    definitions = schema["$defs"]

    assert definitions["ServerTimeouts"]["properties"]["headers"]["default"] == "10s"
    assert definitions["ServerLimits"]["properties"]["body"]["default"] == "10MiB"
    assert definitions["PolicyLayer"]["properties"]["timeout"]["default"] == "15s"


@pytest.mark.parametrize(
    "name", ["minimal", "whole", "layers", "references", "include", "empty_sections", "anchors"]
)
def test_it_accepts_what_the_loader_accepts(validator: Any, name: str) -> None:
    """Golden configurations are valid for an editor too, references and all."""
    assert [error.message for error in validator.iter_errors(data_of(name))] == []


@pytest.mark.parametrize("name", ["later", "types", "unknown_keys", "inherited_error"])
def test_it_refuses_what_the_loader_refuses(validator: Any, name: str) -> None:
    """Golden errors show in an editor too."""
    assert not validator.is_valid(data_of(name))


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": 3},
        {"timeout": "3"},
        {"unknown": 1},
        {"match": {}},
        {"upstream": "both"},
        {"respond": {"status": 1000}},
        {"cors": {}},
        {"plugins": [{"use": "unknown"}]},
        {"plugins": [{"use": "stamp", "with": {"wrong": 1}}]},
        {"name": "a b"},
        {"enabled": "no"},
    ],
)
def test_it_refuses_one_wrong_key(validator: Any, change: dict[str, Any]) -> None:
    """Each of these breaks a route that is right without it."""
    assert validator.is_valid({"routes": [ROUTE]})

    assert not validator.is_valid({"routes": [ROUTE | change]})


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": None},
        {"timeout": "${env:T}"},
        {"timeout": "${env:T:-3}s"},
        {"enabled": "${env:ON:-true}"},
        {"plugins": [{"use": "stamp", "with": None}]},
        {"plugins": None},
        {"cors": {"origins": ["a"], "mode": "${env:MODE}"}},
    ],
)
def test_it_accepts_null_and_references(validator: Any, change: dict[str, Any]) -> None:
    """A policy can be switched off, and a reference may stand for any scalar."""
    assert validator.is_valid({"routes": [ROUTE | change]})
