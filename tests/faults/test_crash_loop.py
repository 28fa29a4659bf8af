"""The crash loop, short: `python -m tests.faults.crash` is the long one."""

from __future__ import annotations

import pytest

from tests.faults.crash.loop import Plan, run


@pytest.mark.parametrize("embedded", [False, True], ids=["shared", "embedded"])
async def test_nothing_is_lost(embedded: bool) -> None:
    """Processes are killed under load: no accepted event is lost, doubled under another key, or out
    of its order, and nothing is left in the queues.
    """
    plan = Plan(seed=1, rounds=1, kills=2, load=1.0, senders=6, embedded=embedded)
    [only] = await run(plan)
    assert not only.faults, "\n".join([f"killed: {only.killed}", *only.faults])
    assert only.accepted > 0
