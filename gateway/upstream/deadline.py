"""The timer of an exchange: what it awaits is cancelled when its time is over, and a 504 raised.

What may be configured about it is the policy's; this is apart from it so that it can be compiled.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from gateway.config.types import format_duration
from gateway.errors import DEADLINE_EXCEEDED, UpstreamError
from gateway.message import Exchange, Handler, RawHeaders, Response

# Timers of the event loop are rounded to a millisecond, and may come that much early.
_TIMER_SLACK: Final = 0.002


class Deadline:
    """Ends exchanges after `timeout_s` seconds. `now` is the clock's monotonic reading.

    All of them have the same time, so the one that began first ends first, and one timer of the
    loop is enough: a timer for each, set and cancelled, costs as much as parsing a head.
    """

    __slots__ = ("_loop", "_now", "_running", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float, now: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._now = now
        # When each exchange under way is over, by the loop's time; the oldest stands first.
        self._running: dict[Exchange, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        # Asked for once: until Python 3.12 each asking is a system call, getpid.
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward, with the timer running.

        Raises UpstreamError(DEADLINE_EXCEEDED). A cancellation that somebody else wanted, because
        the client left, goes on as it is.
        """
        earlier = exchange.deadline
        timeout_s = self._timeout_s
        now = self._now()
        if earlier is not None and earlier - now < timeout_s:
            timeout_s = max(0.0, earlier - now)
        exchange.deadline = now + timeout_s
        if exchange.task is None:
            exchange.task = asyncio.current_task()
        cancel = self._watch(exchange, timeout_s)
        try:
            response = await forward(exchange)
        except BaseException as error:
            cancel()
            if exchange.timed_out:
                self._translate(exchange, error)
            raise
        if exchange.timed_out:
            # Somebody further in caught the cancellation; the time is over all the same.
            response.close()
            self._translate(exchange, None)
        if response.body is None and not _is_endless(response):
            response.on_close(cancel)
            return response
        cancel()
        if response.body is None or response.status == 101:
            # What goes on from here is not measured, further in neither.
            exchange.deadline = earlier
        return response

    def _watch(self, exchange: Exchange, timeout_s: float) -> Callable[[], Any]:
        """Have the exchange expire in `timeout_s` seconds, unless what is returned is called."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if timeout_s != self._timeout_s or exchange in self._running:
            # It has less time than the others, or is here twice, and needs a timer of its own.
            return loop.call_later(timeout_s, exchange.expire).cancel
        # The loop's time: the given clock need not be the loop's.
        self._running[exchange] = loop.time() + timeout_s
        if self._timer is None:
            self._timer = loop.call_later(timeout_s, self._fire)
        return partial(self._running.pop, exchange, None)

    def _fire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        over = loop.time() + _TIMER_SLACK
        for exchange, when in list(self._running.items()):
            if when > over:
                self._timer = loop.call_at(when, self._fire)
                return
            del self._running[exchange]
            exchange.expire()

    def _translate(self, exchange: Exchange, error: BaseException | None) -> None:
        """Raise the 504 that the expiry stands for, unless the task is cancelled otherwise too."""
        task = exchange.work or exchange.task
        others = task.uncancel() if task is not None else 0
        if others and isinstance(error, CancelledError):
            return
        detail = f"no complete answer within {format_duration(self._timeout_s)}"
        failure = UpstreamError(DEADLINE_EXCEEDED, detail, next_hop=exchange.target)
        raise failure from (None if isinstance(error, CancelledError) else error)


def _is_endless(response: Response) -> bool:
    return response.status == 101 or _content_type(response.headers).startswith(
        b"text/event-stream"
    )


def _content_type(headers: RawHeaders) -> bytes:
    for name, value in headers:
        if name == b"content-type":
            return value.lower()
    return b""
