"""One operation of a contract: its parameters, its request body, its answers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.contracts import media
from gateway.contracts.media import MediaTable, MediaType
from gateway.contracts.parameters import Checkable
from gateway.contracts.schema import Schema
from gateway.contracts.shapes import TEXT, Shape
from gateway.contracts.strict_json import MalformedJson, decode
from gateway.contracts.styles import Undecodable, form_object, query_pairs
from gateway.contracts.violations import Violation


class Content:
    """What a body of one media type must be. `schema` gives its validator, None for anything."""

    __slots__ = ("schema", "shape")

    def __init__(self, schema: Callable[[], Schema | None], shape: Shape = TEXT) -> None:
        self.schema = schema
        self.shape = shape


class Unreadable(ValueError):
    """A body is not what its media type says. `reason` holds no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Body:
    """A request body: what it must be by media type, and whether it must be there."""

    __slots__ = ("content", "required")

    def __init__(self, content: MediaTable[Content], *, required: bool) -> None:
        self.content = content
        self.required = required


def check_content(content: Content, kind: MediaType, data: bytes) -> list[Violation]:
    """What is wrong with a body. Raises Unreadable if it is not even of its media type."""
    schema = content.schema()
    if kind.kind == media.JSON:
        # Read even if there is nothing to hold it to: what is no JSON is refused as such.
        value = read_json(data)
        return [] if schema is None else schema.check(value, "body")
    if schema is None:
        return []
    if kind.kind == media.FORM:
        return schema.check(_read_form(data, content.shape), "body")
    if kind.kind == media.TEXT:
        try:
            return schema.check(data.decode("utf-8"), "body")
        except UnicodeDecodeError:
            raise Unreadable("the body is not UTF-8") from None
    return []


def read_json(data: bytes) -> Any:
    """The value of a JSON body. Raises Unreadable."""
    try:
        return decode(data)
    except MalformedJson as error:
        raise Unreadable(f"the body is not JSON: {error.reason}") from None


def _read_form(data: bytes, shape: Shape) -> dict[str, Any]:
    try:
        pairs = query_pairs(data)
        everything = Shape()
        everything.properties = shape.properties
        everything.additional = shape.additional or TEXT
        return form_object(pairs, everything, frozenset()) or {}
    except Undecodable as error:
        raise Unreadable(f"the form is not right: a field {error.reason}") from None


def unpack(data: bytes, encoding: str, limit: int) -> bytes | None:
    """The content of an encoded body; None if it can't be told within `limit` bytes."""
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    unpacker = zlib.decompressobj(47)
    try:
        unpacked = unpacker.decompress(data, limit)
    except zlib.error:
        return None
    return unpacked if unpacker.eof and not unpacker.unused_data else None


class Operation:
    """One method of one path. `label` names it in logs; `responses` are by status, as written."""

    __slots__ = ("body", "label", "parameters", "responses", "uses_cookies")

    def __init__(
        self,
        label: str,
        parameters: Sequence[Checkable],
        body: Body | None,
        responses: Mapping[str, MediaTable[Content]],
    ) -> None:
        self.label = label
        self.parameters = tuple(parameters)
        self.uses_cookies = any(each.where == "cookie" for each in parameters)
        self.body = body
        self.responses = responses

    def response(self, status: int) -> MediaTable[Content] | None:
        """What an answer of this status must be; None if nothing is said of it."""
        responses = self.responses
        for key in (str(status), f"{status // 100}XX", "default"):
            if key in responses:
                return responses[key]
        return None
