"""Schedules over real gateways and a real store: once over all of them, and what was missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.config.issues import ConfigErrors
from gateway.delivery.schedules.book import Book, make_key
from gateway.delivery.schedules.timetable import Timetable
from gateway.store.base import Store
from tests.store.servers import BINARIES, VALKEY, Server, opened, serving
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import Peer, Received, ScriptedUpstream, respond

HASH = "lockgate:{delivery}:schedules"
# Far from now, whatever time it is.
HOUR = (datetime.now(ZoneInfo("Europe/Madrid")).hour + 12) % 24
DAILY = f"0 {HOUR} * * *"
OTHER = f"30 {HOUR} * * *"


class Recorder:
    """An upstream that takes everything and remembers it."""

    def __init__(self) -> None:
        self.requests: list[Received] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.requests.append(await peer.request())
            await peer.send(respond(b""))

    @property
    def ticks(self) -> list[str]:
        return [str(each.get("x-lockgate-tick")) for each in self.requests]


def config(upstream: ScriptedUpstream, store: str, schedules: str, more: str = "") -> str:
    return f"""\
store: {{url: "{store}", timeout: 5s}}
upstreams:
  api: {{targets: ["{upstream.url}"], timeout: 5s}}
routes:
  - name: orders.sync
    match: {{path: "/sync"}}
    upstream: api
    delivery: {{backoff: {{base: 10ms}}}}
    {more}
schedules: {schedules}
"""


def scheduled(missed: str, cron: str = DAILY, more: str = "") -> str:
    return (
        f'{{nightly: {{cron: "{cron}", timezone: Europe/Madrid, route: orders.sync, '
        f"missed: {missed}, request: {{json: {{full: true}}}}{more}}}}}"
    )


@asynccontextmanager
async def store_in(folder: Path, binary: str = VALKEY) -> AsyncIterator[tuple[Server, Store]]:
    async with serving(binary, folder / "store") as server, opened(server.unix, folder) as store:
        yield server, store


async def stood_still(store: Store, days: float, cron: str = DAILY) -> None:
    """Have the schedule look as if nobody had looked after it for so long."""
    seconds, _ = await store.call("TIME")
    key = make_key("nightly", cron, "Europe/Madrid")
    await store.call("HSET", HASH, f"l:{key}", (int(seconds) - round(days * 86400)) * 1000)


def timetable(gateway: RunningGateway) -> Timetable:
    ((_, found),) = gateway.runtime.known("schedules")
    assert isinstance(found, Timetable)
    return found


def looked(gateway: RunningGateway) -> bool:
    return gateway.metric("gateway_schedule_done_timestamp_seconds", schedule="nightly") > 0


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_firing_is_an_event_like_any_other(tmp_path: Path, binary: str) -> None:
    """It has an id, a correlation id, a trace and an origin; its target is told the tick."""
    recorder = Recorder()
    async with (
        store_in(tmp_path, binary) as (server, store),
        ScriptedUpstream(recorder) as upstream,
    ):
        await stood_still(store, 1)
        async with run_gateway(
            tmp_path, config(upstream, server.unix, scheduled("one"))
        ) as gateway:
            await eventually(lambda: bool(recorder.requests))
            (request,) = recorder.requests
            tick = datetime.fromisoformat(str(request.get("x-lockgate-tick")))

            assert (request.method, request.target) == ("POST", "/sync")
            assert json.loads(request.body) == {"full": True}
            assert request.get("content-type") == "application/json"
            assert request.get("x-lockgate-schedule") == "nightly"
            assert (tick.hour, tick.minute) == (HOUR, 0)
            key = f'"schedule:nightly:{tick.timestamp():.0f}"'
            assert request.get("idempotency-key") == key
            assert request.get("x-correlation-id")
            assert request.get("traceparent")
            event_id = str(request.get("x-lockgate-event"))
            async with gateway.client() as client:
                status = (await client.get(f"/sync/{event_id}")).json()
            assert status["origin"] == "schedule:nightly"
            count = "gateway_schedule_ticks_total"
            assert gateway.metric(count, schedule="nightly", result="fired") == 1
            (row,) = await timetable(gateway).listing()
            assert row.event_id == event_id
            assert row.done == row.fired == request.get("x-lockgate-tick")
            assert row.next is not None
            assert row.next > row.done


class Shifted(Book):
    """A book whose store's clock is ahead."""

    ahead = 0.0

    async def look(self, schedules: Sequence[tuple[str, str]]) -> tuple[float, list[float]]:
        now, lasts = await super().look(schedules)
        return now + self.ahead, lasts


async def test_a_tick_is_fired_when_it_comes(tmp_path: Path) -> None:
    """Not before, at once, and not again by a gateway that was killed before it noted that."""
    recorder = Recorder()
    minutes = "* * * * *"
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        text = config(upstream, server.unix, scheduled("skip", minutes))
        async with run_gateway(tmp_path, text) as gateway:
            await eventually(lambda: looked(gateway))
            book = Shifted(gateway.runtime.known("delivery")[0][1].queue)
            seconds, micros = await store.call("TIME")
            book.ahead = 60 - int(seconds) % 60 - int(micros) / 1e6 - 0.2
            timetable(gateway)._book = book
            timetable(gateway)._wake.set()
            await asyncio.sleep(0.1)
            assert recorder.requests == []
            await eventually(lambda: len(recorder.requests) == 1)
            later, more = await store.call("TIME")
            taken = int(later) - int(seconds) + (int(more) - int(micros)) / 1e6
            assert 0.2 <= taken < 2
            await eventually(lambda: fired(gateway) == 1)

            await stood_still(store, 30 / 86400, minutes)
            timetable(gateway)._wake.set()
            await eventually(lambda: tried(gateway) == 2)
            assert len(recorder.requests) == 1


async def test_a_clock_that_went_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and nothing is fired until the newest tick is over again."""
    recorder = Recorder()
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        await stood_still(store, -3)
        async with run_gateway(
            tmp_path, config(upstream, server.unix, scheduled("all"))
        ) as gateway:
            await eventually(lambda: looked(gateway))
            (row,) = await timetable(gateway).listing()
            assert row.next is not None
            assert datetime.fromisoformat(row.next) - datetime.now(UTC) > timedelta(days=2)
        assert recorder.requests == []
        assert "the store's clock went back" in caplog.text


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("one", 1), ("all", 3)])
async def test_ticks_that_nobody_was_there_for(tmp_path: Path, missed: str, expected: int) -> None:
    """They are dropped, become one firing, or are all fired, by two gateways together once each."""
    recorder = Recorder()
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        text = config(upstream, server.unix, scheduled(missed))
        seconds, _ = await store.call("TIME")
        now = datetime.fromtimestamp(int(seconds), UTC)
        await stood_still(store, 3)
        (tmp_path / "b").mkdir()
        async with run_gateway(tmp_path, text) as a, run_gateway(tmp_path / "b", text) as b:
            await eventually(lambda: looked(a) and looked(b) and len(recorder.requests) >= expected)
            await eventually(lambda: depth(a) == 0)

            assert fired(a) + fired(b) == expected
            assert len(set(recorder.ticks)) == len(recorder.ticks) == expected
            if expected:
                newest = max(map(datetime.fromisoformat, recorder.ticks))
                assert now - newest < timedelta(days=1, hours=1)
            if missed != "all":
                assert passed(a) + passed(b) >= 3 - expected


def passed(gateway: RunningGateway) -> float:
    return gateway.metric("gateway_schedule_ticks_total", result="passed")


def depth(gateway: RunningGateway) -> float:
    return gateway.metric("gateway_delivery_in_flight")


async def test_two_gateways_fire_one_tick_once(tmp_path: Path) -> None:
    """Both see the same ticks at the same moment; each tick is one event."""
    recorder = Recorder()
    every_minute = "* * * * *"
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        text = config(upstream, server.unix, scheduled("all", every_minute))
        (tmp_path / "b").mkdir()
        async with run_gateway(tmp_path, text) as a, run_gateway(tmp_path / "b", text) as b:
            await eventually(lambda: looked(a) and looked(b))
            await stood_still(store, 10 / 1440, every_minute)
            for gateway in (a, b):
                timetable(gateway)._wake.set()
            await eventually(lambda: len(recorder.requests) >= 10)
            await eventually(lambda: tried(a) >= 10 and tried(b) >= 10)

            assert len(recorder.requests) == len(set(recorder.ticks)) == 10
            assert fired(a) + fired(b) == 10


def fired(gateway: RunningGateway) -> float:
    return gateway.metric("gateway_schedule_ticks_total", result="fired")


def tried(gateway: RunningGateway) -> float:
    return fired(gateway) + gateway.metric("gateway_schedule_ticks_total", result="repeated")


async def test_a_changed_expression_counts_from_now(tmp_path: Path) -> None:
    """Neither it nor the old one, when it comes back, makes up for what was before."""
    recorder = Recorder()
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        text = config(upstream, server.unix, scheduled("all"))
        async with run_gateway(tmp_path, text) as gateway:
            await eventually(lambda: looked(gateway))
            await gateway.reload(config(upstream, server.unix, scheduled("all", OTHER)))
            old = make_key("nightly", DAILY, "Europe/Madrid")
            new = make_key("nightly", OTHER, "Europe/Madrid")
            await until(store, lambda known: f"l:{new}" in known and f"l:{old}" not in known)
            # Out of the configuration, and in it again.
            await gateway.reload(config(upstream, server.unix, "{}"))
            await until(store, lambda known: not known)
            await gateway.reload(text)
            await until(store, lambda known: f"l:{old}" in known)

        assert recorder.requests == []


async def test_a_flag_that_is_off(tmp_path: Path) -> None:
    """Ticks pass, and are not made up for once it is on."""
    recorder = Recorder()
    minutes = "* * * * *"
    async with store_in(tmp_path) as (server, store), ScriptedUpstream(recorder) as upstream:
        await stood_still(store, 3 / 1440, minutes)
        text = config(upstream, server.unix, scheduled("all", minutes, ", flag: nights"))
        async with run_gateway(tmp_path, text + "flags: {nights: off}\n") as gateway:
            await eventually(
                lambda: gateway.metric("gateway_schedule_ticks_total", result="off") >= 3
            )
            await gateway.reload(text + "flags: {nights: on}\n")
            await stood_still(store, 1 / 1440, minutes)
            timetable(gateway)._wake.set()
            await eventually(lambda: len(recorder.requests) >= 1)
        assert len(recorder.requests) == 1


async def until(store: Store, holds: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            reply = await store.call("HGETALL", HASH)
            if holds({name.decode() for name in reply[::2]}):
                return
            await asyncio.sleep(0.01)


async def test_the_store_is_away_when_a_tick_comes(tmp_path: Path) -> None:
    """It is fired once the store is back."""
    recorder = Recorder()
    options = ("--appendonly", "yes", "--appendfsync", "always")
    async with (
        serving(VALKEY, tmp_path / "store", *options) as server,
        ScriptedUpstream(recorder) as upstream,
    ):
        async with opened(server.unix, tmp_path) as store:
            await stood_still(store, 1)
        text = config(upstream, server.unix, scheduled("one"))
        server.kill()
        async with run_gateway(tmp_path, text) as gateway:
            await eventually(lambda: gateway.metric("gateway_store_up") == 0)
            assert recorder.requests == []
            server.start()
            await eventually(lambda: len(recorder.requests) == 1)


CHECKED = "validate: {request: {body: {type: object, required: [full, since]}}}"


@pytest.mark.parametrize(
    ("schedules", "more", "complaint"),
    [
        (
            scheduled("one"),
            CHECKED,
            "schedules.nightly.request: the route orders.sync would refuse",
        ),
        (scheduled("one").replace("sync,", "snc,"), "", 'there is no route "orders.snc"; did you'),
        (scheduled("one").replace("sync,", "plain,"), "", "give it delivery:"),
        (scheduled("one").replace("json", "path: /other, json"), "", "does not take this path"),
        (scheduled("one", "0 2 30 2 *"), "", "nightly.cron: the field for the day-of-month"),
        (scheduled("one").replace("Madrid", "Madird"), "", 'did you mean "Europe/Madrid"?'),
    ],
)
async def test_what_can_not_be_fired(
    tmp_path: Path, schedules: str, more: str, complaint: str
) -> None:
    """Is refused when the configuration is loaded, at its place."""
    async with ScriptedUpstream(Recorder()) as upstream:
        plain = "\n  - {name: orders.plain, match: {path: /p}, upstream: api}"
        with pytest.raises(ConfigErrors) as caught:
            async with run_gateway(
                tmp_path, config(upstream, "unix:///nowhere", schedules, more + plain)
            ):
                pass
        assert complaint in str(caught.value)
        assert "gateway.yaml:14" in str(caught.value)
