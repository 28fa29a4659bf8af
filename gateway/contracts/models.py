"""The models of a configuration: JSON Schemas by name, which may refer to each other and to files.

A schema says `$ref: models:order`, with a fragment if need be (`models:order#/$defs/line`), or the
path of a file, relative to its own. What another schema calls itself (`$id`) can be referred to as
well, if that schema is among the models or the files that they refer to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin

from gateway.config.model_content import ModelConfig
from gateway.contracts.files import DocumentError, Files, resolve, uri_of
from gateway.contracts.schema import Registry, Schema, SchemaError
from gateway.errors import ConfigError

PREFIX: Final = "models:"
# What stands below these is data, not schemas.
_DATA: Final = frozenset({"const", "default", "enum", "example", "examples"})
_MAX_DEPTH: Final = 150


class Models:
    """Compiled models by name. What can't be compiled is in `errors`, each with its place."""

    def __init__(self, configs: Mapping[str, ModelConfig], files: Files, base_dir: Path) -> None:
        self.errors: list[ConfigError] = []
        self._files = files
        self._base = uri_of(base_dir.resolve()) + "/"
        self._uris: dict[str, str] = {}
        self._roots: dict[str, Path] = {}
        self._raw: dict[str, Any] = {}
        self._documents: dict[str, Any] = {}
        self._ids: dict[str, str] = {}
        self._schemas: dict[str, Schema] = {}
        self.registry: Registry | None = None
        for name, config in configs.items():
            self._open(name, config, base_dir)
        self._waiting = list(self._raw)
        self._link_all()
        if self._documents and not self.errors:
            self._compile(configs)

    def get(self, name: str) -> Schema | None:
        """The model of that name, or None."""
        return self._schemas.get(name)

    def document(self, name: str) -> Any:
        """The model's schema, as data that is only read, or None."""
        return self._documents.get(self._uris.get(name, ""))

    def names(self) -> list[str]:
        """The names of all models."""
        return list(self._uris)

    def uri(self, reference: str) -> str | None:
        """What `models:name#fragment` means in the registry, or None if there is no such model."""
        name, hash_, fragment = reference.removeprefix(PREFIX).partition("#")
        uri = self._uris.get(name)
        return None if uri is None else uri + hash_ + fragment

    def look_up(self, reference: str, root: Any) -> Any:
        """What a `$ref` in the document `root`, or in a model, means; None if nothing."""
        if reference.startswith(PREFIX):
            reference = self.uri(reference) or ""
        uri, _, fragment = reference.partition("#")
        value = self._documents.get(uri) if uri else root
        for step in unquote(fragment).split("/")[1:]:
            token = step.replace("~1", "/").replace("~0", "~")
            value = value.get(token) if isinstance(value, dict) else None
        return value

    def compile(self, document: dict[str, Any] | bool) -> Schema:
        """A schema that stands in the configuration itself, with references as models have them.

        Raises SchemaError.
        """
        before = len(self._documents)
        try:
            linked = self._absolute(document, self._base, self._base, None, 0)
        except (DocumentError, SchemaError) as error:
            raise SchemaError(str(error)) from None
        known = len(self.errors)
        self._link_all()
        if len(self.errors) > known:
            raise SchemaError(self.errors.pop().message)
        if len(self._documents) > before or self.registry is None:
            self.registry = Registry(self._documents.items())
        return Schema(linked, self.registry)

    def _open(self, name: str, config: ModelConfig, base_dir: Path) -> None:
        try:
            if config.file is not None:
                uri, document = self._files.read(config.file)
                self._roots[uri] = config.file
            else:
                # Its relative references start at the configuration's directory.
                uri, document = f"{self._base}models.{name}", config.document
                self._roots[uri] = base_dir / "configuration"
            if not isinstance(document, dict | bool):
                raise DocumentError(f"{config.file} is not a schema")
        except DocumentError as error:
            self.errors.append(ConfigError(str(error), f"models.{name}.schema"))
            return
        self._uris[name] = uri
        self._raw[uri] = document
        self._note_id(uri, document)

    def _note_id(self, uri: str, document: Any) -> None:
        if isinstance(document, dict) and isinstance(stated := document.get("$id"), str):
            self._ids.setdefault(stated.rstrip("#"), uri)

    def _link_all(self) -> None:
        while self._waiting:
            self._link(self._waiting.pop())

    def _link(self, uri: str) -> None:
        """Make the references of one document absolute, and read what they lead to."""
        if uri in self._documents:
            return
        document = self._raw[uri]
        own = document.get("$id") if isinstance(document, dict) else None
        self._documents[uri] = document
        try:
            linked = self._absolute(document, uri, uri, own if isinstance(own, str) else None, 0)
        except (DocumentError, SchemaError) as error:
            self.errors.append(ConfigError(f"{_shown(uri)}: {error}", self._path(uri)))
            return
        if isinstance(linked, dict):
            linked.pop("$id", None)
        self._documents[uri] = linked

    def _absolute(self, value: Any, uri: str, root: str, own_id: str | None, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise SchemaError("nested too deeply")
        if isinstance(value, list):
            return [self._absolute(each, uri, root, own_id, depth + 1) for each in value]
        if not isinstance(value, dict):
            return value
        linked = {}
        for key, child in value.items():
            if key == "$ref" and isinstance(child, str):
                linked[key] = self._target(child, uri, root, own_id)
            elif key in _DATA:
                linked[key] = child
            else:
                linked[key] = self._absolute(child, uri, root, own_id, depth + 1)
        return linked

    def _target(self, reference: str, uri: str, root: str, own_id: str | None) -> str:
        if reference.startswith("#"):
            return reference
        if reference.startswith(PREFIX):
            target = self.uri(reference)
            if target is None:
                raise SchemaError(f"there is no model for {reference}")
            return target
        if own_id is not None:
            named, hash_, fragment = urljoin(own_id, reference).partition("#")
            if named in self._ids:
                return self._ids[named] + hash_ + fragment
        document, fragment = resolve(uri, reference)
        suffix = f"#{reference.partition('#')[2]}" if fragment else ""
        if document in self._ids:
            return self._ids[document] + suffix
        if document not in self._raw:
            at = self._roots.get(root) or self._roots.get(uri) or Path(self._base_path() / "x")
            self._raw[document] = self._files.follow(document, at)
            self._roots[document] = at
            self._note_id(document, self._raw[document])
            self._waiting.append(document)
        return document + suffix

    def _base_path(self) -> Path:
        return Path(self._base.partition("://")[2])

    def _compile(self, configs: Mapping[str, ModelConfig]) -> None:
        try:
            self.registry = Registry(self._documents.items())
        except SchemaError as error:
            self.errors.append(ConfigError(str(error), "models"))
            return
        compiled: dict[str, Schema] = {}
        broken_files: bool | None = None
        # Files that models refer to come first, so that what is wrong is said of where it stands.
        named = set(self._uris.values())
        for uri in sorted(self._documents, key=lambda each: each in named):
            if uri in named and broken_files is None:
                broken_files = bool(self.errors)
            if broken_files:
                return
            try:
                compiled[uri] = Schema(self._documents[uri], self.registry)
            except SchemaError as error:
                place = f"{_shown(uri)}#{error.pointer}"
                self.errors.append(ConfigError(f"{place}: {error.message}", self._path(uri)))
        self._schemas = {
            name: compiled[self._uris[name]]
            for name in configs
            if self._uris.get(name, "") in compiled
        }

    def _path(self, uri: str) -> str:
        for name, known in self._uris.items():
            if known == uri:
                return f"models.{name}.schema"
        return "models"


def _shown(uri: str) -> str:
    return uri.partition("://")[2].rpartition("/")[2]
