"""Questions to worker processes: to one of them, to each, and what comes of one that is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from gateway.admin.control import ControlUnavailable, FlagOrder, FlagOutcome
from gateway.server.channel import CallFailed, ChannelClosed
from gateway.server.member import Member
from gateway.server.orders import FlagCall

logger = logging.getLogger("gateway.workers")

# Seconds that a worker has to answer.
ASK_S: Final = 2.0
# And for what it has to do in the store, several calls one after another.
CALL_S: Final = 15.0
# What a question raises whose worker is gone, failed, or too busy.
LOST: Final = (ChannelClosed, CallFailed, TimeoutError, OSError)

T = TypeVar("T")


class Asking:
    """Asks the members that `serving` gives at the moment of the question."""

    def __init__(self, serving: Callable[[], list[Member]]) -> None:
        self._serving = serving

    async def views(self, method: str) -> list[dict[str, Any]]:
        """What each member says, one mapping after the other; `worker` tells whose it is."""
        members = self._serving()
        answers = await asyncio.gather(
            *(self.ask(each, method, None, list[dict[str, Any]]) for each in members)
        )
        return [
            {**view, "worker": member.pid}
            for member, answer in zip(members, answers, strict=True)
            for view in answer or ()
        ]

    async def any(self, method: str, payload: Any, kind: type[T], patience: float = ASK_S) -> T:
        """The answer of the first that has one. Raises ControlUnavailable if none has."""
        for member in self._serving():
            answer = await self.ask(member, method, payload, kind, patience)
            if answer is not None:
                return answer
        raise ControlUnavailable("no worker can answer now")

    async def ask(
        self, member: Member, method: str, payload: Any, kind: type[T], patience: float = ASK_S
    ) -> T | None:
        """The member's answer, or None if it is lost or says nothing in time."""
        try:
            async with asyncio.timeout(patience):
                return await member.channel.call(method, payload, result=kind)
        except (*LOST, msgspec.DecodeError) as error:
            logger.warning("worker %d does not answer %s: %r", member.pid, method, error)
            return None

    async def tell(self, members: Sequence[Member], method: str) -> None:
        """Have each of them do something that needs no answer."""
        await asyncio.gather(*(self.ask(each, method, None, type(None)) for each in members))

    async def order_flag(
        self, order: FlagOrder, given: dict[str, FlagOrder], *, tell: bool
    ) -> FlagOutcome:
        """Have every member follow; the first to be asked tells the store.

        `given` are the orders for members that start later. Raises ControlUnavailable if one may
        not have followed.
        """
        outcome: FlagOutcome | None = None
        for member in self._serving():
            answer = await self.ask(member, "order_flag", FlagCall(order, tell), FlagOutcome)
            if answer is None and member.alive:
                raise ControlUnavailable(f"worker {member.pid} may not have followed")
            if answer is not None and answer.state != "done":
                return answer
            if answer is not None:
                outcome, tell = outcome or answer, False
        if outcome is None:
            raise ControlUnavailable("no worker can answer now")
        given[order.name] = order
        return outcome
