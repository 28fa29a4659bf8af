"""What becomes of events whose targets fail, refuse, stall or are being spared."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from gateway.delivery.event import decode_record
from tests.e2e.deliveries import (
    clean,
    config,
    queue_of,
    rows,
    send,
    settled,
    store_in,
    target,
    until_state,
)
from tests.support.gateway import eventually, run_gateway
from tests.support.inbox import Inbox, status
from tests.support.scripted import (
    Received,
    ScriptedUpstream,
    answer_then_close,
    answer_then_wait,
)


async def test_retries_by_the_schedule(tmp_path: Path) -> None:
    """Each later than the one before it, with its number and one key; then it is delivered."""
    inbox = Inbox(status(500), status(503), status(429), status(202))
    options = "{schedule: [10ms, 60ms]}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options)) as gateway,
        gateway.client() as client,
    ):
        event = (await send(client))["event_id"]
        found = await settled(client, event)
        assert found["targets"] == [
            {"target": "api", "state": "delivered", "attempts": 4, "status": 202}
        ]
        assert inbox.field("x-lockgate-attempt") == ["1", "2", "3", "4"]
        assert set(inbox.field("idempotency-key")) == {f'"{event}"'}
        waits = [after - before for before, after in zip(inbox.at, inbox.at[1:], strict=False)]
        assert waits[0] >= 0.009
        assert min(waits[1:]) >= 0.059
        async with queue_of(store) as queue:
            record = decode_record((await queue.fields(event))[b"t:api"])
        assert [(each.number, each.status) for each in record.history] == [
            (1, 500), (2, 503), (3, 429), (4, 202),
        ]  # fmt: skip
        assert rows(gateway, "attempts_total", result="retried") == 3
        await clean(store)


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """In seconds or as a date: the longer of it and the schedule."""
    inbox = Inbox()

    def reply(request: Received, number: int) -> bytes:
        if request.get("x-lockgate-attempt") == "2":
            return status(200)
        date = formatdate(time.time() + 2, usegmt=True).encode()
        return status(503, b"Retry-After: " + (date if request.body == b'"date"' else b"1"))

    inbox.reply = reply
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{schedule: [10ms]}")) as gateway,
        gateway.client() as client,
    ):
        for event in [await send(client, "date"), await send(client, "seconds")]:
            assert (await settled(client, event["event_id"]))["state"] == "delivered"
        first: dict[bytes, float] = {}
        for request, at in zip(inbox.got, inbox.at, strict=True):
            assert at - first.setdefault(request.body, at) == 0 or at - first[request.body] > 0.9
        assert len(inbox.got) == 4


async def test_which_answers_are_final(tmp_path: Path) -> None:
    """3xx and 4xx end it at once but for 408, 425, 429; 5xx but 501 and those are tried again."""
    inbox = Inbox()
    inbox.reply = lambda request, _: status(int(request.body), body=b'{"why": 1}')
    options = "{attempts: 2, schedule: [5ms]}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options)) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        events = {
            code: (await send(client, code))["event_id"]
            for code in (301, 400, 404, 408, 425, 429, 500, 501, 503)
        }
        again = {408, 425, 429, 500, 503}
        for code, event in events.items():
            found = await settled(client, event)
            assert found["state"] == "failed"
            (told,) = found["targets"]
            assert told["status"] == code
            fields = await queue.fields(event)
            assert decode_record(fields[b"t:api"]).answer == b'{"why": 1}'
            assert fields[b"body"] == str(code).encode(), "it can be sent again"
            reason = "exhausted" if code in again else "permanent"
            assert fields[b"x:api"].decode() == f"{event} api {reason} - {code}"
            assert (told["reason"], told["attempts"]) == (reason, 2 if code in again else 1)
        assert await queue.store.call("ZCARD", queue.key("dead", "hooks")) == len(events)
        assert rows(gateway, "dead_letters_total", reason="permanent") == 4
        assert rows(gateway, "dead_letters_total", reason="exhausted") == 5
        assert len(inbox.got) == 4 + 2 * 5
        await clean(store)


async def test_what_takes_too_long_expires(tmp_path: Path) -> None:
    """However many attempts are left; the last answer is kept."""
    inbox = Inbox(status(500, body=b"last words"))
    options = "{attempts: 1000, schedule: [20ms], max_total: 150ms}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options)) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        event = (await send(client))["event_id"]
        (told,) = (await settled(client, event))["targets"]
        assert (told["reason"], told["status"]) == ("expired", 500)
        assert 1 < len(inbox.got) < 20
        assert decode_record((await queue.fields(event))[b"t:api"]).answer == b"last words"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer_then_wait(), "upstream_timeout|deadline_exceeded"),
        (
            answer_then_wait(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "upstream_timeout|deadline_exceeded",
        ),
        (
            answer_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "response_incomplete",
        ),
        (answer_then_close(b"nonsense\r\n\r\n"), "invalid_response"),
    ],
    ids=["silent", "stalls in the body", "breaks off", "nonsense"],
)
async def test_bad_answers_count(tmp_path: Path, script: object, code: str) -> None:
    """A target that stalls, breaks off or talks nonsense has had its attempt."""
    options = "{attempts: 2, schedule: [5ms]}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(script) as upstream,  # type: ignore[arg-type]
        run_gateway(
            tmp_path, config(upstream, store, options, route="    timeout: 150ms")
        ) as gateway,
        gateway.client() as client,
    ):
        (told,) = (await settled(client, (await send(client))["event_id"]))["targets"]
        assert (told["state"], told["reason"], told["attempts"]) == ("dead", "exhausted", 2)
        assert any(told["code"].startswith(each) for each in code.split("|")), told
        assert len(upstream.requests) == 2
        await gateway.quiet()


async def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    """Nobody listens: tried again, and given up in the end; the status tells the code."""
    async with store_in(tmp_path) as store, ScriptedUpstream(Inbox()) as upstream:
        text = config(upstream, store, "{attempts: 2, schedule: [5ms]}")
    async with (
        store_in(tmp_path / "again") as store,
        run_gateway(tmp_path, text.replace(str(tmp_path / "store"), str(store.folder))) as gateway,
        gateway.client() as client,
    ):
        (told,) = (await settled(client, (await send(client))["event_id"]))["targets"]
        assert told["code"] == "connect_failed"
        assert (told["reason"], told.get("status", 0)) == ("exhausted", 0)


async def test_huge_answers_are_not_kept(tmp_path: Path) -> None:
    """Of an endless answer some is read, its connection is closed, and the beginning is kept."""

    async def endless(peer: object) -> None:
        await peer.request()  # type: ignore[attr-defined]
        await peer.send(b"HTTP/1.1 400 No\r\nContent-Length: 1000000000\r\n\r\n")  # type: ignore[attr-defined]
        while True:
            await peer.send(b"x" * 65536)  # type: ignore[attr-defined]

    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(endless) as upstream,
        run_gateway(tmp_path, config(upstream, store)) as gateway,
        gateway.client() as client,
        queue_of(store) as queue,
    ):
        event = (await send(client))["event_id"]
        (told,) = (await settled(client, event))["targets"]
        assert (told["reason"], told["status"]) == ("permanent", 400)
        assert decode_record((await queue.fields(event))[b"t:api"]).answer == b"x" * 2048
        await eventually(upstream.peers[0].gone.is_set)
        await gateway.quiet()


async def test_an_open_breaker_burns_no_attempts(tmp_path: Path) -> None:
    """Events wait while it is open, and do not fall on the target at once when it closes."""
    inbox = Inbox()
    sick = True

    def reply(request: Received, number: int) -> bytes:
        return status(500) if sick else status(200)

    inbox.reply = reply
    breaker = (
        "circuit_breaker: {min_requests: 2, failure_ratio: 0.5, open_for: 300ms, probes: 1, "
        "ramp: 0s}"
    )
    options = "{attempts: 4, schedule: [20ms], concurrency: 10}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options, api=breaker)) as gateway,
        gateway.client() as client,
    ):
        events = [(await send(client))["event_id"] for _ in range(30)]
        await eventually(lambda: rows(gateway, "attempts_total", result="paused") >= 1)
        before = len(inbox.got)
        assert before < 15
        assert rows(gateway, "concurrency", route="hooks") <= 1
        sick = False
        inbox.most = 0
        for event in events:
            found = await settled(client, event)
            assert found["state"] == "delivered"
            assert found["targets"][0]["attempts"] <= 4
        # One asked, then two at once, then four; never all of them.
        assert inbox.most <= 8
        await clean(store)


async def test_a_full_bulkhead_burns_no_attempts(tmp_path: Path) -> None:
    """Though there are more deliveries at once than permits."""
    inbox = Inbox()

    def reply(request: Received, number: int) -> bytes:
        return status(200)

    inbox.reply = reply
    bulkhead = "bulkhead: {max_concurrent: 1, max_queued: 0}"
    options = "{attempts: 1, concurrency: 8}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options, api=bulkhead)) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        events = [(await send(client))["event_id"] for _ in range(6)]
        await eventually(lambda: rows(gateway, "attempts_total", result="paused") >= 1)
        inbox.go.set()
        for event in events:
            (told,) = (await settled(client, event))["targets"]
            assert (told["state"], told["attempts"]) == ("delivered", 1)
        assert inbox.most == 1
        await gateway.quiet()


async def test_the_route_sets_the_pace(tmp_path: Path) -> None:
    """No more at once than `concurrency`, and no more a second than `rate`."""
    inbox = Inbox()
    options = "{concurrency: 2, rate: 20/s}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options)) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        for _ in range(25):
            await send(client)
        await inbox.until(2)
        await eventually(lambda: rows(gateway, "in_flight") == 2)
        inbox.go.set()
        await inbox.until(25)
        assert inbox.most == 2
        # Twenty at once, then one every 50 ms.
        assert inbox.at[-1] - inbox.at[0] >= 0.19


async def test_settled_in_spite_of_a_late_condition(tmp_path: Path) -> None:
    """What waits for its time says so, and one that is under way too."""
    inbox = Inbox(status(500))
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, "{schedule: [1h]}")) as gateway,
        gateway.client() as client,
    ):
        inbox.go.clear()
        event = (await send(client))["event_id"]
        await until_state(client, event, "running")
        inbox.go.set()
        await until_state(client, event, "waiting")
        told = await target(client, event)
        assert told == {"target": "api", "state": "waiting", "attempts": 1, "status": 500}
        got = await client.post("/hooks", headers={"Prefer": "wait=0"})
        assert got.status_code == 202
