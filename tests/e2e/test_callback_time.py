"""The callback has its time from when there is something to tell."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import eventually
from tests.support.letters import REFUSES, house


async def test_it_is_told_of_events_that_took_all_their_time(tmp_path: Path) -> None:
    """An event that has expired is told of, and so is a replay that ends long after."""
    delivery = "attempts: 9\n      schedule: [100ms]\n      max_total: 250ms\n"
    delivery += '      callback: {url: "UPSTREAM/told"}'
    async with house(tmp_path, delivery) as here:
        here.shop.statuses = {"/one": "503 Service Unavailable"}
        event = await here.post({"n": 1})
        await here.settled(dead=1, delivered=2)
        assert here.shop.keys("/told") == [f'"{event}.callback"']
        assert [each["state"] for each in here.shop.bodies("/told")] == ["failed"]

        here.shop.statuses = {}
        await here.ask("letters.replay", event=event)
        await eventually(lambda: len(here.shop.keys("/told")) == 2)
        assert here.shop.keys("/told")[1] == f'"{event}.2.callback"'
        assert here.shop.bodies("/told")[1]["state"] == "delivered"
        await here.settled(delivered=4)
        key = f"lockgate:{{delivery}}:event:{event}"
        assert await here.store_call("TTL", key) > 0


async def test_a_callback_that_failed_is_a_letter(tmp_path: Path) -> None:
    """It can be replayed by itself, and goes when the event is replayed, which is told of anew."""
    delivery = 'attempts: 1\n      callback: {url: "http://127.0.0.1:1/told"}'
    async with house(tmp_path, delivery) as here:
        here.shop.statuses = {"/one": REFUSES}
        event = await here.post({"n": 1})
        await here.settled(dead=2, delivered=1)
        assert {each["target"] for each in await here.letters()} == {"one", "callback"}
        done = await here.ask("letters.replay", event=event, target="callback")
        assert done["replayed"] == 1
        await here.settled(dead=3)
        moved = await here.ask("letters.replay", event=event, target="callback", to="one")
        assert moved["skipped"] == {"no_target": 1}
        here.shop.statuses = {}
        await here.ask("letters.replay", event=event, target="one")
        await here.settled(dead=4)
        (letter,) = await here.letters()
        assert (letter["target"], letter["epoch"]) == ("callback", 3)
        await here.ask("letters.purge", event=event)
        assert await here.store_call("KEYS", "*:event:*") == []
