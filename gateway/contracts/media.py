"""Media types: which of those that a contract names a message has, and what is read by it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

JSON: Final = "json"
FORM: Final = "form"
TEXT: Final = "text"
OTHER: Final = "other"
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 section 5.6.2
_TYPE: Final = re.compile(rf"({_TOKEN})/({_TOKEN})", re.ASCII)
_PARAMETER: Final = re.compile(
    rf"[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|\"(?:[^\"\\]|\\.)*\"))?", re.ASCII
)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class MediaType:
    """A Content-Type: `essence` is type and subtype in lower case, `charset` what it states."""

    __slots__ = ("charset", "essence", "full", "kind")

    def __init__(self, essence: str, parameters: dict[str, str]) -> None:
        self.essence = essence
        self.charset = parameters.pop("charset", "").lower()
        more = "".join(f";{name}={value}" for name, value in sorted(parameters.items()))
        self.full = essence + more
        self.kind = kind_of(essence)

    @property
    def is_utf8(self) -> bool:
        """Whether its text is UTF-8, as far as it says."""
        return not self.charset or self.charset in _UTF8


def parse(value: str) -> MediaType | None:
    """The media type of a Content-Type field (RFC 9110 section 8.3), or None if it is none."""
    value = value.strip(" \t")
    match = _TYPE.match(value)
    if match is None:
        return None
    parameters: dict[str, str] = {}
    at = match.end()
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None or found.end() == at:
            return None
        if found[1]:
            name = found[1].lower()
            if name in parameters:
                return None
            parameters[name] = _unquote(found[2])
        at = found.end()
    return MediaType(match[0].lower(), parameters)


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def kind_of(essence: str) -> str:
    """How a body of this type is read."""
    kind, _, subtype = essence.partition("/")
    if subtype == "json" or subtype.endswith("+json"):
        return JSON
    if essence == "application/x-www-form-urlencoded":
        return FORM
    return TEXT if kind == "text" else OTHER


class MediaTable(Generic[T]):
    """What a contract says by media type, or by range of them (RFC 9110 section 12.5.1)."""

    __slots__ = ("_exact", "_ranges", "_remembered", "names")

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, T] = {}
        self._ranges: list[tuple[re.Pattern[str], T]] = []
        self.names: list[str] = []
        ranges = []
        for name, value in entries:
            self.names.append(name)
            parsed = parse(name)
            if parsed is None:
                continue
            if "*" in parsed.essence:
                ranges.append((parsed.essence, value))
            else:
                self._exact.setdefault(parsed.full, value)
                self._exact.setdefault(parsed.essence, value)
        # The longer a range, the more it says: application/*+json, application/*, */*.
        for essence, value in sorted(ranges, key=lambda each: -len(each[0])):
            pattern = re.escape(essence).replace(r"\*", "[^/]*")
            self._ranges.append((re.compile(pattern), value))
        self._remembered: dict[str, tuple[MediaType, T] | None] = {}

    def find(self, content_type: str) -> tuple[MediaType, T] | None:
        """The type that a field states, and what is said of it; None if nothing is."""
        if content_type in self._remembered:
            return self._remembered[content_type]
        found = self._look(content_type)
        # Clients write few different ones; a hostile one could write many.
        if len(self._remembered) < 64:
            self._remembered[content_type] = found
        return found

    def _look(self, content_type: str) -> tuple[MediaType, T] | None:
        parsed = parse(content_type)
        if parsed is None:
            return None
        for name in (parsed.full, parsed.essence):
            if name in self._exact:
                return parsed, self._exact[name]
        for pattern, value in self._ranges:
            if pattern.fullmatch(parsed.essence):
                return parsed, value
        return None
