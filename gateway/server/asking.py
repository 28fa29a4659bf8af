"""Questions to worker processes: to one of them, to each, and what comes of one that is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from gateway.admin.control import ControlUnavailable
from gateway.server.channel import CallFailed, ChannelClosed
from gateway.server.member import Member

logger = logging.getLogger("gateway.workers")

# Seconds that a worker has to answer.
ASK_S: Final = 2.0
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

    async def any(self, method: str, payload: Any, kind: type[T]) -> T:
        """The answer of the first that has one. Raises ControlUnavailable if none has."""
        for member in self._serving():
            answer = await self.ask(member, method, payload, kind)
            if answer is not None:
                return answer
        raise ControlUnavailable("no worker can answer now")

    async def ask(self, member: Member, method: str, payload: Any, kind: type[T]) -> T | None:
        """The member's answer, or None if it is lost or says nothing in time."""
        try:
            async with asyncio.timeout(ASK_S):
                return await member.channel.call(method, payload, result=kind)
        except (*LOST, msgspec.DecodeError) as error:
            logger.warning("worker %d does not answer %s: %r", member.pid, method, error)
            return None

    async def tell(self, members: Sequence[Member], method: str) -> None:
        """Have each of them do something that needs no answer."""
        await asyncio.gather(*(self.ask(each, method, None, type(None)) for each in members))
