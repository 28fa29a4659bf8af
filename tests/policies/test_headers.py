"""The headers policy: fields set, added and removed in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import UPSTREAM_RESET, UpstreamError
from gateway.message import Exchange, Response
from gateway.policies.base import BuildContext
from gateway.policies.headers import HeadersConfig, HeadersPolicy

Make = Callable[..., Exchange]


def build(context: BuildContext, **config: Any) -> HeadersPolicy:
    """A policy with this configuration."""
    return HeadersPolicy.build(HeadersConfig.model_validate(config), context)


async def answer(exchange: Exchange) -> Response:
    """An upstream that echoes the fields it was sent."""
    return Response(200, exchange.request.headers.raw)


async def test_request(context: BuildContext, make_exchange: Make) -> None:
    """What is removed goes first, then what is set replaces, then what is added is appended."""
    rules = {"set": {"X-A": "new"}, "add": {"X-B": "two"}, "remove": ["Cookie", "X-Gone"]}
    policy = build(context, request=rules)
    exchange = make_exchange(
        "GET", ("x-a", "old"), ("cookie", "c"), ("x-b", "one"), ("x-a", "older")
    )
    response = await policy.handle(exchange, answer)

    assert response.headers == [(b"x-b", b"one"), (b"x-a", b"new"), (b"x-b", b"two")]
    assert exchange.request.headers.get(b"x-a") == b"new"
    assert b"cookie" not in exchange.request.headers


async def test_response(context: BuildContext, make_exchange: Make) -> None:
    """Answers are edited, and the request is left alone."""
    policy = build(context, response={"remove": ["Server"], "set": {"Cache-Control": "no-store"}})
    exchange = make_exchange("GET", ("server", "s"), ("etag", "e"))
    response = await policy.handle(exchange, answer)

    assert response.headers == [(b"etag", b"e"), (b"cache-control", b"no-store")]
    assert exchange.request.headers.raw == [(b"server", b"s"), (b"etag", b"e")]


async def test_one_request_does_not_change_the_next(
    context: BuildContext, make_exchange: Make
) -> None:
    """The rules are the same for each exchange."""
    policy = build(context, request={"add": {"X-B": "b"}}, response={"add": {"X-C": "c"}})
    for _ in range(3):
        response = await policy.handle(make_exchange("GET"), answer)

        assert response.headers == [(b"x-b", b"b"), (b"x-c", b"c")]


async def test_failures_pass(context: BuildContext, make_exchange: Make) -> None:
    """A failure of the upstream is nobody's answer and goes on as it is."""

    async def fail(exchange: Exchange) -> Response:
        raise UpstreamError(UPSTREAM_RESET)

    with pytest.raises(UpstreamError):
        await build(context, response={"set": {"X-A": "a"}}).handle(make_exchange(), fail)


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer",
     "Upgrade", "Proxy-Connection", "Expect", "X-Forwarded-For", "X-Forwarded-Prefix", "Forwarded",
     "Via", "X-Real-IP", "", "a b", "a:b", "a\r\nb", "ä"],
)  # fmt: skip
@pytest.mark.parametrize("direction", ["request", "response"])
def test_names_that_are_refused(name: str, direction: str) -> None:
    """Fields of the connection, of framing, and those written by rule can't be configured."""
    for rules in ({"set": {name: "x"}}, {"add": {name.lower(): "x"}}, {"remove": [name.upper()]}):
        with pytest.raises(ValidationError):
            HeadersConfig.model_validate({direction: rules})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "a\x7f", " a", "a ", "ä"])
def test_values_that_are_refused(value: str) -> None:
    """A value that would not be one value on the wire is refused."""
    with pytest.raises(ValidationError):
        HeadersConfig.model_validate({"request": {"set": {"X-A": value}}})


@pytest.mark.parametrize("value", ["", "a", "a b\tc", "max-age=0, private", '"~!'])
def test_values_that_pass(value: str) -> None:
    """Visible ASCII with spaces inside, and the empty value, are fine."""
    HeadersConfig.model_validate({"response": {"set": {"X-A": value}}})
