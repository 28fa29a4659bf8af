"""One exchange that may get further attempts beside its first, and the rules of that race.

The first attempt runs in the exchange's own task, so that an exchange that is not slow costs no
task. A further one that wins cancels that task to interrupt it, and takes the cancellation back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.errors import GatewayError
from gateway.message import Exchange, Handler, Response


def is_good(response: Response) -> bool:
    """Whether an answer ends the race: a failure or "come back later" does not."""
    return response.status < 500 and response.status != 429


class Race:
    """`exchange` is None once its first attempt has ended: from then on nothing more is started.

    `due` is when the next attempt is to begin, on the policy's clock.
    """

    __slots__ = ("due", "exchange", "forward", "task", "twins", "winner")

    def __init__(
        self, exchange: Exchange, forward: Handler, task: asyncio.Task[Any] | None, due: float
    ) -> None:
        self.exchange: Exchange | None = exchange
        self.forward = forward
        self.task = task
        self.due = due
        # A tuple as long as there is none: most races are never run.
        self.twins: tuple[asyncio.Task[Twin], ...] = ()
        # The twin whose good answer interrupted the first attempt.
        self.winner: Twin | None = None

    def win(self, twin: Twin) -> None:
        """A twin has a good answer while the first attempt is still awaited: interrupt that."""
        self.exchange = None
        self.winner = twin
        if self.task is not None:
            self.task.cancel()

    def take_back(self) -> bool:
        """Undo the interruption; True if nobody else wants the task cancelled as well."""
        return self.task is None or self.task.uncancel() == 0

    def drop_twins(self, but: Twin | None = None) -> None:
        """Cancel what still runs, and close what has answered, all but the one that is used."""
        for task in self.twins:
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None and task.result() is not but:
                task.result().close()

    async def first_good(self) -> Twin | None:
        """Wait until a twin has a good answer, or none can have one any more."""
        pending = set(self.twins)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled() or task.exception() is not None:
                    continue
                if task.result().is_good:
                    return task.result()
        return None


class Twin:
    """A further attempt: its own exchange, and how it ended."""

    __slots__ = ("exchange", "outcome")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.outcome: Response | GatewayError | None = None

    @property
    def is_good(self) -> bool:
        """Whether it has an answer that ends the race."""
        return isinstance(self.outcome, Response) and is_good(self.outcome)

    def close(self) -> None:
        """Release its answer, if it has one."""
        if isinstance(self.outcome, Response):
            self.outcome.close()

    def take_over(self, exchange: Exchange) -> Response:
        """Its answer becomes the exchange's."""
        response = self.outcome
        assert isinstance(response, Response)
        own = self.exchange
        exchange.upstream, exchange.target = own.upstream, own.target
        exchange.upstream_status = own.upstream_status
        # The time until its head passed beside the first attempt's; what its body takes adds to it.
        until_head = own.upstream_seconds

        def add_up() -> None:
            exchange.upstream_seconds += own.upstream_seconds - until_head

        if response.body is None:
            response.on_close(add_up)
        return response
