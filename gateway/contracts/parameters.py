"""The parameters of an operation: found in query, path, header and cookies, decoded, judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.contracts import styles
from gateway.contracts.schema import Schema
from gateway.contracts.shapes import TEXT, Shape, coerce
from gateway.contracts.strict_json import MalformedJson, decode
from gateway.contracts.styles import Pairs, Undecodable, decode_text
from gateway.contracts.violations import Violation

DEFAULT_STYLE: Final = {"query": "form", "path": "simple", "header": "simple", "cookie": "form"}
STYLES: Final = {
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "path": ("simple", "label", "matrix"),
    "header": ("simple",),
    "cookie": ("form",),
}
# Not set, as opposed to null.
ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a request has to say beside its body.

    `query` holds decoded names and raw values, `path` raw values by name, `headers` gives every
    value of a field by its lower-case name, `cookies` raw values by name, each as often as it came.
    """

    query: Pairs
    path: Mapping[str, str]
    headers: Callable[[bytes], Sequence[bytes]]
    cookies: Pairs


class Parameter:
    """One parameter. `schema` gives its validator, None if every value will do.

    `content` says that it is a JSON text, not written in a style. `taken` are the names of the
    other query parameters.
    """

    __slots__ = (
        "_shape", "allow_empty", "content", "explode", "name", "place", "required", "schema",
        "style", "taken", "where",
    )  # fmt: skip

    def __init__(
        self, name: str, where: str, schema: Callable[[], Schema | None], shape: Shape = TEXT
    ) -> None:
        self.name = name
        self.where = where
        self.schema = schema
        self._shape = shape
        self.style = DEFAULT_STYLE[where]
        self.explode = self.style == "form"
        self.required = where == "path"
        self.allow_empty = False
        self.content = False
        self.taken: frozenset[str] = frozenset()
        self.place = name.lower().encode("latin-1", "replace") if where == "header" else b""

    def check(self, parts: Parts) -> list[Violation]:
        """What is wrong with it in this request."""
        try:
            value = self._value(parts)
        except Undecodable as error:
            return [self._violation(f"the parameter {error.reason}", "style")]
        if value is ABSENT:
            if self.required:
                return [self._violation("the parameter is missing", "required")]
            return []
        schema = self.schema()
        if schema is None or (value == "" and self.allow_empty):
            return []
        return self._judge(schema, value, parts)

    def _judge(self, schema: Schema, value: Any, parts: Parts) -> list[Violation]:
        found = schema.check(value, self.where, self.name)
        if found and "string" in self._shape.types and isinstance(value, int | float | None):
            # The text may be meant as text, though it looks like a number.
            text = self._text(parts)
            if text is not None and schema.is_valid(text):
                return []
        return found

    def _text(self, parts: Parts) -> str | None:
        raw = self._raw(parts)
        return None if raw is None else decode_text(raw, plus=self.where == "query")

    def _violation(self, message: str, keyword: str) -> Violation:
        return Violation(self.where, self.name, message, keyword)

    def _value(self, parts: Parts) -> Any:
        if self.where in ("query", "cookie") and not self.content:
            return self._form(parts)
        raw = self._raw(parts)
        if raw is None:
            return ABSENT
        if self.content:
            return self._json(raw)
        if self.style == "label":
            return styles.label(raw, self._shape, explode=self.explode)
        if self.style == "matrix":
            return styles.matrix(raw, self._shape, name=self.name, explode=self.explode)
        return self._simple(raw)

    def _simple(self, raw: str) -> Any:
        if self.where == "header":
            shape = self._shape
            if not (shape.is_array or shape.is_object):
                return coerce(raw, shape)
            # Fields are not percent-encoded, and may have spaces behind their commas.
            parts = [part.strip(" \t") for part in raw.split(",")] if raw else []
            plain = ",".join(part.replace("%", "%25") for part in parts)
            raw = plain.encode("utf-8").decode("latin-1")
        return styles.simple(raw, self._shape, explode=self.explode)

    def _raw(self, parts: Parts) -> str | None:
        """The text as it came, once; None if it is not there. Raises Undecodable."""
        if self.where == "path":
            return parts.path.get(self.name)
        if self.where == "header":
            fields = parts.headers(self.place)
            return field_text(fields) if fields else None
        pairs = parts.query if self.where == "query" else parts.cookies
        values = [value for name, value in pairs if name == self.name]
        if len(values) > 1:
            # Some take the first, others the last.
            raise Undecodable("is there more than once")
        return values[0] if values else None

    def _json(self, raw: str) -> Any:
        text = raw if self.where == "header" else decode_text(raw, plus=self.where == "query")
        try:
            return decode(text.encode("utf-8"))
        except MalformedJson as error:
            raise Undecodable(f"is not JSON: {error.reason}") from None

    def _form(self, parts: Parts) -> Any:
        pairs = parts.query if self.where == "query" else parts.cookies
        shape = self._shape
        if self.style == "deepObject":
            found = styles.deep_object(self.name, pairs, shape)
            return ABSENT if found is None else found
        if self.explode and shape.is_object:
            found = styles.form_object(pairs, shape, self.taken)
            return ABSENT if found is None else found
        if self.explode and shape.is_array:
            values = [value for name, value in pairs if name == self.name]
            return styles.array(values, shape, plus=True) if values else ABSENT
        raw = self._raw(parts)
        if raw is None:
            return ABSENT
        if shape.is_array or shape.is_object:
            return styles.separated(raw, shape, styles.SEPARATORS[self.style])
        return coerce(decode_text(raw, plus=self.where == "query"), shape)


def field_text(values: Sequence[bytes]) -> str:
    """A field's values as one list (RFC 9110 section 5.3), as text."""
    data = b", ".join(values)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def cookie_pairs(values: Iterable[bytes]) -> list[tuple[str, str]]:
    """The cookies of a request (RFC 6265 section 4.2)."""
    pairs = []
    for value in values:
        for part in value.decode("latin-1").split(";"):
            name, equals, text = part.strip(" \t").partition("=")
            if equals:
                pairs.append((name, text.strip('"')))
    return pairs


class Checkable(Protocol):
    """What can say what is wrong with a request beside its body."""

    where: str

    def check(self, parts: Parts) -> list[Violation]:
        """What is wrong."""
        ...


def check_all(parameters: Iterable[Checkable], parts: Parts) -> list[Violation]:
    """What is wrong with all of them."""
    found: list[Violation] = []
    for parameter in parameters:
        found += parameter.check(parts)
    return found
