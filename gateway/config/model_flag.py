"""The `flags:` section: switches that routes and policies name, changed while the gateway runs."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field, model_validator

from gateway.config.base import Model
from gateway.config.model_route import FieldName, FieldValue
from gateway.config.types import PERCENT_PATTERN, Name, Ratio, format_percent, parse_percent

_WORDS: Final = {"on": 1.0, "off": 0.0}
_SHORT: Final[list[dict[str, Any]]] = [
    {"type": "string", "pattern": f"^(?:on|off)$|{PERCENT_PATTERN}"},
    {"type": "boolean"},
]


def _or_a_word(schema: dict[str, Any]) -> None:
    """Let editors take a word or a share for a flag, as the validator does."""
    mapping = {**schema}
    schema.clear()
    schema.update(anyOf=[*_SHORT, mapping], description=mapping.pop("description"))
    schema["examples"] = ["on", "off", "10%"]


class FlagConfig(Model):
    """Where a flag is on: `on`, `off`, a share such as `10%`, or a group and perhaps a share."""

    model_config = ConfigDict(json_schema_extra=_or_a_word)

    percent: Ratio = Field(
        default=0.0, description="The share of the callers, beside the group, for which it is on."
    )
    consumers: list[str] = Field(default=[], description="Consumers for which it is on, by name.")
    tags: list[Name] = Field(
        default=[], description="Consumers with one of these tags, beside those by name."
    )
    header: dict[FieldName, FieldValue] = Field(
        default={},
        description="Header fields that a request of the group must have, with this value.",
    )

    @model_validator(mode="before")
    @classmethod
    def _word_or_share(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {"percent": float(value)}
        if isinstance(value, str):
            share = _WORDS.get(value)
            return {"percent": parse_percent(value) if share is None else share}
        return value

    @property
    def has_group(self) -> bool:
        """Whether there is more than a share."""
        return bool(self.consumers or self.tags or self.header)

    def plain(self) -> Any:
        """As people write it: on, off, a percentage, or a mapping."""
        if not self.has_group:
            words = {share: word for word, share in _WORDS.items()}
            return words.get(self.percent) or format_percent(self.percent)
        dumped = self.model_dump(exclude_defaults=True)
        if self.percent:
            dumped["percent"] = format_percent(self.percent)
        return dumped
