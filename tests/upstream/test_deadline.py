"""One timer for all exchanges that have the same time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import SystemClock
from gateway.errors import DEADLINE_EXCEEDED, UpstreamError
from gateway.message import Exchange, Response
from gateway.upstream.deadline import Deadline
from tests.support.sending import make_exchange


async def _forever(exchange: Exchange) -> Response:
    await asyncio.sleep(30)
    return Response(200, [])


async def _at_once(exchange: Exchange) -> Response:
    return Response(200, [])


async def test_each_ends_when_its_own_time_is_over() -> None:
    """An exchange that began later ends later, though one timer watches over both."""
    deadline = Deadline(0.1, SystemClock().monotonic)
    loop = asyncio.get_running_loop()

    async def lasted(delay: float) -> float:
        await asyncio.sleep(delay)
        began = loop.time()
        with pytest.raises(UpstreamError) as caught:
            await deadline.run(make_exchange(), _forever)
        assert caught.value.kind is DEADLINE_EXCEEDED
        return loop.time() - began

    assert all(0.09 < each < 0.5 for each in await asyncio.gather(lasted(0), lasted(0.05)))


async def test_what_has_ended_is_not_touched() -> None:
    """The timer fires for nobody, and is armed again by the next exchange."""
    deadline = Deadline(0.02, SystemClock().monotonic)
    exchange = make_exchange()
    assert (await deadline.run(exchange, _at_once)).status == 200
    await asyncio.sleep(0.05)
    assert not exchange.timed_out
    with pytest.raises(UpstreamError):
        await deadline.run(make_exchange(), _forever)


async def test_less_time_than_the_others() -> None:
    """An exchange whose earlier deadline is nearer does not wait behind those before it."""
    clock = SystemClock()
    deadline = Deadline(10.0, clock.monotonic)
    exchange = make_exchange()
    exchange.deadline = clock.monotonic() + 0.02
    with pytest.raises(UpstreamError):
        await deadline.run(exchange, _forever)
