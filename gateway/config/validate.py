"""One node against one model: the model, or issues.

The one place where the configuration meets pydantic's validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.explain import explain
from gateway.config.issues import Issue
from gateway.config.nodes import Node, Path, format_path, plain

M = TypeVar("M", bound=BaseModel)
_UNSET: Final[Any] = object()


class Validator:
    """Validates nodes, and adds what is wrong to `issues`."""

    def __init__(
        self, base_dir: FilePath, issues: list[Issue], environ: Mapping[str, str] | None = None
    ) -> None:
        self.issues = issues
        # What a model may ask for beside its own data.
        self._context = {"base_dir": base_dir, "environ": environ or {}}

    def validate(self, model: type[M], node: Node, path: Path, data: object = _UNSET) -> M | None:
        """The model of `node`, which stands at `path`; None if it is not valid.

        `data` is validated in the node's stead, if given.
        """
        if node.broken:
            return None
        try:
            return self.convert(model, plain(node) if data is _UNSET else data)
        except ValidationError as error:
            self.issues += explain(error, model, node, path)
        except Exception as error:  # noqa: BLE001 - a plugin's model may fail in any way
            self.report(node, path, f"the model {model.__name__} failed: {type(error).__name__}")
        return None

    def convert(self, model: type[M], data: object) -> M:
        """The model of plain data. Raises pydantic's ValidationError."""
        # By alias only: a field's Python name is no key of the file.
        return model.model_validate(data, context=self._context, by_alias=True, by_name=False)

    def report(self, node: Node, path: Path, message: str, hint: str = "") -> None:
        """Add an issue at the node."""
        self.issues.append(
            Issue(node.file, node.line, node.column, format_path(path), message, hint)
        )

    def report_key(self, parent: Node, path: Path, message: str, hint: str = "") -> None:
        """Add an issue at a key of the mapping `parent`; the key is the last step of `path`."""
        line, column = parent.keys[path[-1]]
        self.issues.append(Issue(parent.file, line, column, format_path(path), message, hint))
