"""The body policy: limits, at once where the length is stated, while streaming where it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.errors import BODY_TOO_LARGE, ClientError
from gateway.message import Exchange
from gateway.policies.base import BuildContext
from gateway.policies.body import BodyConfig, BodyPolicy

Make = Callable[..., Exchange]


def build(context: BuildContext, **config: Any) -> BodyPolicy:
    """A policy with this configuration."""
    return BodyPolicy.build(BodyConfig.model_validate(config), context)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for part in parts:
        yield part


async def read(exchange: Exchange) -> bytes:
    """The exchange's streamed body."""
    stream = exchange.request.stream
    assert stream is not None
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize(("size", "passes"), [(0, True), (10, True), (11, False)])
async def test_whole_body(
    context: BuildContext, make_exchange: Make, size: int, passes: bool
) -> None:
    """A body that is there already is measured."""
    rejection = build(context, max=10).check(make_exchange("POST", body=b"x" * size))

    assert (rejection is None) is passes


@pytest.mark.parametrize(
    ("length", "passes"), [("10", True), ("11", False), ("0011", False), ("9" * 5000, False)]
)
async def test_stated_length(
    context: BuildContext, make_exchange: Make, length: str, passes: bool
) -> None:
    """A length that is too large is refused before any of the body is read."""
    stream = pieces(b"x")
    exchange = make_exchange("POST", ("content-length", length), body=None, stream=stream)
    rejection = build(context, max="10B").check(exchange)

    assert (rejection is None) is passes
    assert exchange.request.stream is stream
    if rejection is not None:
        assert rejection.kind is BODY_TOO_LARGE
        assert "10 bytes" in rejection.detail


async def test_chunked_within_the_limit(context: BuildContext, make_exchange: Make) -> None:
    """A body without a length passes as long as it is short enough."""
    exchange = make_exchange("POST", body=None, stream=pieces(b"12345", b"67890"))
    assert build(context, max=10).check(exchange) is None

    assert await read(exchange) == b"1234567890"


async def test_chunked_over_the_limit(context: BuildContext, make_exchange: Make) -> None:
    """A body without a length fails when it gets too long, and the excess is not passed on."""
    exchange = make_exchange("POST", body=None, stream=pieces(b"12345", b"678901", b"x"))
    assert build(context, max=10).check(exchange) is None
    stream = exchange.request.stream
    assert stream is not None

    assert await anext(stream) == b"12345"
    with pytest.raises(ClientError) as caught:
        await anext(stream)
    assert caught.value.kind is BODY_TOO_LARGE


async def test_a_length_beside_chunked_is_not_believed(
    context: BuildContext, make_exchange: Make
) -> None:
    """Where a server lets both through, the body is counted."""
    fields = ("content-length", "1"), ("transfer-encoding", "chunked")
    exchange = make_exchange("POST", *fields, body=None, stream=pieces(b"x" * 11))
    assert build(context, max=10).check(exchange) is None

    with pytest.raises(ClientError):
        await read(exchange)


async def test_report(context: BuildContext, make_exchange: Make) -> None:
    """In report mode a streamed body that is too long passes, and is noted once."""
    exchange = make_exchange("POST", body=None, stream=pieces(b"x" * 11, b"y" * 11))
    assert build(context, max=10, mode="report").check(exchange) is None

    assert await read(exchange) == b"x" * 11 + b"y" * 11
    assert exchange.reported == ["body:body_too_large"]


async def test_the_servers_limit_is_the_default(context: BuildContext, make_exchange: Make) -> None:
    """A route that says nothing has the server's limit; its own may be larger."""
    limit = context.server.limits.body
    assert limit
    exchange = make_exchange("POST", ("content-length", str(limit + 1)), body=None)

    assert build(context).check(exchange) is not None
    assert build(context, max=limit + 1).check(exchange) is None


async def test_no_body_at_all(context: BuildContext, make_exchange: Make) -> None:
    """A limit of zero lets requests without a body pass, and no other."""
    policy = build(context, max=0)

    assert policy.check(make_exchange()) is None
    assert policy.check(make_exchange("POST", body=b"x")) is not None
