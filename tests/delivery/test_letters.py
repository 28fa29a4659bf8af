"""Dead letters in the store: found page by page, replayed and discarded on each kind of server."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.delivery import search
from gateway.delivery.asked import Unusable
from gateway.delivery.discard import discard
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import Record, decode_record
from gateway.delivery.journal import Journal
from gateway.delivery.letter_operations import list_letters
from gateway.delivery.letters import Letter, Wanted, moment, read_letter, sieve
from gateway.delivery.outcome import RetryRule
from gateway.delivery.plan import LanePlan
from gateway.delivery.queue import Queue, letter
from gateway.delivery.queued import Entry, Lane
from gateway.delivery.replay import Order, Replay
from gateway.delivery.search import letters_of
from gateway.errors import StoreError
from gateway.observability.metrics import Metrics
from tests.delivery.queues import LANE, accept, on_a_queue

NOW = 1_800_000_000.0


def make_dispatcher(queue: Queue) -> Dispatcher:
    """One that delivers nothing, with the lane of all these tests and another one."""
    clock = SystemClock()
    made = Dispatcher(
        queue.store, Journal(60.0), clock, random.Random(1), Metrics(clock), deliver=False
    )
    for target in (LANE.target, "other"):
        nowhere: Any = None
        made.offer(LanePlan(Lane(LANE.route, target), nowhere, RetryRule(1, 1.0), 1))
    return made


def dead(number: int, target: str = "api") -> tuple[str, Entry]:
    """The id and the entry of a dead letter."""
    event = f"00000000-0000-7000-9000-{number:012x}"
    record = Record(attempts=3, begun_at=1.0, reason="exhausted", status=503)
    member = letter(event, target, "exhausted", "", 503)
    return event, Entry(target, "x", record, member=member)


async def keep(queue: Queue, number: int) -> Letter:
    """A dead letter that is in the store."""
    event, entry = dead(number)
    await accept(queue, entry, id=event)
    (found,) = await letters_of(queue, event)
    return found


async def every(dispatcher: Dispatcher, **params: Any) -> list[str]:
    """The events of all pages."""
    found, cursor = [], ""
    while True:
        page = await list_letters(dispatcher, {**params, "cursor": cursor})
        found += [each.event for each in page.letters]
        cursor = page.cursor
        if not cursor:
            return found


@on_a_queue
async def test_all_pages_together(queue: Queue) -> None:
    """Hold what is meant, once and in order, however many died in one millisecond."""
    draw = random.Random(3)
    rows = []
    for number in range(400):
        reason = draw.choice(["permanent", "expired"])
        at = draw.choice([1000, 1001, 1002, 2000 + number])
        rows.append((at, letter(f"{number}", draw.choice("ab"), reason, "", 0).encode()))
    rows.sort()
    parts = [part for row in rows for part in row]
    for route, pieces in (("one", parts[:400]), ("two", parts[400:])):
        await queue.store.call("ZADD", queue.key("dead", route), *pieces)
        await queue.store.call("SADD", queue.key("routes"), route)
    dispatcher = make_dispatcher(queue)
    names = [member for _, member in rows]

    async def check(wanted: dict[str, Any]) -> None:
        chosen = sieve(Wanted(target=wanted.get("target", ""), reason=wanted.get("reason", "")))
        meant = [
            names[place].split(b" ")[0].decode()
            for place in (range(400) if chosen is None else chosen(names))
            if wanted.get("since", 0) * 1000 <= rows[place][0] < wanted.get("until", 9) * 1000
            and (wanted.get("route") != "two" or place >= 200)
        ]
        for limit in (13, 1000):
            assert await every(dispatcher, limit=limit, **wanted) == meant, wanted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_AT_ONCE", 7)
        patch.setattr(search, "_SCAN", 40)
        await check({})
        await check({"reason": "expired"})
        await check({"target": "a", "reason": "permanent"})
        await check({"since": 1.001, "until": 1.002})
        await check({"route": "two", "target": "b"})


@on_a_queue
async def test_a_replay_step(queue: Queue) -> None:
    """Everything of it is written at once; what is not as it was read is read again."""
    found = await keep(queue, 1)
    dispatcher = make_dispatcher(queue)
    done = await Replay(dispatcher, Order(by="me")).send([found, found])
    assert (done.replayed, dict(done.skipped)) == (1, {"gone": 1})
    fields = await queue.fields(found.event)
    record = decode_record(fields[b"t:api"])
    assert (record.epoch, record.attempts, record.reason) == (2, 0, "")
    assert record.begun_at > 1.0
    assert (fields[b"s:api"], fields[b"f:api"], fields[b"open"], fields[b"dead"]) == (
        b"q", b"1", b"1", b"0",
    )  # fmt: skip
    (taken,) = (await queue.take(LANE, "c", 5)).events
    assert (taken.id, taken.fence) == (found.event, 2)
    await queue.settle(
        LANE, taken, "dead", record, member=letter(found.event, "api", "expired", "", 0)
    )
    (again,) = await letters_of(queue, found.event)
    assert again.reason == "expired"
    # The first letter, seen before it was replayed, is another one than that.
    done = await Replay(dispatcher, Order()).send([found])
    assert dict(done.skipped) == {"gone": 1}
    assert await queue.store.call("ZCARD", queue.key("dead", "route")) == 1


@on_a_queue
async def test_letters_of_a_full_store(queue: Queue) -> None:
    """Can be thrown away, and even replayed; a corrected body is refused and leaves no trace."""
    letters = [await keep(queue, number) for number in range(1, 4)]
    dispatcher = make_dispatcher(queue)
    before = await queue.fields(letters[0].event)
    await queue.store.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(StoreError):
            await Replay(dispatcher, Order(body=b"x" * 100)).send(letters[:1])
        assert await discard(dispatcher, letters[1:2], "purged", "me") == 1
        assert (await Replay(dispatcher, Order()).send(letters[2:])).replayed == 1
    finally:
        await queue.store.call("CONFIG", "SET", "maxmemory", 0)
    assert await queue.fields(letters[0].event) == before
    assert await queue.fields(letters[1].event) == {}


@on_a_queue
async def test_moving_a_letter_takes_the_other_ones_along(queue: Queue) -> None:
    """To a target that gave the event up as well: both letters are gone, and one way is open."""
    event, entry = dead(9)
    _, other = dead(9, "other")
    await accept(queue, entry, other, id=event)
    first, second = sorted(await letters_of(queue, event), key=lambda each: each.target)
    dispatcher = make_dispatcher(queue)
    done = await Replay(dispatcher, Order(to="other")).send([first, second])
    assert (done.replayed, dict(done.skipped)) == (1, {"gone": 1})
    fields = await queue.fields(event)
    assert (fields[b"s:api"], fields[b"s:other"]) == (b"n", b"q")
    assert (fields[b"open"], fields[b"dead"]) == (b"1", b"0")
    assert await queue.store.call("ZCARD", queue.key("dead", "route")) == 0


def test_which_members_are_meant() -> None:
    """Whole words in their places, whole classes of a status."""
    members = [
        b"e1 api permanent - 422", b"permanent api expired - 0", b"e3 api exhausted x 503",
        b"e4 x exhausted - 42", b"odd",
    ]  # fmt: skip

    def meant(**given: Any) -> list[int]:
        chosen = sieve(Wanted(**given))
        return list(range(5)) if chosen is None else list(chosen(members))

    assert meant() == [0, 1, 2, 3, 4]
    assert meant(reason="permanent") == [0]
    assert meant(code="x") == [2]
    assert meant(target="x") == [3]
    assert meant(status="4xx") == [0]
    assert meant(status=0) == [1]
    assert meant(status="5xx", reason="exhausted") == [2]
    assert meant(status="42") == [3]
    assert read_letter("r", b"odd", 1) is None
    assert read_letter("r", b"e a b - x", 1) is None


def test_moments() -> None:
    """Ages, times with a zone, and numbers; anything else is refused."""
    assert moment("2h", NOW) == NOW - 7200
    assert moment("1970-01-02T00:00:00Z", NOW) == 86400
    assert moment(12.5, NOW) == moment("12.5", NOW) == 12.5
    for wrong in ("", "soon", "inf", "nan", "2026-01-01T00:00:00"):
        with pytest.raises(Unusable):
            moment(wrong, NOW)
