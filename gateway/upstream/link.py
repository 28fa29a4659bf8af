"""The byte level of a connection: transport, back-pressure both ways, waiting input, stalls.

Nothing here knows HTTP or exchanges; `connection.UpstreamConnection` builds on it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

from gateway.batch import WriteBatch
from gateway.upstream.stall import StallWatch, TimeLimit

_WRITE_HIGH: Final = 256 * 1024


class Link:
    """A transport and what is known about it. `peer` is the address, "" for a unix socket.

    `body_idle` is how long it may stand still while it is watched, in seconds. `batch` is where
    small messages wait for the end of the loop's turn.
    """

    __slots__ = ("_batch", "_body_idle", "_cut", "_limit", "_loop", "_poll", "_reading_paused",
                 "_transport", "_unsent", "_unwritten", "_watch", "_write_waiter",
                 "_writing_paused", "peer")  # fmt: skip

    _loop: asyncio.AbstractEventLoop

    def __init__(self, body_idle: float, batch: WriteBatch) -> None:
        self._body_idle = body_idle
        self._batch = batch
        # What the batch will write.
        self._unwritten = b""
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._cut = False
        self._watch: StallWatch | None = None
        self._limit: TimeLimit | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._write_waiter: asyncio.Future[None] | None = None
        self._unsent = 0
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By duck type: uvloop's transports don't derive from asyncio's.
        made = cast("asyncio.Transport", transport)
        if self._cut:
            # The connect was cancelled in the moment in which it succeeded.
            made.abort()
            return
        self._transport = made
        self._loop = asyncio.get_running_loop()
        made.set_write_buffer_limits(high=_WRITE_HIGH)
        peer = made.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        socket = made.get_extra_info("socket")
        if socket is not None:
            self._poll = select.poll()
            self._poll.register(socket.fileno(), select.POLLIN)

    def has_input(self) -> bool:
        """Whether bytes, an end or an error wait on the socket that the loop has not read yet."""
        return self._poll is not None and bool(self._poll.poll(0))

    def _disconnect(self, abort: bool) -> None:
        """Close the transport; with `abort`, drop what was not sent yet."""
        self._cut = True
        self._unwritten = b""
        if self._watch is not None:
            self._watch.stop()
        if self._limit is not None:
            self._limit.stop()
        self.resume_writing()
        if self._transport is not None:
            if abort:
                self._transport.abort()
            else:
                self._transport.close()

    # Writing

    def _write_soon(self, message: bytes) -> None:
        """Write it at the end of this turn, unless something is read here before that."""
        self._unwritten = message
        self._batch.add(self)

    def flush(self, polled: bool) -> None:
        """Write what waits. If there is input, which nobody asked for, it is left to be read."""
        message, transport = self._unwritten, self._transport
        if not message or transport is None or transport.is_closing():
            return
        if polled or not self.has_input():
            self._unwritten = b""
            transport.write(message)

    async def send(self, *pieces: bytes) -> None:
        """Write, and wait while the other side is slow to read. Once cut, it does nothing."""
        if self.has_input():
            # Perhaps an early refusal, and the end behind it. Writing into that would be an error
            # that hides the answer, so let the loop read first.
            await asyncio.sleep(0)
        transport = self._transport
        if self._cut or transport is None or transport.is_closing():
            return
        for piece in pieces:
            transport.write(piece)
        if self._writing_paused:
            self._write_waiter = self._loop.create_future()
            try:
                await self._write_waiter
            finally:
                self._write_waiter = None

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
        self._start_watch()

    def resume_writing(self) -> None:
        self._writing_paused = False
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _write_moved(self) -> bool:
        """Whether some of what waited to be written has left since this was last asked."""
        if self._transport is None or self._transport.is_closing():
            return False
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._unsent < before

    # Reading

    def _pause_reading(self) -> None:
        if self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._moved()
            # uvloop raises on a transport that has failed and whose connection_lost is under way.
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # Standing still

    def _bound(self, by: float, now: Callable[[], float]) -> None:
        """Have `_late` called at `by` on this clock, in place of an earlier wish; inf for never."""
        if self._limit is None:
            self._limit = TimeLimit(self._loop, now, self._late)
        self._limit.set(by)

    def _late(self) -> None:
        """The moment that `_bound` named has come."""
        raise NotImplementedError

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = StallWatch(self._loop, self._body_idle, self._stalled)
        self._watch.start()

    def _moved(self) -> None:
        if self._watch is not None:
            self._watch.moved_at = self._loop.time()

    def _stalled(self) -> bool:
        """Nothing moved for `body_idle` seconds. True to go on watching."""
        raise NotImplementedError
