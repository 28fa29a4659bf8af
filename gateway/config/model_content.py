"""The sections `consumers:`, `models:` and `contracts:`: facts about callers, schemas, OpenAPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from gateway.config.address import refuse, resolve_path
from gateway.config.base import Model
from gateway.config.types import ConfigPath, Name


class ConsumerConfig(Model):
    """What is known of one caller, joined by the consumer's name."""

    tier: Name | None = Field(
        default=None, description="Its tier, which rate limits may give another rate."
    )
    tags: list[Name] = Field(default=[], description="Words to tell groups of callers apart.")


class ModelConfig(Model):
    """A JSON Schema (2020-12) with a name: a file, or the schema itself."""

    model_config = ConfigDict(json_schema_extra={"required": ["schema"]})

    document: Path | dict[str, Any] | bool = Field(
        alias="schema",
        description="The schema's file, JSON or YAML, or the schema in place.",
        examples=["contracts/order.schema.json", {"type": "object"}],
    )

    @field_validator("document", mode="before")
    @classmethod
    def _file_or_schema(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str):
            return resolve_path(Path(value), info)
        if not isinstance(value, dict | bool):
            raise refuse("schema", "expected the path of a file, or a schema in place")
        return value

    @property
    def file(self) -> Path | None:
        """The file that the schema stands in, if it stands in one."""
        return self.document if isinstance(self.document, Path) else None


class ContractConfig(Model):
    """An OpenAPI document (3.0 or 3.1) with a name."""

    openapi: ConfigPath = Field(
        description="The document, JSON or YAML.", examples=["contracts/orders.openapi.yaml"]
    )
