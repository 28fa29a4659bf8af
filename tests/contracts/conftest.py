"""OpenAPI documents made of a few lines, imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.contracts.contract import Contract
from gateway.contracts.files import Files
from gateway.contracts.models import Models
from gateway.contracts.openapi import import_document

Import = Callable[..., Contract]


@pytest.fixture
def load(tmp_path: Path) -> Import:
    """Imports a document: `paths`, other top-level keys, and further files by name."""

    def load(
        paths: Any = None,
        *,
        version: str = "3.1.0",
        files: dict[str, Any] | None = None,
        **more: Any,
    ) -> Contract:
        for name, content in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        main = tmp_path / "openapi.json"
        document = {"openapi": version, "info": {"title": "t", "version": "1"}, **more}
        if paths is not None:
            document["paths"] = paths
        main.write_text(json.dumps(document))
        files_read = Files(tmp_path)
        return import_document("t", main, files_read, Models({}, files_read, tmp_path))

    return load
