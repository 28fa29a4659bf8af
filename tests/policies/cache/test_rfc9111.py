"""The table of `rows.py`: what is stored, for how long, and for whom."""

from __future__ import annotations

import pytest

from tests.policies.cache.desk import Desk, reply
from tests.policies.cache.rows import ROWS, Row

LATER = reply("Cache-Control: no-store", body=b"two")


def test_the_table_is_long_enough() -> None:
    """The rows cover the RFC, and no two of them have one name."""
    assert len(ROWS) >= 120
    names = [row.id for row in ROWS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_row(row: Row) -> None:
    """The second request gets what the section says; a body that streams changes nothing."""
    for streams in (False, True):
        desk = Desk(**row.config)
        said = reply(*row.said, status=row.status, streams=streams)
        first = await desk.ask(row.method, "/a", *row.first, reply=said)
        assert first.how == "fetched"
        desk.clock.advance(row.after)
        second = await desk.ask("GET", "/a", *row.then, reply=LATER)

        assert second.how == row.how, second.cache_status
        assert second.body == (b"two" if row.how != "stored" else first.body)
        await desk.policy.aclose()
