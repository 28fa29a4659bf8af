"""The timeout policy: expiry, cancellation, streamed answers, what has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import ValidationError

from gateway.errors import DEADLINE_EXCEEDED, UPSTREAM_RESET, UPSTREAM_TIMEOUT, UpstreamError
from gateway.message import Exchange, Response
from gateway.policies.base import BuildContext
from gateway.policies.deadline import DeadlineConfig, DeadlinePolicy

Make = Callable[..., Exchange]


def build(context: BuildContext, timeout: str) -> DeadlinePolicy:
    """A policy with this timeout."""
    return DeadlinePolicy.build(DeadlineConfig.model_validate(timeout), context)


async def stall(exchange: Exchange) -> Response:
    """An upstream that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def quick(exchange: Exchange) -> Response:
    """An upstream that answers at once."""
    return Response(200, [], b"ok")


async def endless() -> AsyncIterator[bytes]:
    """A body that never ends."""
    yield b"first"
    await asyncio.Event().wait()


def streaming(content_type: bytes = b"text/plain", status: int = 200) -> Response:
    """An answer whose body never ends."""
    return Response(status, [(b"content-type", content_type)], None, endless())


@pytest.mark.parametrize("text", ["0s", "-1s", "3", "soon"])
def test_timeouts_that_are_none(text: str) -> None:
    """A timeout is a duration of more than zero."""
    with pytest.raises(ValidationError):
        DeadlineConfig.model_validate(text)


async def test_in_time(context: BuildContext, make_exchange: Make) -> None:
    """An answer in time passes; the deadline stands for whoever is further in."""
    exchange = make_exchange()
    before = context.clock.monotonic()
    response = await build(context, "30s").handle(exchange, quick)

    assert response.body == b"ok"
    assert exchange.deadline is not None
    assert before + 30 <= exchange.deadline <= context.clock.monotonic() + 30
    assert not exchange.timed_out


async def test_expiry(context: BuildContext, make_exchange: Make) -> None:
    """What never answers is a 504, and the task can go on as if nothing had happened."""
    exchange = make_exchange()
    exchange.target = "orders-1:8080"
    with pytest.raises(UpstreamError) as caught:
        await build(context, "20ms").handle(exchange, stall)

    assert caught.value.kind is DEADLINE_EXCEEDED
    assert caught.value.kind.status == 504
    assert caught.value.next_hop == "orders-1:8080"
    assert "20ms" in caught.value.detail
    assert exchange.timed_out
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_expiry_leaves_nothing_behind(context: BuildContext, make_exchange: Make) -> None:
    """What the rest of the chain holds is given back when the time is over."""
    released = asyncio.Event()

    async def hold(exchange: Exchange) -> Response:
        try:
            return await stall(exchange)
        finally:
            released.set()

    with pytest.raises(UpstreamError):
        await build(context, "20ms").handle(make_exchange(), hold)
    assert released.is_set()


async def test_an_earlier_deadline_holds(context: BuildContext, make_exchange: Make) -> None:
    """Of two deadlines the earlier one counts."""
    exchange = make_exchange()
    exchange.deadline = context.clock.monotonic() + 0.02
    with pytest.raises(UpstreamError):
        await build(context, "50s").handle(exchange, stall)


async def test_a_later_deadline_gives_way(context: BuildContext, make_exchange: Make) -> None:
    """A deadline that is further away than the timeout is drawn in."""
    exchange = make_exchange()
    exchange.deadline = context.clock.monotonic() + 1000
    await build(context, "30s").handle(exchange, quick)

    assert exchange.deadline <= context.clock.monotonic() + 30


async def test_a_deadline_that_has_passed(context: BuildContext, make_exchange: Make) -> None:
    """Where the time is over before the call, it ends at its first wait."""
    exchange = make_exchange()
    exchange.deadline = context.clock.monotonic() - 5
    with pytest.raises(UpstreamError):
        await build(context, "50s").handle(exchange, stall)


async def test_the_client_leaves(context: BuildContext, make_exchange: Make) -> None:
    """A cancellation that is not the deadline's goes on, and the timer is gone."""
    exchange = make_exchange()
    task = asyncio.ensure_future(build(context, "50ms").handle(exchange, stall))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.sleep(0.1)
    assert not exchange.timed_out


async def test_the_client_leaves_as_the_time_ends(
    context: BuildContext, make_exchange: Make
) -> None:
    """Cancelled for both reasons at once, the cancellation is not swallowed."""
    exchange = make_exchange()
    task = asyncio.ensure_future(build(context, "50s").handle(exchange, stall))
    await asyncio.sleep(0)
    assert exchange.task is task
    exchange.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_failures_pass(context: BuildContext, make_exchange: Make) -> None:
    """A failure in time goes on as it is, and the timer is gone."""
    exchange = make_exchange()

    async def fail(exchange: Exchange) -> Response:
        raise UpstreamError(UPSTREAM_RESET)

    with pytest.raises(UpstreamError) as caught:
        await build(context, "50ms").handle(exchange, fail)
    assert caught.value.kind is UPSTREAM_RESET
    await asyncio.sleep(0.1)
    assert not exchange.timed_out


async def test_a_failure_that_the_expiry_caused(context: BuildContext, make_exchange: Make) -> None:
    """Where the cancellation comes back as another failure, the deadline is still the reason."""

    async def translate(exchange: Exchange) -> Response:
        try:
            return await stall(exchange)
        except asyncio.CancelledError:
            raise UpstreamError(UPSTREAM_TIMEOUT) from None

    with pytest.raises(UpstreamError) as caught:
        await build(context, "20ms").handle(make_exchange(), translate)
    assert caught.value.kind is DEADLINE_EXCEEDED
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_answer_after_the_expiry(context: BuildContext, make_exchange: Make) -> None:
    """Where the cancellation was caught further in, the late answer is closed, not served."""
    closed = asyncio.Event()

    async def late(exchange: Exchange) -> Response:
        try:
            return await stall(exchange)
        except asyncio.CancelledError:
            response = Response(200, [])
            response.on_close(closed.set)
            return response

    with pytest.raises(UpstreamError):
        await build(context, "20ms").handle(make_exchange(), late)
    assert closed.is_set()


async def test_a_streamed_answer_is_covered(context: BuildContext, make_exchange: Make) -> None:
    """The time goes on while the body streams; whoever reads it is cancelled."""
    exchange = make_exchange()

    async def forward(exchange: Exchange) -> Response:
        return streaming()

    async def serve() -> None:
        response = await build(context, "50ms").handle(exchange, forward)
        assert response.stream is not None
        async for piece in response.stream:
            assert piece == b"first"

    task = asyncio.ensure_future(serve())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.timed_out


async def test_a_streamed_answer_that_ends(context: BuildContext, make_exchange: Make) -> None:
    """Closing the answer stops the timer."""
    exchange = make_exchange()

    async def forward(exchange: Exchange) -> Response:
        return streaming()

    response = await build(context, "50ms").handle(exchange, forward)
    response.close()
    await asyncio.sleep(0.1)
    assert not exchange.timed_out


@pytest.mark.parametrize(
    "response",
    [
        (200, b"text/event-stream"),
        (200, b"Text/Event-Stream; charset=utf-8"),
        (101, b""),
    ],
)
async def test_what_has_no_end(
    context: BuildContext, make_exchange: Make, response: tuple[int, bytes]
) -> None:
    """An event stream or an upgraded connection stays open past the timeout."""
    exchange = make_exchange()

    async def forward(exchange: Exchange) -> Response:
        return streaming(response[1], response[0])

    await build(context, "50ms").handle(exchange, forward)
    await asyncio.sleep(0.1)
    assert not exchange.timed_out
    assert exchange.deadline is None
