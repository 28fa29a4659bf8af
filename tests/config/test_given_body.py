"""Bodies that are written in the configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config.given_body import GivenBody


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"json": {"a": "ü"}}, ('{"a": "ü"}'.encode(), "application/json")),
        ({"json": None}, (b"null", "application/json")),
        ({"body": "ü"}, ("ü".encode(), "text/plain; charset=utf-8")),
        ({"body": ""}, (b"", "")),
        ({}, (b"", "")),
    ],
)
def test_a_body_and_its_media_type(given: dict[str, Any], expected: tuple[bytes, str]) -> None:
    """JSON may be null; a text without characters is no body."""
    assert GivenBody.model_validate(given).encoded() == expected


def test_one_body_alone() -> None:
    """Two bodies are one too many, even if one of them is null."""
    with pytest.raises(ValidationError, match="json and body can't both be given"):
        GivenBody.model_validate({"json": None, "body": "text"})
