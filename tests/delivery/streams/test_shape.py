"""What an entry of a stream becomes: any bytes at all, and what nothing can be made of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery.entrance import Blank
from gateway.delivery.mapping import Mapping
from gateway.delivery.streams.shape import ENTRY_ROOTS, Shape
from gateway.errors import BODY_TOO_LARGE, INVALID_BODY

BLANK = Blank("r", "POST", "/e", b"", "", {}, {})
Fields = list[tuple[bytes, bytes]]


def shape(**options: object) -> Shape:
    return Shape("s", "key", BLANK, b"application/json", **options)  # type: ignore[arg-type]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=5))
def test_any_entry_becomes_an_event(fields: Fields) -> None:
    """Either all its fields as an object, or an invalid one that still holds all of it as JSON."""
    exchange, invalid = shape().fill(b"1-1", fields, 0.0)
    body = json.loads(exchange.request.body or b"")

    if invalid is None:
        assert body == {name.decode(): value.decode() for name, value in fields}
    else:
        assert invalid.kind is INVALID_BODY
        assert len(body) == len(fields)


def test_a_field_as_it_stands() -> None:
    """The last one of that name; without it the event is invalid."""
    fields: Fields = [(b"a", b"1"), (b"p", b"\xff"), (b"p", b"\xfe\x00")]
    exchange, invalid = shape(field=b"p").fill(b"1-1", fields, 0.0)
    assert (exchange.request.body, invalid) == (b"\xfe\x00", None)

    _, invalid = shape(field=b"q").fill(b"1-1", fields, 0.0)
    assert invalid is not None


@pytest.mark.parametrize("value", [b"a\r\nb", b"\xc3\xa9", b"\x00"])
def test_what_can_not_stand_in_a_header_field(value: bytes) -> None:
    """It makes the event invalid, and never a second field."""
    headers = Mapping({"X-A": "=entry.fields.a"}, ENTRY_ROOTS)
    exchange, invalid = shape(headers=headers).fill(b"1-1", [(b"a", value)], 0.0)

    assert invalid is not None
    assert b"x-a" not in exchange.request.headers


def test_numbers_in_header_fields() -> None:
    """What is no text is written as JSON."""
    headers = Mapping({"X-A": "=int(entry.fields.a) + 1"}, ENTRY_ROOTS)
    exchange, _ = shape(headers=headers).fill(b"1-1", [(b"a", b"1")], 0.0)

    assert exchange.request.headers.get(b"x-a") == b"2"


def test_an_entry_that_is_too_large() -> None:
    """Its event names the entry, which stays in the stream, and does not hold it."""
    exchange, invalid = shape(limit=10).fill(b"1-1", [(b"a", b"x" * 10)], 0.0)

    assert invalid is not None
    assert invalid.kind is BODY_TOO_LARGE
    assert "1-1" in invalid.detail
    assert exchange.request.body == b""
