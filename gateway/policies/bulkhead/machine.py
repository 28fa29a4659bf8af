"""Permits and the queue for them. Pure: waiters are opaque, nothing here waits or wakes.

A permit belongs to exactly one of: a request that runs, a waiter it was granted to and that has not
noticed yet. Waiters stand in one line for each route, and the lines take turns, so that a route
that floods the queue delays itself.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

W = TypeVar("W")


class FairQueue(Generic[W]):
    """First in, first out for each key, and the keys in turn."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[W]] = OrderedDict()

    def push(self, key: str, waiter: W) -> None:
        """Stand at the end of the line of `key`."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
        line.append(waiter)

    def pop(self) -> W:
        """Take the first of the line whose turn it is. IndexError if nobody waits."""
        if not self._lines:
            raise IndexError("nobody waits")
        key, line = next(iter(self._lines.items()))
        waiter = line.popleft()
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        return waiter

    def remove(self, key: str, waiter: W) -> bool:
        """Leave the line; False if it stands there no more."""
        line = self._lines.get(key)
        if line is None or waiter not in line:
            return False
        line.remove(waiter)
        if not line:
            del self._lines[key]
        return True


class Bulkhead(Generic[W]):
    """At most `limit` permits out, at most `max_queued` waiters behind them.

    `limit` may change at any time; permits that are out beyond it come back as their holders end.
    `active` and `queued` may be read freely; where `queued` is 0 and `active` below `limit`, adding
    one to `active` is what `enter` does.
    """

    __slots__ = ("_queue", "active", "limit", "max_queued", "queued")

    def __init__(self, limit: int, max_queued: int) -> None:
        self.limit = limit
        self.max_queued = max_queued
        self.active = 0
        self.queued = 0
        self._queue: FairQueue[W] = FairQueue()

    def enter(self) -> bool:
        """Take a permit if one is free and nobody waits for it already."""
        if self.active < self.limit and not self.queued:
            self.active += 1
            return True
        return False

    def wait(self, key: str, waiter: W) -> bool:
        """Queue up; False if the queue is full."""
        if self.queued >= self.max_queued:
            return False
        self.queued += 1
        self._queue.push(key, waiter)
        return True

    def give_up(self, key: str, waiter: W) -> bool:
        """Leave the queue. False if a permit was granted already, which must then be given back."""
        if not self._queue.remove(key, waiter):
            return False
        self.queued -= 1
        return True

    def leave(self) -> list[W]:
        """Give a permit back. Those whose turn it is now hold one each, and are to be told so."""
        self.active -= 1
        granted: list[W] = []
        while self.queued and self.active < self.limit:
            self.active += 1
            self.queued -= 1
            granted.append(self._queue.pop())
        return granted

    def __repr__(self) -> str:
        """As tests and logs want it: `3 of 100 active, 0 of 50 queued`."""
        queued = f"{self.queued} of {self.max_queued} queued"
        return f"<Bulkhead {self.active} of {self.limit} active, {queued}>"
