"""Mends the queues: a chore for what no step of an event's way would ever come by again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.store.script import Script

if TYPE_CHECKING:
    from gateway.delivery.dispatcher import Dispatcher

logger = logging.getLogger("gateway.delivery")

EVERY_S: Final = 60.0
_TIDY: Final = Script.load("delivery_tidy")
_EVENTS: Final = 200
"""How many of the oldest events of a lane are looked at in one turn."""
_SILENT_S: Final = 3600.0


async def tidy(dispatcher: Dispatcher) -> None:
    """One turn over all lanes. Safe in several processes at once. Raises StoreError."""
    queue = dispatcher.queue
    for lane in dispatcher.lanes():
        lost, turned, left = await queue.store.run(
            _TIDY,
            (queue.base,),
            (lane.route, lane.target, _EVENTS, dispatcher.consumer, round(_SILENT_S * 1000)),
        )
        if lost or turned:
            logger.warning(
                "a queue was mended",
                extra={"lane": lane.name, "lost": lost, "turned": turned, "consumers": left},
            )
