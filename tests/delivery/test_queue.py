"""The scripts of the queues, on both servers: every step whole, in order, by its owner alone."""

from __future__ import annotations

import time

import msgspec
import pytest

from gateway.delivery.event import Record, decode_record
from gateway.delivery.queue import Queue
from gateway.delivery.queued import Acceptance, Entry, First, Lane, Rate
from gateway.delivery.trail import of_transaction
from gateway.store.base import ReplyError
from tests.delivery.queues import (
    LANE,
    accept,
    end,
    hold,
    ids,
    make_head,
    make_id,
    make_queue,
    on_a_queue,
    ordered,
    state,
    take,
)

CALLBACK = Lane("route", "callback")


async def left(queue: Queue, kind: str, name: str = LANE.name) -> int:
    """How many members or entries a key has; 0 for none."""
    key = queue.key(kind, name)
    kinds = {b"zset": "ZCARD", b"stream": "XLEN", b"list": "LLEN", b"none": ""}
    command = kinds[await queue.store.call("TYPE", key)]
    return int(await queue.store.call(command, key)) if command else 0


# Accepting.


@on_a_queue
async def test_an_event_is_kept_whole(queue: Queue) -> None:
    """Head, body, record, counts; it is taken as it was kept, and leaves the queue."""
    first = await accept(queue, body=b"one")
    fields = await queue.fields(first)
    assert (fields[b"body"], fields[b"open"]) == (b"one", b"1")
    assert b"dead" not in fields, "nothing is counted that is not there"
    assert (await queue.depth(LANE))[0] == 1

    (taken,) = (await take(queue)).events
    assert (taken.id, taken.body, taken.fence) == (first, b"one", 1)
    assert decode_record(taken.record).begun_at == 1.0
    assert taken.accepted_at > 1.6e9
    assert await state(queue, first) == "r"
    assert await end(queue, taken)

    fields = await queue.fields(first)
    assert fields[b"s:api"] == b"d"
    assert b"body" not in fields, "a delivered event needs no body"
    assert 0 < await queue.store.call("PTTL", queue.key("event", first)) <= 3_600_000
    for kind in ("open", "ready", "later", "again"):
        assert await left(queue, kind) == 0
    assert await ids(queue) == []


@on_a_queue
async def test_repetitions_are_told_by_name(queue: Queue) -> None:
    """The first one's id comes back, and nothing is kept; other facts under one name are told."""
    name = ("key\nme\nk", 60.0, "print")
    first = await accept(queue, repeats=name)

    async def again(**more: object) -> First | None:
        new = Acceptance(make_id(), make_head(), b"", [Entry("api", "q", Record())], **more)  # type: ignore[arg-type]
        return await queue.accept(new)

    assert await again(repeats=name) == First(first, same=True)
    assert await again(repeats=("key\nme\nk", 60.0, "other")) == First(first, same=False)
    assert await again(repeats=("key\nyou\nk", 60.0, "print")) is None
    assert (await queue.depth(LANE))[0] == 2
    assert await queue.store.call("PTTL", (await queue.store.call("KEYS", "*seen*"))[0]) > 0


@on_a_queue
async def test_either_of_two_names_tells_a_repetition(queue: Queue) -> None:
    """A signed delivery comes again with another key, or a key with another delivery's id."""
    first = await accept(queue, repeats=("key", 60.0, "p"), also=("webhook", 60.0, ""))

    async def again(key: str, webhook: str, print_: str = "p") -> First | None:
        names = {"repeats": (key, 60.0, print_), "also": (webhook, 60.0, "")}
        new = Acceptance(make_id(), make_head(), b"", [Entry("api", "q", Record())], **names)  # type: ignore[arg-type]
        return await queue.accept(new)

    assert await again("other", "webhook") == First(first, same=True)
    assert await again("key", "another") == First(first, same=True)
    # What came with the repetitions stands for the first event as well.
    assert await again("other", "third") == First(first, same=True)
    assert await again("fourth", "another") == First(first, same=True)
    # A refusal binds nothing.
    assert await again("key", "fifth", "q") == First(first, same=False)
    assert await again("sixth", "fifth") is None
    assert (await queue.depth(LANE))[0] == 2


@on_a_queue
async def test_targets_that_do_not_want_it(queue: Queue) -> None:
    """Skipped and dead from the beginning: nothing is queued; the body stays while one is dead."""
    skipped = await accept(queue, Entry("api", "n", Record()))
    dead = Entry("api", "x", Record(), member="letter")
    spoilt = await accept(queue, dead, Entry("crm", "n", Record()))

    assert await ids(queue) == []
    assert b"body" not in await queue.fields(skipped)
    assert await queue.store.call("PTTL", queue.key("event", skipped)) > 0
    fields = await queue.fields(spoilt)
    assert (fields[b"open"], fields[b"dead"], fields[b"body"]) == (b"0", b"1", b"body")
    assert fields[b"x:api"] == b"letter"
    assert await queue.store.call("PTTL", queue.key("event", spoilt)) == -1
    assert await left(queue, "dead", "route") == 1


@on_a_queue
async def test_the_audit_is_written_by_the_same_step(queue: Queue) -> None:
    """One entry in the stream and in the trail of the transaction, with a time limit."""
    queue = make_queue(queue.store, retention=60.0)
    store = queue.store
    await accept(queue, audit=b"{}")
    (taken,) = (await take(queue)).events
    await end(queue, taken, audit=b"{1}", correlation_id="c-1")

    assert await store.call("XLEN", queue.key("audit")) == 2
    key = queue.key("entries", "c-1")
    entries = await store.call("XRANGE", queue.key("audit"), "-", "+")
    assert [entry[0] for entry in entries] == (await store.call("GET", key)).split()
    assert 0 < await store.call("PTTL", key) <= 60_000


@on_a_queue
async def test_a_transaction_of_several_steps(queue: Queue) -> None:
    """All entries stand under its id, in their order, and stay as long as the last one does."""
    queue = make_queue(queue.store, retention=60.0)
    store, key = queue.store, queue.key("entries", "c-1")
    for number in range(3):
        await accept(queue, audit=b"{%d}" % number)
        await store.call("PEXPIRE", key, 1000 * (number + 1))
    await queue.note([(b"{3}", "c-1")])

    entries = await store.call("XRANGE", queue.key("audit"), "-", "+")
    assert [entry[1][1] for entry in entries] == [b"{0}", b"{1}", b"{2}", b"{3}"]
    assert (await store.call("GET", key)).split() == [entry[0] for entry in entries]
    assert await store.call("PTTL", key) > 50_000


@on_a_queue
async def test_one_id_for_everything_is_bounded(queue: Queue) -> None:
    """What is listed of a transaction ends somewhere, and nothing is refused because of it."""
    queue = make_queue(queue.store, retention=60.0)
    store, key = queue.store, queue.key("entries", "c-1")
    await store.call("SET", key, b"1764115200000-12345 " * 13_107)
    await accept(queue, audit=b"{}")
    assert await store.call("STRLEN", key) == 131_072
    await accept(queue, audit=b"{}")
    assert (await store.call("GET", key)).split()[-1] == (
        await store.call("XREVRANGE", queue.key("audit"), "+", "-", "COUNT", 1)
    )[0][0]
    assert await store.call("PTTL", key) > 0
    assert await of_transaction(queue, "c-1") == []


@on_a_queue
async def test_an_event_has_the_stores_time(queue: Queue) -> None:
    """Whatever our own clock says, and though an entry of the audit was given a time to come."""
    queue = make_queue(queue.store, retention=60.0)
    store = queue.store
    for ahead in (0, 1_000_000_000_000):
        if ahead:
            entry = f"{round(time.time() * 1000) + ahead}-1"
            await store.call("XADD", queue.key("audit"), entry, "r", b"{}")
        for ours in (time.time(), 1.0):
            head = msgspec.structs.replace(make_head(), received_at=ours)
            event = make_id()
            await queue.accept(Acceptance(event, head, b"", [Entry("api", "q")], audit=b"{}"))
            at = int((await queue.fields(event))[b"at"])
            assert abs(at / 1000 - time.time()) < 30
            assert await store.call("ZSCORE", queue.key("open", LANE.name), event) == b"%d" % at


# Later.


@on_a_queue
async def test_what_is_due_later_waits(queue: Queue) -> None:
    """It is handed out when its time has come, with what was noted; and `due` says when that is."""
    event = await accept(queue)
    (taken,) = (await take(queue)).events
    assert await end(queue, taken, "later", delay=0.05, record=Record(attempts=3))
    assert await state(queue, event) == "w"

    batch = await take(queue)
    assert batch.events == []
    assert batch.due is not None
    assert 0 < batch.due <= 0.05
    await hold(batch.due + 0.002)
    (taken,) = (await take(queue)).events
    assert decode_record(taken.record).attempts == 3
    assert taken.fence == 2
    assert await end(queue, taken)
    assert (await take(queue)).due is None


@on_a_queue
async def test_what_is_given_back_may_be_taken_at_once(queue: Queue) -> None:
    """No time, no lease; and the place where idle workers wait has grown."""
    await accept(queue)
    batch = await take(queue)
    await end(queue, batch.events[0], "later", delay=0.0)
    found = await queue.store.call("XREAD", "STREAMS", queue.key("again", LANE.name),
                                   batch.newest[1])  # fmt: skip
    assert len(found[0][1]) == 1
    assert len((await take(queue, consumer="w2")).events) == 1


@on_a_queue
async def test_without_a_record_the_old_one_stays(queue: Queue) -> None:
    """For what a newer gateway has written and this one can't read."""
    await accept(queue, Entry("api", "q", Record(attempts=7)))
    (taken,) = (await take(queue)).events
    await queue.settle(LANE, taken, "later", None, delay=0.0)
    (again,) = (await take(queue)).events
    assert again.record == taken.record


@on_a_queue
async def test_retries_do_not_stand_behind_a_backlog(queue: Queue) -> None:
    """Half of what is taken is due again, and half is new."""
    first = [await accept(queue) for _ in range(4)]
    for taken in (await take(queue, 4)).events:
        await end(queue, taken, "later", delay=0.001)
    backlog = [await accept(queue) for _ in range(10)]
    await hold(0.01)

    assert set(await ids(queue, 4)) == {*first[:2], *backlog[:2]}
    assert set(await ids(queue, 6)) == {*first[2:], *backlog[2:6]}


# Order.


@on_a_queue
async def test_one_after_another(queue: Queue) -> None:
    """The next of an order goes when the one before it is settled, however; others meanwhile."""
    one, two, three = [await accept(queue, ordered("o")) for _ in range(3)]
    other = await accept(queue, ordered("p"))
    batch = await take(queue)
    assert [each.id for each in batch.events] == [one, other]
    assert await state(queue, two) == "o"

    await end(queue, batch.events[0], "later", delay=0.0)
    (taken,) = (await take(queue)).events
    assert taken.id == one, "its retries come first"
    await end(queue, taken, "dead")
    (taken,) = (await take(queue)).events
    assert taken.id == two
    await end(queue, taken)
    (taken,) = (await take(queue)).events
    assert taken.id == three
    await end(queue, taken)
    assert await left(queue, "order", f"{LANE.name}:o") == 0
    last = await accept(queue, ordered("o"))
    assert await ids(queue) == [last]


@on_a_queue
async def test_order_is_kept_for_each_target(queue: Queue) -> None:
    """One target's trouble keeps nothing back at another."""
    events = [await accept(queue, ordered("o"), ordered("o", "crm")) for _ in range(2)]
    crm = Lane("route", "crm")
    (held,) = (await take(queue)).events
    (quick,) = (await take(queue, lane=crm)).events
    await end(queue, quick, lane=crm)
    assert await ids(queue, lane=crm) == [events[1]]
    assert await ids(queue) == []
    assert held.id == events[0]


@on_a_queue
async def test_purged_ones_have_no_turn(queue: Queue) -> None:
    """What is gone, or settled by an order from outside, is passed over."""
    one, two, three, four = [await accept(queue, ordered("o")) for _ in range(4)]
    (taken,) = (await take(queue)).events
    await queue.store.call("DEL", queue.key("event", two))
    await queue.store.call("HSET", queue.key("event", three), "s:api", "d")
    await end(queue, taken)
    assert taken.id == one
    assert await ids(queue) == [four]


@on_a_queue
async def test_purged_ones_are_not_handed_out(queue: Queue) -> None:
    """Their entries go, and what stands behind them is asked for at once."""
    gone, there = await accept(queue), await accept(queue)
    await queue.store.call("DEL", queue.key("event", gone))
    batch = await take(queue, 1)
    assert (batch.events, batch.due) == ([], 0)
    assert await ids(queue, 1) == [there]
    assert await left(queue, "ready") == 1


# Rate.


@on_a_queue
async def test_a_rate_over_two_consumers(queue: Queue) -> None:
    """Both together get what the bucket holds, and are told when there is more."""
    for _ in range(10):
        await accept(queue)
    rate = Rate(every=0.05, burst=3)
    assert len(await ids(queue, 2, "w1", rate=rate)) == 2
    assert len(await ids(queue, 5, "w2", rate=rate)) == 1
    batch = await take(queue, 5, "w1", rate=rate)
    assert batch.events == []
    assert 0 < batch.wait <= 0.05
    await hold(batch.wait + 0.002)
    assert len(await ids(queue, 5, "w2", rate=rate)) in (1, 2)
    # Nothing taken is nothing charged.
    empty = Lane("route", "empty")
    for _ in range(5):
        assert (await take(queue, lane=empty, rate=rate)).wait == 0


# Leases.


@on_a_queue
async def test_a_dead_workers_events_are_claimed(queue: Queue) -> None:
    """After the lease and not before; what is renewed never; and never by who does not look."""
    first, second = await accept(queue), await accept(queue)
    held = (await take(queue, consumer="dead")).events
    assert await ids(queue, lease=5.0) == []
    await hold(0.06)
    await queue.renew(LANE, "dead", [held[0].entry])
    assert await ids(queue, consumer="w2") == []
    (claimed,) = (await take(queue, consumer="w2", lease=0.05)).events
    assert (claimed.id, claimed.fence) == (second, 2)
    assert held[0].id == first

    # The one who comes back can't settle or renew it any more, and breaks nothing.
    assert not await end(queue, held[1])
    assert not await end(queue, held[1], "later", delay=0.0)
    assert not await end(queue, held[1], "saved")
    await queue.renew(LANE, "dead", [each.entry for each in held])
    assert await end(queue, claimed)
    assert await end(queue, held[0])
    assert not await end(queue, held[0]), "once is enough"
    assert (await queue.depth(LANE))[0] == 0


@on_a_queue
async def test_retries_of_a_dead_worker_are_claimed(queue: Queue) -> None:
    """Also what it held for the second time, which stands in another stream."""
    event = await accept(queue)
    (taken,) = (await take(queue)).events
    await end(queue, taken, "later", delay=0.0)
    (taken,) = (await take(queue, consumer="dead")).events
    assert taken.entry.startswith(b"a")
    await hold(0.02)
    (claimed,) = (await take(queue, consumer="w2", lease=0.01)).events
    assert claimed.id == event
    assert await end(queue, claimed)
    assert await left(queue, "again") == 0


@on_a_queue
async def test_a_claim_looks_past_what_the_living_hold(queue: Queue) -> None:
    """Though there is room for one alone, and forty others stand before it."""
    events = [await accept(queue) for _ in range(41)]
    alive = (await take(queue, 40, "alive")).events
    await take(queue, 1, "dead")
    await hold(0.15)
    await queue.renew(LANE, "alive", [each.entry for each in alive])
    assert await ids(queue, 1, "w2", lease=0.1) == [events[40]]


@on_a_queue
async def test_consumers_that_are_gone_go(queue: Queue) -> None:
    """One that holds something stays, however long it has been silent."""
    await accept(queue)
    await take(queue, consumer="holds")
    await accept(queue)
    (taken,) = (await take(queue, consumer="gone")).events
    await end(queue, taken)
    await hold(0.12)
    await take(queue, consumer="w1", lease=0.001, count=0)  # looks at nothing
    key = queue.key("ready", LANE.name)

    async def names() -> set[bytes]:
        return {each[1] for each in await queue.store.call("XINFO", "CONSUMERS", key, "lockgate")}

    assert await names() == {b"holds", b"gone"}
    (claimed,) = (await take(queue, consumer="w1", lease=0.001)).events
    assert await names() == {b"w1"}
    assert await end(queue, claimed)


@on_a_queue
async def test_progress_is_saved_by_the_owner(queue: Queue) -> None:
    """It goes on with it; who takes over finds it."""
    await accept(queue)
    (taken,) = (await take(queue, consumer="dead")).events
    assert await end(queue, taken, "saved", record=Record(progress=b"step 1"))
    await hold(0.02)
    (claimed,) = (await take(queue, lease=0.01)).events
    assert decode_record(claimed.record).progress == b"step 1"
    assert not await end(queue, taken, "saved", record=Record(progress=b"step 2"))
    assert await end(queue, claimed)


# Callbacks.


@on_a_queue
async def test_the_callback_comes_last(queue: Queue) -> None:
    """Once, when all others are settled; its time counts from there."""
    event = await accept(
        queue, Entry("api", "q", Record()), Entry("crm", "q", Record()), callback="callback"
    )
    (taken,) = (await take(queue)).events
    await end(queue, taken, "dead")
    assert await ids(queue, lane=CALLBACK) == []
    await hold(0.05)
    crm = Lane("route", "crm")
    (other,) = (await take(queue, lane=crm)).events
    await end(queue, other, lane=crm)
    (told,) = (await take(queue, lane=CALLBACK)).events
    assert (told.id, told.record) == (event, b"")
    assert told.accepted_at >= taken.accepted_at + 0.05
    assert (await queue.depth(CALLBACK))[0] == 1
    await end(queue, told, "later", lane=CALLBACK, delay=0.0)
    (told,) = (await take(queue, lane=CALLBACK)).events
    await end(queue, told, lane=CALLBACK)

    assert await ids(queue, lane=CALLBACK) == []
    fields = await queue.fields(event)
    assert (fields[b"open"], fields[b"dead"]) == (b"0", b"1")
    assert b"body" in fields, "a dead letter keeps it"


@on_a_queue
async def test_the_callback_of_what_nobody_wanted(queue: Queue) -> None:
    """It is told all the same, and then the event may go."""
    event = await accept(queue, Entry("api", "n", Record()), callback="callback")
    (told,) = (await take(queue, lane=CALLBACK)).events
    await end(queue, told, lane=CALLBACK)
    assert b"body" not in await queue.fields(event)
    assert await queue.store.call("PTTL", queue.key("event", event)) > 0


# The store.


@on_a_queue
async def test_the_store_is_emptied(queue: Queue) -> None:
    """Who held something is told that it is nobody's; the queue works on with what comes then."""
    await accept(queue)
    (taken,) = (await take(queue)).events
    await queue.store.call("FLUSHALL")
    await queue.renew(LANE, "w1", [taken.entry])
    for verdict in ("saved", "later", "dead", "delivered"):
        assert not await end(queue, taken, verdict)
    assert await queue.store.call("DBSIZE") == 0
    event = await accept(queue)
    assert await ids(queue, lease=0.01) == [event]


@on_a_queue
async def test_a_group_that_is_lost(queue: Queue) -> None:
    """Somebody has deleted it: what was handed out comes again, and the first owner is too late."""
    event = await accept(queue)
    (taken,) = (await take(queue)).events
    await queue.store.call("XGROUP", "DESTROY", queue.key("ready", LANE.name), "lockgate")
    (again,) = (await take(queue, consumer="w2")).events
    assert (again.id, again.fence) == (event, 2)
    assert not await end(queue, taken)
    assert await end(queue, again)


@on_a_queue
async def test_a_deleted_entry(queue: Queue) -> None:
    """Somebody has deleted it from the stream while it was held: a claim passes it over."""
    await accept(queue)
    (taken,) = (await take(queue, consumer="dead")).events
    second = await accept(queue)
    await take(queue, consumer="dead")
    await queue.store.call("XDEL", queue.key("ready", LANE.name), taken.entry[1:])
    await hold(0.02)
    assert await ids(queue, lease=0.01) == [second]
    assert await end(queue, taken)


@on_a_queue
async def test_a_full_store(queue: Queue) -> None:
    """Nothing of a new event is kept; what is there can be taken and settled, which makes room."""
    name = ("key", 60.0, "p")
    first = await accept(queue, repeats=name, body=b"x" * 1000)
    second = await accept(queue)
    before = set(await queue.store.call("KEYS", "*"))
    await queue.store.call("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(ReplyError) as refused:
        await accept(queue, repeats=("other", 60.0, "p"))
    assert refused.value.code == "OOM"
    assert set(await queue.store.call("KEYS", "*")) == before
    new = Acceptance(make_id(), make_head(), b"", [], repeats=name)
    assert await queue.accept(new) == First(first, same=True)

    one, two = (await take(queue)).events
    assert two.id == second
    assert await end(queue, one, "saved", record=Record(progress=b"p"))
    assert await end(queue, one)
    assert await end(queue, two, "later", delay=0.0)
    (two,) = (await take(queue, lease=1.0)).events
    assert await end(queue, two, "dead")
    await queue.store.call("CONFIG", "SET", "maxmemory", 0)
    await accept(queue, repeats=("other", 60.0, "p"))
