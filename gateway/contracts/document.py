"""An OpenAPI document and the files that it refers to, as one thing to look things up in.

A place is a document's URI and a JSON pointer in it. References are followed a bounded number of
times; one that leads nowhere is a warning, not an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from gateway.contracts.files import DocumentError, Files, resolve
from gateway.contracts.violations import escape

MAX_WARNINGS: Final = 200
_MAX_HOPS: Final = 20
MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    uri: str
    pointer: str = ""

    def __truediv__(self, step: str | int) -> Place:
        return Place(self.uri, f"{self.pointer}/{escape(str(step))}")

    def __str__(self) -> str:
        return f"{unquote(self.uri.rpartition('/')[2])}#{self.pointer}"


class Document:
    """The root document, what it refers to, and the warnings about all of it."""

    def __init__(self, path: Path, files: Files) -> None:
        self._files = files
        self._path = path
        uri, self.root = files.read(path)
        self.place = Place(uri)
        self.warnings: list[str] = []
        self._warned: set[str] = set()
        for note in files.notes.get(path, ()):
            self.warn(self.place, note)
        if not isinstance(self.root, dict):
            raise DocumentError(f"the file {path} is not an OpenAPI document")
        version = self.root.get("openapi", "")
        self.version = str(version) if isinstance(version, str | int | float) else ""

    @property
    def is_30(self) -> bool:
        """Whether it is OpenAPI 3.0, whose schemas are a dialect of their own."""
        return self.version.startswith("3.0")

    def warn(self, place: Place, message: str) -> None:
        """Note that something in the document is not as it should be."""
        text = f"{place}: {message}"
        if text in self._warned:
            return
        self._warned.add(text)
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
        elif len(self.warnings) == MAX_WARNINGS:
            self.warnings.append(f"{self.place}: there are more such warnings")

    def locate(self, reference: str, place: Place) -> tuple[Any, Place]:
        """What `reference`, which stands at `place`, leads to; MISSING, with a warning, if nothing.

        What it leads to may be a reference again.
        """
        uri, fragment = resolve(place.uri, reference)
        target = Place(uri, fragment)
        try:
            value = self._files.follow(uri, self._path)
        except DocumentError as error:
            self.warn(place, f"$ref: {error}")
            return MISSING, target
        for token in fragment.split("/")[1:]:
            value = _step(value, token.replace("~1", "/").replace("~0", "~"))
        if value is MISSING or (fragment and not fragment.startswith("/")):
            self.warn(place, f"$ref: {reference} leads nowhere")
            return MISSING, target
        return value, target

    def follow(self, value: Any, place: Place) -> tuple[Any, Place]:
        """`value`, or what its references lead to in the end; MISSING if nowhere."""
        for _ in range(_MAX_HOPS):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value, place
            value, place = self.locate(value["$ref"], place)
        self.warn(place, "$ref: it leads round in a circle")
        return MISSING, place

    def mapping(self, value: Any, place: Place, what: str) -> dict[str, Any]:
        """`value` if it is a mapping, what it refers to if that is one; empty, with a warning."""
        value, place = self.follow(value, place)
        if isinstance(value, dict):
            return value
        if value is not MISSING and value is not None:
            self.warn(place, f"expected {what}, and it is left out")
        return {}


def _step(value: Any, token: str) -> Any:
    if isinstance(value, dict):
        return value.get(token, MISSING)
    if isinstance(value, list) and token.isascii() and token.isdigit() and len(token) < 9:
        return value[int(token)] if int(token) < len(value) else MISSING
    return MISSING
