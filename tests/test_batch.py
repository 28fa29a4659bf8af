"""Writes that wait for the end of a turn of the loop."""

from __future__ import annotations

import asyncio

from gateway.batch import WriteBatch


class Note:
    """A sender that notes when it was flushed, and whether the loop had looked for input."""

    def __init__(self, name: int, into: list[tuple[int, bool]]) -> None:
        self._name = name
        self._into = into

    def flush(self, polled: bool) -> None:
        """Note it."""
        self._into.append((self._name, polled))


async def test_senders_are_flushed_once_at_the_end_of_the_turn_in_their_order() -> None:
    """What is added in one turn waits for the next one, after the loop has looked for input."""
    flushed: list[tuple[int, bool]] = []
    batch = WriteBatch()
    for name in range(3):
        batch.add(Note(name, flushed))
    assert flushed == []
    await asyncio.sleep(0)
    assert flushed == [(0, True), (1, True), (2, True)]
    await asyncio.sleep(0)
    batch.add(Note(3, flushed))
    await asyncio.sleep(0)
    assert flushed[3:] == [(3, True)]


async def test_many_do_not_wait_for_a_long_turn() -> None:
    """64 are flushed at once, without a look for input; those behind them as usual."""
    flushed: list[tuple[int, bool]] = []
    batch = WriteBatch()
    for name in range(130):
        batch.add(Note(name, flushed))
    assert flushed == [(name, False) for name in range(128)]
    await asyncio.sleep(0)
    assert flushed[128:] == [(128, True), (129, True)]


async def test_a_sender_that_is_added_by_another_one_waits_for_its_own_turn() -> None:
    """Flushing may lead to more to be flushed."""
    flushed: list[tuple[int, bool]] = []
    batch = WriteBatch()

    class Chain(Note):
        def flush(self, polled: bool) -> None:
            super().flush(polled)
            batch.add(Note(2, flushed))

    batch.add(Chain(1, flushed))
    await asyncio.sleep(0)
    assert flushed == [(1, True)]
    await asyncio.sleep(0)
    assert flushed == [(1, True), (2, True)]
