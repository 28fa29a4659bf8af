"""A body that is written in the configuration, as JSON or as text."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, model_validator

from gateway.config.base import Model
from gateway.config.types import refuse


class GivenBody(Model):
    """Base of what has such a body."""

    json_body: Any = Field(
        default=None, alias="json", description="The body, sent as application/json."
    )
    body: str | None = Field(
        default=None, description="The body as text, sent as text/plain unless headers say else."
    )

    @property
    def has_json(self) -> bool:
        """Whether `json` was given, which may be null."""
        return "json_body" in self.model_fields_set

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.has_json and self.body is not None:
            raise refuse("body", "json and body can't both be given")
        return self

    def encoded(self) -> tuple[bytes, str]:
        """The body's bytes, and its media type; both empty without one."""
        if self.has_json:
            return json.dumps(self.json_body, ensure_ascii=False).encode(), "application/json"
        if self.body:
            return self.body.encode(), "text/plain; charset=utf-8"
        return b"", ""
