"""What event an entry of a stream becomes. Pure: an entry in, the exchange of the event out."""

from __future__ import annotations

import base64
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.delivery.entrance import Blank
from gateway.delivery.event import ENTRY_FIELD, STREAM_FIELD
from gateway.delivery.mapping import Mapping, MappingFailed
from gateway.errors import BODY_TOO_LARGE, INVALID_BODY, Rejection
from gateway.expressions import Maker
from gateway.message import Exchange, RawHeaders

Fields = list[tuple[bytes, bytes]]
_STATE: Final = "entry"


def _entry(exchange: Exchange) -> object:
    return (exchange.state or {}).get(_STATE, {})


ENTRY_ROOTS: Final[MappingType[str, Maker]] = {"entry": _entry}
"""What an expression over an entry may name: `entry.id`, `entry.stream`, `entry.fields`."""


class Unfit(Exception):
    """The entry can't become the event that was asked for. The text names no value."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How entries become requests. The body is the field `field`, or what `body` makes of the
    entry, or all fields as a JSON object. `headers` are further fields; `limit` is bytes.
    """

    name: str
    stream: str
    blank: Blank
    content_type: bytes
    field: bytes | None = None
    body: Mapping | None = None
    headers: Mapping | None = None
    limit: int = 10 * 1024 * 1024

    def fill(
        self, entry_id: bytes, fields: Fields, now: float
    ) -> tuple[Exchange, Rejection | None]:
        """The exchange, and why the event is invalid or None; `now` is monotonic seconds.

        The body of an invalid one holds the whole entry, unless it is too large to be kept.
        """
        size = sum(len(name) + len(value) for name, value in fields)
        if size > self.limit:
            shown = entry_id.decode("latin-1")
            detail = f"the entry {shown} has {size} bytes, of at most {self.limit}: see the stream"
            return self._made(b"", entry_id, now), Rejection(BODY_TOO_LARGE, detail)
        try:
            exchange = self._made(b"", entry_id, now)
            exchange.state = {_STATE: self._facts(entry_id, fields)}
            exchange.request.body = self._body(exchange, fields)
            for name, value in self._more(exchange):
                exchange.request.headers.set(name, value)
        except (Unfit, MappingFailed) as error:
            return self.bare(entry_id, fields, now), Rejection(INVALID_BODY, str(error))
        return exchange, None

    def bare(self, entry_id: bytes, fields: Fields, now: float) -> Exchange:
        """The exchange of an event that nothing was made of: its body holds the whole entry."""
        return self._made(whole(fields), entry_id, now)

    def _made(self, body: bytes, entry_id: bytes, now: float) -> Exchange:
        known: RawHeaders = [(STREAM_FIELD, self.name.encode()), (ENTRY_FIELD, entry_id)]
        exchange = self.blank.fill(body, known, now)
        exchange.request.headers.set(b"content-type", self.content_type)
        return exchange

    def _facts(self, entry_id: bytes, fields: Fields) -> dict[str, Any]:
        texts = {}
        for name, value in fields:
            try:
                texts[name.decode()] = value.decode()
            except UnicodeDecodeError:
                # An expression that asks for it fails, and says that it is not there.
                continue
        return {"id": entry_id.decode("latin-1"), "stream": self.stream, "fields": texts}

    def _body(self, exchange: Exchange, fields: Fields) -> bytes:
        if self.body is not None:
            return self.body.body(exchange)
        if self.field is None:
            return _as_object(fields)
        found = next((value for name, value in reversed(fields) if name == self.field), None)
        if found is None:
            raise Unfit("the entry does not have the field that is to be the body")
        return found

    def _more(self, exchange: Exchange) -> RawHeaders:
        if self.headers is None:
            return []
        return [
            (name.lower().encode("ascii"), _field_value(name, value))
            for name, value in self.headers.value(exchange).items()
        ]


def _as_object(fields: Fields) -> bytes:
    found: dict[str, str] = {}
    for name, value in fields:
        try:
            key, text = name.decode(), value.decode()
        except UnicodeDecodeError:
            raise Unfit("a field is not UTF-8, and can't stand in JSON") from None
        if key in found:
            raise Unfit("a field is there twice, and can't stand in a JSON object")
        found[key] = text
    return msgspec.json.encode(found)


def whole(fields: Fields) -> bytes:
    """All of an entry as JSON, for people: what is no text stands there as base64."""
    return msgspec.json.encode([[_shown(name), _shown(value)] for name, value in fields])


def _shown(part: bytes) -> str | dict[str, str]:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(part).decode("ascii")}


def _field_value(name: str, value: Any) -> bytes:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if any(char in text for char in "\r\n\0") or not text.isascii():
        raise Unfit(f"what the header field {name} is to be can't stand in one")
    return text.encode("ascii")
