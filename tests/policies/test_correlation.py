"""The correlation policy: taken or made, sent on, echoed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from gateway.message import Exchange
from gateway.policies.base import BuildContext
from gateway.policies.correlation import CorrelationConfig, CorrelationPolicy

Make = Callable[..., Exchange]


def build(context: BuildContext, **config: object) -> CorrelationPolicy:
    """A policy with this configuration."""
    return CorrelationPolicy.build(CorrelationConfig.model_validate(config), context)


async def test_made(context: BuildContext, make_exchange: Make) -> None:
    """Without an id from the client a new one is made, for log, upstream and answer alike."""
    policy = build(context)
    first, second = make_exchange(), make_exchange()
    policy.check(first)
    policy.check(second)

    assert len(first.correlation_id) == 32
    assert int(first.correlation_id, 16)
    assert first.correlation_id != second.correlation_id
    pair = (b"x-correlation-id", first.correlation_id.encode())
    assert first.request.headers.raw == [pair]
    assert first.reply_headers == [pair]


@pytest.mark.parametrize("value", ["abc", "A-z.0_9:-", "x" * 128])
async def test_accepted(context: BuildContext, make_exchange: Make, value: str) -> None:
    """A well-formed id of the client goes on."""
    exchange = make_exchange("GET", ("x-correlation-id", value))
    build(context).check(exchange)

    assert exchange.correlation_id == value
    assert exchange.request.headers.get_all(b"x-correlation-id") == [value.encode()]
    assert exchange.reply_headers == [(b"x-correlation-id", value.encode())]


@pytest.mark.parametrize("value", ["", "x" * 129, "a b", 'a"b', "a\nb", "ä", "a,b", "${jndi:x}"])
async def test_replaced(context: BuildContext, make_exchange: Make, value: str) -> None:
    """An id that is none is replaced, also for the upstream."""
    exchange = make_exchange("GET", ("x-correlation-id", value))
    build(context).check(exchange)

    assert len(exchange.correlation_id) == 32
    assert exchange.request.headers.get_all(b"x-correlation-id") == [
        exchange.correlation_id.encode()
    ]


async def test_sent_twice(context: BuildContext, make_exchange: Make) -> None:
    """Of two ids one is left, so that everybody logs the same."""
    exchange = make_exchange("GET", ("x-correlation-id", "a"), ("x-correlation-id", "b"))
    build(context).check(exchange)

    assert exchange.request.headers.get_all(b"x-correlation-id") == [
        exchange.correlation_id.encode()
    ]


async def test_not_accepted(context: BuildContext, make_exchange: Make) -> None:
    """With accept off, ids of clients go nowhere."""
    fields = ("x-correlation-id", "abc"), ("x-request-id", "def")
    exchange = make_exchange("GET", *fields)
    build(context, accept=False).check(exchange)

    assert exchange.correlation_id != "abc"
    assert len(exchange.request.headers.get_all(b"x-correlation-id")) == 1
    assert b"x-request-id" not in exchange.request.headers


async def test_request_id(context: BuildContext, make_exchange: Make) -> None:
    """A client's X-Request-ID passes and is echoed; a malformed one is dropped."""
    good = make_exchange("GET", ("x-request-id", "r1"))
    bad = make_exchange("GET", ("x-request-id", "r 1"))
    twice = make_exchange("GET", ("x-request-id", "r1"), ("x-request-id", "r2"))
    for exchange in (good, bad, twice):
        build(context).check(exchange)

    assert (b"x-request-id", b"r1") in good.reply_headers
    assert good.request.headers.get(b"x-request-id") == b"r1"
    assert b"x-request-id" not in bad.request.headers
    assert b"x-request-id" not in twice.request.headers
    assert len(bad.reply_headers) == len(twice.reply_headers) == 1


async def test_other_header(context: BuildContext, make_exchange: Make) -> None:
    """The field's name is configurable, X-Request-ID included."""
    exchange = make_exchange("GET", ("x-request-id", "r1"))
    build(context, header="X-Request-ID").check(exchange)

    assert exchange.correlation_id == "r1"
    assert exchange.reply_headers == [(b"x-request-id", b"r1")]


@pytest.mark.parametrize("name", ["Host", "Connection", "X Y", "", "X-Forwarded-For", "Via"])
def test_headers_that_cannot_carry_it(name: str) -> None:
    """A field that belongs to the gateway or the connection can't carry the id."""
    with pytest.raises(ValidationError):
        CorrelationConfig(header=name)
