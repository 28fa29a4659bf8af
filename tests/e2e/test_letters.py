"""Dead letters: found, shown, replayed and purged, over a real gateway and a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.gateway import eventually
from tests.support.letters import REFUSES, House, house


async def two_letters(here: House) -> tuple[str, str]:
    """The first event is refused by `one`, the second by `two`."""
    here.shop.statuses = {"/one": REFUSES}
    first = await here.post({"order": 1, "total": 10}, **{"X-Correlation-ID": "c-1"})
    await here.settled(dead=1, delivered=1)
    here.shop.statuses = {"/two": "503 Service Unavailable"}
    second = await here.post({"order": 2, "total": 500})
    await here.settled(dead=2, delivered=2)
    here.shop.statuses = {}
    return first, second


async def test_every_filter(tmp_path: Path) -> None:
    """Each alone finds the one it is about, and nothing that is not there."""
    async with house(tmp_path) as here:
        first, second = await two_letters(here)
        whole = await here.letters()
        assert [each["event"] for each in whole] == [first, second]
        assert whole[0] | {"at": 0} == {
            "event": first, "route": "hooks", "target": "one", "reason": "permanent", "code": "",
            "status": 422, "at": 0, "correlation_id": "c-1", "attempts": 1, "epoch": 1,
            "detail": "",
        }  # fmt: skip
        at = whole[1]["at"]
        for given in (
            {"target": "two"}, {"reason": "exhausted"}, {"status": 503}, {"status": "5xx"},
            {"since": at}, {"event": second}, {"where": "body.total > 100"},
            {"where": "letter.status == 503 && request.method == 'POST'"},
            {"route": "hooks", "where": "letter.target == 'two' && letter.reason == 'exhausted'"},
        ):  # fmt: skip
            assert [each["event"] for each in await here.letters(**given)] == [second], given
        for given in ({"correlation_id": "c-1"}, {"until": at}, {"reason": "permanent"}):
            assert [each["event"] for each in await here.letters(**given)] == [first], given
        for given in (
            {"route": "other"}, {"code": "upstream_timeout"}, {"since": "2999-01-01T00:00:00Z"},
            {"until": "1h"}, {"event": "none"}, {"correlation_id": "none"}, {"status": "50"},
            {"event": second, "status": "4xx"}, {"reason": "perm"},
        ):  # fmt: skip
            assert await here.letters(**given) == [], given
        failed = await here.ask("letters.list", where="body.missing == 1")
        assert (failed["matched"], failed["failed"]) == (0, 2)


async def test_filters_that_mean_nothing(tmp_path: Path) -> None:
    """Are refused, with what is wrong with them."""
    async with house(tmp_path) as here:
        for given in (
            {"status": "abc"}, {"since": "yesterday"}, {"where": "body."}, {"where": "nobody.x"},
            {"cursor": "!"}, {"cursor": "gA"}, {"limit": 0.5}, {"limit": 10_000}, {"colour": "red"},
            {"event": "a b"}, {"since": "nan"},
        ):  # fmt: skip
            found = await here.answer("letters.list", **given)
            assert found.state == "invalid", given
            assert found.detail


async def test_pages(tmp_path: Path) -> None:
    """Of one letter each, forwards; those of one millisecond are told apart; a count goes on."""
    async with house(tmp_path) as here:
        first, second = await two_letters(here)
        await here.store_call(
            "ZADD", "lockgate:{delivery}:dead:hooks",
            *(part for name in "abc" for part in (7, f"{name} one expired - 0")),
        )  # fmt: skip
        seen, cursor = [], ""
        while True:
            page = await here.ask("letters.list", limit=1, cursor=cursor)
            seen += [each["event"] for each in page["letters"]]
            cursor = page["cursor"]
            if not cursor:
                break
        assert seen == ["a", "b", "c", first, second]
        counted = await here.ask("letters.list", limit=1, count=True)
        assert (len(counted["letters"]), counted["matched"], counted["cursor"]) == (1, 5, "")


async def test_replay(tmp_path: Path) -> None:
    """A new epoch with a key of its own, counted, written down, and once no letter any more."""
    async with house(tmp_path) as here:
        first, _ = await two_letters(here)
        refused = await here.answer("letters.replay")
        assert refused.state == "invalid"
        done = await here.ask("letters.replay", target="one")
        assert (done["replayed"], done["skipped"], done["cursor"]) == (1, {}, "")
        await here.settled(delivered=3)
        keys = here.shop.keys("/one")
        assert (keys[0], keys[-1]) == (f'"{first}"', f'"{first}.2"')

        status = await here.status(first)
        one = next(each for each in status["targets"] if each["target"] == "one")
        assert (status["state"], one["epoch"], one["attempts"]) == ("delivered", 2, 1)
        assert [each.get("epoch", 1) for each in one["history"]] == [1, 2]
        assert one["replay_of"] == "one.1"
        again = await here.ask("letters.replay", event=first)
        assert (again["replayed"], again["skipped"]) == (0, {})
        assert here.gateway.metric("gateway_delivery_replayed_total", target="one") == 1
        audit = await here.store_call("XRANGE", "lockgate:{delivery}:audit", "-", "+")
        written = [fields[1] for _, fields in audit if b'"kind":"replayed"' in fields[1]]
        assert len(written) == 1
        assert b'"by":"tester"' in written[0]
        assert f'"event":"{first}"'.encode() in written[0]
        key = f"lockgate:{{delivery}}:event:{first}"
        assert await here.store_call("HMGET", key, "open", "dead", "body") == [b"0", b"0", None]


async def test_two_replays_at_once(tmp_path: Path) -> None:
    """Send each letter once, between them."""
    async with house(tmp_path) as here:
        here.shop.statuses = {"/one": REFUSES, "/two": REFUSES}
        await asyncio.gather(*(here.post({"n": n}) for n in range(10)))
        await here.settled(dead=20)
        here.shop.statuses = {}
        both = await asyncio.gather(
            *(here.ask("letters.replay", all=True, limit=1000) for _ in range(2))
        )
        assert sum(each["replayed"] for each in both) == 20
        await here.settled(delivered=20)
        assert len(here.shop.got) == 40
        assert len({*here.shop.keys("/one")}) == 20
        assert await here.letters() == []


async def test_a_replay_does_not_meet_its_own_letters(tmp_path: Path) -> None:
    """What dies again is a letter of the next replay, not of this one."""
    async with house(tmp_path) as here:
        here.shop.statuses = {"/one": REFUSES}
        await asyncio.gather(*(here.post({"n": n}) for n in range(3)))
        await here.settled(dead=3, delivered=3)
        sent, cursor = 0, ""
        while True:
            done = await here.ask("letters.replay", target="one", limit=1, cursor=cursor)
            sent, cursor = sent + done["replayed"], done["cursor"]
            await here.settled(dead=3 + sent)
            if not cursor:
                break
        assert sent == 3
        assert [each["epoch"] for each in await here.letters()] == [2, 2, 2]


async def test_replay_in_order(tmp_path: Path) -> None:
    """A replayed event waits for its turn behind those of its order that are under way."""
    async with house(tmp_path, "attempts: 1\n      ordered_by: body.order") as here:
        here.shop.statuses = {"/one": REFUSES}
        first = await here.post({"order": 7, "n": 1})
        await here.settled(dead=1, delivered=1)
        here.shop.statuses = {}
        here.shop.go.clear()
        await here.post({"order": 7, "n": 2})
        await eventually(lambda: len(here.shop.got) == 4)
        await here.ask("letters.replay", event=first)
        status = await here.status(first)
        states = {each["target"]: each["state"] for each in status["targets"]}
        assert states == {"one": "ordered", "two": "delivered"}
        here.shop.go.set()
        await here.settled(delivered=4)
        assert [each["n"] for each in here.shop.bodies("/one")] == [1, 2, 1]
        assert await here.store_call("KEYS", "*:order:*") == []


async def test_a_corrected_payload(tmp_path: Path) -> None:
    """Is sent in place of the first, which stays; only of one event that is a letter."""
    async with house(tmp_path) as here:
        first, _ = await two_letters(here)
        for wrong in ({"all": True, "body": "{}"}, {"event": first, "body_base64": "?"}):
            assert (await here.answer("letters.replay", **wrong)).state == "invalid"
        here.shop.statuses = {"/one": REFUSES}
        await here.ask("letters.replay", event=first, body='{"order": 2}')
        await here.settled(dead=3)
        here.shop.statuses = {}
        assert [each["event"] for each in await here.letters(where="body.order == 2")][-1] == first
        await here.ask("letters.replay", event=first, body='{"order": 3}')
        await here.settled(delivered=3)
        assert [each["order"] for each in here.shop.bodies("/one")] == [1, 2, 2, 3]
        found = await here.ask("letters.show", event=first, version=1)
        assert [(each["version"], each["used_by"]) for each in found["versions"]] == [
            (0, ["two"]), (1, []), (2, ["one"]),
        ]  # fmt: skip
        assert found["body"] == {"version": 1, "size": 12, "whole": True, "text": '{"order": 2}'}
        gone = await here.answer("letters.replay", event=first, body="{}")
        assert gone.state == "missing"


async def test_one_correction_for_two_targets(tmp_path: Path) -> None:
    """Is one version; a later one for one of them is another."""
    async with house(tmp_path) as here:
        here.shop.statuses = {"/one": REFUSES, "/two": REFUSES}
        event = await here.post({"n": 1})
        await here.settled(dead=2)
        await here.ask("letters.replay", event=event, body='{"n": 2}')
        await here.settled(dead=4)
        here.shop.statuses = {}
        await here.ask("letters.replay", event=event, target="two", body='{"n": 3}')
        await here.settled(delivered=1)
        found = await here.ask("letters.show", event=event)
        assert [(each["version"], each["used_by"]) for each in found["versions"]] == [
            (0, []), (1, ["one"]), (2, ["two"]),
        ]  # fmt: skip
        assert [each["n"] for each in here.shop.bodies("/two")] == [1, 2, 3]


async def test_to_another_target(tmp_path: Path) -> None:
    """The letter's own target is done with; one that is under way to the other stays a letter."""
    async with house(tmp_path, "attempts: 2\n      schedule: [1h]") as here:
        here.shop.statuses = {"/one": REFUSES, "/two": "503 Service Unavailable"}
        first = await here.post({"n": 1})
        await here.settled(dead=1, retried=1)
        unknown = await here.answer("letters.replay", route="hooks", all=True, to="three")
        assert unknown.state == "conflict"
        done = await here.ask("letters.replay", all=True, to="three")
        assert done["skipped"] == {"no_target": 1}
        done = await here.ask("letters.replay", event=first, to="two")
        assert (done["replayed"], done["skipped"]) == (0, {"open": 1})

        here.shop.statuses = {"/one": REFUSES}
        second = await here.post({"n": 2})
        await here.settled(dead=2, delivered=1)
        await here.ask("letters.replay", event=second, to="two")
        await here.settled(delivered=2)
        status = await here.status(second)
        assert status["state"] == "delivered"
        assert {each["target"]: each["state"] for each in status["targets"]} == {
            "one": "skipped", "two": "delivered",
        }  # fmt: skip
        assert here.shop.keys("/two")[-1].endswith('.2"')
        assert [each["event"] for each in await here.letters()] == [first]


async def test_purge(tmp_path: Path) -> None:
    """The event goes with its last letter, but not while another target needs it."""
    async with house(tmp_path) as here:
        here.shop.statuses = {"/one": REFUSES}
        here.shop.go.clear()
        event = await here.post({"n": 1})
        await eventually(lambda: len(here.shop.got) == 2)
        assert (await here.ask("letters.purge", event=event))["removed"] == 0
        here.shop.statuses = {"/one": REFUSES}
        here.shop.go.set()
        await here.settled(dead=1, delivered=1)
        refused = await here.answer("letters.purge")
        assert refused.state == "invalid"
        both = await asyncio.gather(
            *(here.ask("letters.purge", status=422) for _ in range(2))
        )  # fmt: skip
        assert sorted(each["removed"] for each in both) == [0, 1]
        assert (await here.answer("letters.show", event=event)).state == "missing"
        assert here.gateway.metric("gateway_delivery_discarded_total", cause="purged") == 1
        assert await here.store_call("KEYS", "*:event:*") == []


async def test_purge_while_another_target_is_under_way(tmp_path: Path) -> None:
    """The other target still gets the event, and its status tells of both."""
    async with house(tmp_path, "attempts: 2\n      schedule: [50ms]") as here:
        here.shop.statuses = {"/one": REFUSES, "/two": "503 Service Unavailable"}
        event = await here.post({"n": 1})
        await here.settled(dead=1, retried=1)
        here.shop.statuses = {}
        await here.ask("letters.purge", event=event, target="one")
        await here.settled(delivered=1)
        assert here.shop.bodies("/two") == [{"n": 1}, {"n": 1}]
        status = await here.status(event)
        states = {each["target"]: each["state"] for each in status["targets"]}
        assert states == {"one": "dead", "two": "delivered"}
        assert await here.letters() == []
        assert (await here.ask("letters.replay", event=event))["replayed"] == 0
        key = f"lockgate:{{delivery}}:event:{event}"
        assert 0 < await here.store_call("TTL", key) <= 3600


QUARANTINE = (
    "validate: {request: {body: {type: object, required: [n], properties: "
    "{n: {type: integer}}}}, on_invalid: quarantine}"
)


async def test_quarantine(tmp_path: Path) -> None:
    """What breaks the contract is kept aside, and sent on once it was corrected, or by force."""
    async with house(tmp_path, "attempts: 1\n      ordered_by: body.n", QUARANTINE) as here:
        sent = await here.client.post("/hooks", json={"n": "x"})
        assert (sent.status_code, sent.json()["state"]) == (202, "quarantined")
        event = sent.json()["event_id"]
        assert [each["reason"] for each in await here.letters(target="one")] == ["invalid"]
        for body in ({}, {"body": '{"n": "y"}'}):
            done = await here.ask("letters.replay", event=event, target="one", **body)
            assert done["skipped"] == {"invalid": 1}
            assert "invalid_body" in done["details"][0]
            assert "is not of type integer" in done["details"][0]
        done = await here.ask("letters.replay", event=event, target="one", body='{"n": 5}')
        assert done["replayed"] == 1
        forced = await here.ask("letters.replay", event=event, target="two", force=True)
        assert forced["replayed"] == 1
        await here.settled(delivered=2)
        assert here.shop.bodies("/one") == [{"n": 5}]
        assert here.shop.bodies("/two") == [{"n": "x"}]
        assert await here.store_call("KEYS", "*:order:*") == []
