"""Parameters that one schema describes together, as an object: all of a query, of a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.contracts import styles
from gateway.contracts.parameters import Parts, field_text
from gateway.contracts.schema import Schema
from gateway.contracts.shapes import Lookup, coerce, shape_of
from gateway.contracts.styles import Undecodable, decode_text
from gateway.contracts.violations import Violation


class ObjectParameters:
    """All parameters of one place, held to one schema. `where` is query, path or header."""

    __slots__ = ("_names", "_schema", "_shape", "where")

    def __init__(
        self, where: str, schema: Schema, document: dict[str, Any] | bool, lookup: Lookup
    ) -> None:
        self.where = where
        self._schema = schema
        self._shape = shape_of(document, lookup)
        self._names = {
            name: name.lower().encode("latin-1", "replace") for name in self._shape.properties
        }

    def check(self, parts: Parts) -> list[Violation]:
        """What is wrong with them in this request."""
        value: dict[str, Any] = {}
        found: list[Violation] = []
        for name, texts in self._texts(parts).items():
            try:
                value[name] = self._value(name, texts)
            except Undecodable as error:
                message = f"the parameter {error.reason}"
                found.append(Violation(self.where, name, message, "style"))
        for each in self._schema.check(value, self.where):
            pointer = each.pointer.removeprefix("/")
            found.append(Violation(self.where, pointer, each.message, each.keyword))
        return found

    def _texts(self, parts: Parts) -> dict[str, list[str]]:
        texts: dict[str, list[str]] = {}
        if self.where == "query":
            for name, raw in parts.query:
                texts.setdefault(name, []).append(raw)
        elif self.where == "path":
            for name, raw in parts.path.items():
                texts[name] = [raw]
        else:
            for name, key in self._names.items():
                values = parts.headers(key)
                if values:
                    texts[name] = [field_text(values)]
        return texts

    def _value(self, name: str, texts: Sequence[str]) -> Any:
        shape = self._shape.member(name)
        if self.where == "header":
            text = texts[0]
            if shape.is_array:
                return [coerce(each.strip(" \t"), shape.item()) for each in text.split(",")]
            return coerce(text, shape)
        plus = self.where == "query"
        if shape.is_array and plus:
            return styles.array(texts, shape, plus=True)
        if len(texts) > 1:
            # Some take the first, others the last.
            raise Undecodable("is there more than once")
        return coerce(decode_text(texts[0], plus=plus), shape)


def lower_names(document: dict[str, Any]) -> dict[str, Any]:
    """The schema of header fields with their names in lower case, as they are compared."""
    lowered = dict(document)
    properties = lowered.get("properties")
    if isinstance(properties, dict):
        lowered["properties"] = {name.lower(): each for name, each in properties.items()}
    required = lowered.get("required")
    if isinstance(required, list):
        lowered["required"] = [name.lower() if isinstance(name, str) else name for name in required]
    return lowered
