"""One connection to one server, shared by all requests, in the Redis protocol.

Commands of one turn of the event loop leave in one write; replies come back in the order of the
commands. What a caller no longer waits for (it left, or its time was up) keeps its place in the
line, and its reply is thrown away when it comes: no reply ever reaches another caller.

One timer serves all: it looks at the oldest command that is still waited for. Reconnecting, the
breaker and scripts are not here.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, cast

from hiredis import ProtocolError, Reader
from hiredis import ReplyError as Refusal

from gateway.errors import StoreError
from gateway.observability.store_series import STORE_BOUNDS, StoreSeries
from gateway.store.base import Part, ReplyError, failure
from gateway.store.command import encode, encode_script
from gateway.store.script import Script

MAX_IN_FLIGHT: Final = 8192
MAX_BUFFERED: Final = 32 << 20
# A server that answers nothing for this long is given up with its connection: many time-outs, and
# long enough that a pause of the server (a fork, a swap) is not made worse by connecting anew.
_SILENCE_S: Final = 1.0
_SILENCE_TIMEOUTS: Final = 10
_HIGH_WATER: Final = 1 << 20

# Answered by sending the command elsewhere, or whole.
_ROUTINE: Final = frozenset({"NOSCRIPT", "MOVED", "ASK"})
_NOTHING: Final = object()


Run = tuple[Script, tuple[Part, ...], tuple[Part, ...]]
"""A script with its keys and arguments."""


class Link:
    """A connection; by duck type an asyncio.Protocol, so that it can be compiled.

    `timeout` is every command's, in seconds; `on_lost` is called once, when the connection is gone,
    and `on_failure` for each command that timed out or was refused by a store that can't work.
    """

    __slots__ = (
        "_buffer", "_due", "_flushing", "_loop", "_new_future", "_on_failure", "_on_lost",
        "_paused", "_reader", "_refusing", "_series", "_silence", "_timer", "_transport",
        "failures", "heard_at", "lost", "timeout", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        timeout: float,
        series: StoreSeries,
        on_lost: Callable[[Link, str], None],
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self.timeout = 0.0
        # The commands whose replies are to come, in the order they were sent, each with the time
        # it was given, and the script that may have to be sent whole.
        self.waiting: deque[tuple[asyncio.Future[Any], float, Run | None]] = deque()
        self.lost = ""
        self.heard_at = 0.0
        # In a row: reset by every good reply.
        self.failures = 0
        self._loop = asyncio.get_running_loop()
        self._new_future = self._loop.create_future
        self._series = series
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._reader: Any = Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._buffer: list[bytes] = []
        # Why no more calls are taken, "" if they are.
        self._refusing = ""
        self._flushing = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self._silence = 0.0
        self.limit(timeout)

    def limit(self, timeout: float) -> None:
        """Give every command from now on `timeout` seconds."""
        self.timeout = timeout
        self._silence = max(_SILENCE_S, _SILENCE_TIMEOUTS * timeout)
        if self.waiting:
            self._look()

    # Sending.

    def send(self, parts: tuple[Part, ...], at: float) -> asyncio.Future[Any]:
        """The reply to come for a command that has been wanted since `at` (monotonic seconds).

        Cancelling the future is fine at any time. Raises StoreError if nothing more can be taken
        on, and TypeError for what is no part of a command.
        """
        if self._refusing:
            raise failure(self._refusing, sent=False)
        command = encode(parts)
        future = self._new_future()
        self._append(command, future, at, None)
        return future

    def run(self, script: Run, at: float) -> asyncio.Future[Any]:
        """The reply to come of a script, as `send` gives it. It is sent whole if the server does
        not know it.
        """
        if self._refusing:
            raise failure(self._refusing, sent=False)
        it, keys, args = script
        command = encode_script(it, keys, args)
        future = self._new_future()
        self._append(command, future, at, script)
        return future

    def _append(
        self, command: bytes, future: asyncio.Future[Any], at: float, script: Run | None
    ) -> None:
        self._buffer.append(command)
        self.waiting.append((future, at, script))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        if at + self.timeout < self._due:
            self._arm(at + self.timeout)

    def _flush(self) -> None:
        """Once in a turn of the loop with calls: write them, and see whether too many wait."""
        self._flushing = False
        buffer = self._buffer
        if buffer and not self._paused and self._transport is not None:
            self._transport.write(buffer[0] if len(buffer) == 1 else b"".join(buffer))
            buffer.clear()
        self._weigh()

    def _weigh(self) -> None:
        """Refuse further calls while too many wait: a bound that one turn of the loop may pass."""
        if self.lost:
            return
        buffered = sum(map(len, self._buffer)) if self._buffer else 0
        full = len(self.waiting) >= MAX_IN_FLIGHT or buffered > MAX_BUFFERED
        self._refusing = "too many calls wait for the store" if full else ""

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.heard_at = monotonic()
        self._flush()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        waiting = self.waiting
        series = self._series
        counts = series.counts
        self.heard_at = now = monotonic()
        done = 0
        total = 0.0
        # The bounds of the bucket that the last one fell into: its neighbours mostly do as well.
        place, low, high = 0, 0.0, 0.0
        try:
            while (reply := reader.gets()) is not _NOTHING:
                future, at, script = waiting.popleft()
                if future.done():
                    continue
                if reply.__class__ is Refusal:
                    error = ReplyError(str(reply))
                    if script is not None and error.code == "NOSCRIPT":
                        self._send_whole(future, at, script)
                    else:
                        self._refuse(future, error)
                    continue
                future.set_result(reply)
                seconds = now - at
                if not low < seconds <= high:
                    place = bisect_left(STORE_BOUNDS, seconds)
                    low = STORE_BOUNDS[place - 1] if place else -inf
                    high = STORE_BOUNDS[place] if place < len(STORE_BOUNDS) else inf
                counts[place] += 1
                total += seconds
                done += 1
        except (ProtocolError, IndexError) as broken:
            # Bytes that are no reply, or a reply to nothing: whose replies they are is not known.
            self.close(f"the store broke the protocol ({type(broken).__name__})")
        if self._refusing:
            self._weigh()
        if done:
            self.failures = 0
            series.ok += done
            series.seconds += total

    def _send_whole(self, future: asyncio.Future[Any], at: float, script: Run) -> None:
        """Send a script that did not run, with its text. The time limit is the same one."""
        if self._refusing:
            future.set_exception(failure(self._refusing, sent=False))
            return
        self.failures = 0
        it, keys, args = script
        self._append(encode((b"EVAL", it.source, len(keys), *keys, *args)), future, at, None)

    def _refuse(self, future: asyncio.Future[Any], error: ReplyError) -> None:
        future.set_exception(error)
        if error.code not in _ROUTINE:
            self._series.refused += 1
        if error.unavailable:
            self.failures += 1
            self._on_failure(error)
        else:
            self.failures = 0

    # Time.

    def _arm(self, due: float) -> None:
        """Look at `due`, unless a look is planned before that."""
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Give up what has waited too long, and come back for what will have."""
        self._timer = None
        self._due = inf
        now = monotonic()
        late = now - self.timeout
        for future, at, _ in self.waiting:
            if future.done():
                continue
            # A microsecond of grace: the timer's own rounding must not make it turn idly.
            if at > late + 1e-6:
                self._arm(at + self.timeout)
                break
            self._series.timed_out += 1
            error = failure("the store did not answer in time")
            future.set_exception(error)
            self.failures += 1
            self._on_failure(error)
        if self.waiting and self._transport is not None and not self._is_silent(now):
            return
        if self.waiting and self._transport is not None:
            self.close("the store stopped answering")

    def _is_silent(self, now: float) -> bool:
        since = max(self.heard_at, self.waiting[0][1])
        if now - since >= self._silence:
            return True
        # Also if nobody waits any more: the replies that are owed tell whether it still lives.
        self._arm(since + self._silence)
        return False

    # The end.

    def connection_lost(self, exc: Exception | None) -> None:
        self.close("the connection to the store was lost")

    def close(self, why: str) -> None:
        """End the connection at once; everything that waits fails. Safe to call twice."""
        if self.lost:
            return
        self.lost = self._refusing = why
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        unsent = len(self._buffer)
        sent = len(self.waiting) - unsent
        for position, (future, _, _) in enumerate(self.waiting):
            if not future.done():
                self._series.lost += 1
                future.set_exception(failure(why, sent=position < sent))
        self.waiting.clear()
        self._buffer.clear()
        self._on_lost(self, why)
