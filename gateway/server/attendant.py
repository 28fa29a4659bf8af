"""One task for all the requests of a connection, for applications that offer `serve`.

Making a task for each request costs more than answering many a request: the task, its context, its
place in the loop's books. A connection's requests come one after another, so one task waits for the
next of them. An application that raises, or leaves a cancellation behind, ends the task, and the
next request gets a new one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.server.cycle import Cycle
    from gateway.server.factory import HttpFactory


class Attendant:
    """Runs `serve` on the cycles of one connection, one at a time."""

    __slots__ = ("_following", "_idle", "_shared", "_task")

    def __init__(self, shared: HttpFactory) -> None:
        self._shared = shared
        # What an idle task waits on; a cycle that came while the one before it was being left.
        self._idle: asyncio.Future[Cycle | None] | None = None
        self._following: Cycle | None = None
        self._task: asyncio.Task[None] | None = None

    def serve(self, cycle: Cycle) -> None:
        """Have the cycle served at the loop's next turn, or when the one before it is left."""
        idle = self._idle
        if idle is not None:
            self._idle = None
            idle.set_result(cycle)
        elif self._task is not None:
            self._following = cycle
            return
        else:
            self._task = self._shared.loop.create_task(self._work(cycle))
        cycle.task = self._task
        self._shared.state.tasks.add(self._task)  # type: ignore[arg-type]

    def close(self) -> None:
        """The connection is gone: no cycle will come."""
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    async def _work(self, cycle: Cycle) -> None:
        serve = self._shared.serve
        assert serve is not None
        try:
            while True:
                try:
                    await serve(cycle)
                finally:
                    cycle.end()
                if cycle.disconnected or cycle.failure is not None:
                    return
                if self._following is not None:
                    cycle, self._following = self._following, None
                    cycle.task = self._task
                    self._shared.state.tasks.add(self._task)  # type: ignore[arg-type]
                    continue
                self._idle = idle = self._shared.loop.create_future()
                succeeding = await idle
                if succeeding is None:
                    return
                cycle = succeeding
        finally:
            self._idle = self._task = None
            following, self._following = self._following, None
            if following is not None:
                self.serve(following)
