"""Messages: a request's body read whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import BODY_TOO_LARGE, ClientError
from gateway.message import Headers, Request


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def streaming(*parts: bytes) -> Request:
    request = Request("POST", "/", b"", Headers([]))
    request.body, request.stream = None, pieces(*parts)
    return request


async def test_a_body_is_read_whole_once_and_kept() -> None:
    """Whoever comes after sees bytes, not a stream that somebody has used up."""
    request = streaming(b"one ", b"two")

    assert await request.read_body(7) == b"one two"
    assert request.body == b"one two"
    assert request.stream is None
    assert await request.read_body(7) == b"one two"


async def test_a_body_that_is_whole_already_is_bounded_too() -> None:
    """The bound is the reader's, whoever read it before."""
    request = Request("POST", "/", b"", Headers([]))
    request.body = b"12345"

    assert await request.read_body(5) == b"12345"
    with pytest.raises(ClientError) as caught:
        await request.read_body(4)
    assert caught.value.kind is BODY_TOO_LARGE


async def test_no_more_is_held_than_the_bound() -> None:
    """The piece that goes beyond it ends the reading."""
    request = streaming(b"123", b"456", b"never read")

    with pytest.raises(ClientError) as caught:
        await request.read_body(5)
    assert caught.value.kind is BODY_TOO_LARGE
    assert request.stream is not None
    assert [piece async for piece in request.stream] == [b"never read"]


async def test_no_body_is_an_empty_one() -> None:
    """A request without a body reads as zero bytes."""
    assert await Request("GET", "/", b"", Headers([])).read_body(0) == b""
