"""The top-level sections that are mappings of things by name, each against its model.

A section without a line here is read by the loader itself, because its parts depend on policies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import BaseModel

from gateway.config.model_content import ConsumerConfig, ContractConfig, ModelConfig
from gateway.config.model_flag import FlagConfig
from gateway.config.model_identity import IDENTITY_TYPES
from gateway.config.model_source import ScheduleConfig, StreamConfig
from gateway.config.nodes import Node, Path
from gateway.config.suggest import did_you_mean
from gateway.config.validate import Validator

# A model, or the models to choose from by the value of `type`.
_NAMED: Final[dict[str, type[BaseModel] | dict[str, type[Any]]]] = {
    "identities": IDENTITY_TYPES,
    "consumers": ConsumerConfig,
    "models": ModelConfig,
    "contracts": ContractConfig,
    "flags": FlagConfig,
    "schedules": ScheduleConfig,
    "streams": StreamConfig,
}
NAMED_SECTIONS: Final = frozenset(_NAMED)


def read_named(key: str, node: Node | None, validator: Validator) -> dict[str, Any]:
    """The section `key` as models by name; what is wrong goes to the validator."""
    if node is None or node.value is None or node.broken:
        return {}
    if not isinstance(node.value, dict):
        validator.report(node, (key,), f"expected a mapping of {key} by name")
        return {}
    found: dict[str, Any] = {}
    for name, child in node.value.items():
        path: Path = (key, name)
        model = _model(key, child, path, validator)
        value = None if model is None else validator.validate(model, child, path)
        if value is not None:
            found[name] = value
    return found


def _model(key: str, node: Node, path: Path, validator: Validator) -> type[BaseModel] | None:
    choice = _NAMED[key]
    if not isinstance(choice, dict):
        return choice
    kind = node.value.get("type") if isinstance(node.value, dict) else None
    if kind is not None and kind.value in choice:
        return choice[kind.value]
    if node.broken or (kind is not None and kind.broken):
        return None
    known = ", ".join(choice)
    if kind is None:
        message = f"required, and not there: one of {known}"
        validator.report(node, (*path, "type"), message)
    else:
        hint = "" if kind.reference else did_you_mean(str(kind.value), choice) or f"one of {known}"
        validator.report(kind, (*path, "type"), "unknown type", hint)
    return None


def content_files(sections: dict[str, Any]) -> list[FilePath]:
    """The files that models and contracts stand in: part of the configuration, so watched too."""
    models: Iterable[ModelConfig] = (sections["models"] or {}).values()
    contracts: Iterable[ContractConfig] = (sections["contracts"] or {}).values()
    files = [model.file for model in models if model.file is not None]
    return [*files, *(contract.openapi for contract in contracts)]
