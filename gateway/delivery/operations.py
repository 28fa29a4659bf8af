"""What operators may ask of the queues, and have done there: one table, names to functions.

An operation takes the dispatcher of this process and its parameters, which are plain data from
outside and are read with `asked.given`. It gives data that can be written as JSON, and raises
Unusable, Missing or Conflict, or the StoreError of the store. Each is bounded: it looks at a page,
and says where the next one begins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.history import audit, event, trace
from gateway.delivery.letter_operations import (
    list_letters,
    purge_letters,
    replay_letters,
    show_letter,
)
from gateway.delivery.overview import queues
from gateway.delivery.sources import schedules, streams

Operation = Callable[[Dispatcher, Mapping[str, Any]], Awaitable[Any]]

OPERATIONS: Final[Mapping[str, Operation]] = {
    "queues": queues,
    "letters.list": list_letters,
    "letters.show": show_letter,
    "letters.replay": replay_letters,
    "letters.purge": purge_letters,
    "schedules": schedules,
    "streams": streams,
    "trace": trace,
    "audit": audit,
    "event": event,
}
