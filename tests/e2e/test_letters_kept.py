"""How long dead letters are kept, who is told of them, and what is mended in the queues."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.control.client import ControlClient
from gateway.delivery import discard, tidy
from gateway.delivery.alerts import Alerts, Newest, make_alert
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import Event, Head, Record
from gateway.delivery.queue import Queue
from gateway.errors import ConfigError
from gateway.observability.metrics import Metrics
from tests.store.servers import VALKEY, opened, serving
from tests.support.gateway import eventually, run_gateway
from tests.support.letters import REFUSES, House, Shop, config, house
from tests.support.scripted import ScriptedUpstream

DISCARDED = "gateway_delivery_discarded_total"


def dispatcher_of(here: House) -> Dispatcher:
    found: Dispatcher = here.gateway.runtime.known("delivery")[0][1]
    return found


async def test_letters_that_are_too_old(tmp_path: Path) -> None:
    """Go with their events, once, though two look after them; the audit says so."""
    async with house(tmp_path, "attempts: 1\n      dead_letter: {retention: 30m}") as here:
        here.shop.statuses = {"/one": REFUSES, "/two": REFUSES}
        old = await here.post({"n": 1})
        await here.settled(dead=2)
        young = await here.post({"n": 2})
        await here.settled(dead=4)
        for letter in await here.letters(event=old):
            name = f"{old} {letter['target']} permanent - 422"
            before = letter["at"] * 1000 - 1_801_000
            await here.store_call("ZADD", "lockgate:{delivery}:dead:hooks", "XX", before, name)
        dispatcher = dispatcher_of(here)
        await asyncio.gather(*(discard.keep_in_bounds(dispatcher) for _ in range(2)))
        assert {each["event"] for each in await here.letters()} == {young}
        assert (await here.answer("letters.show", event=old)).state == "missing"
        assert here.gateway.metric(DISCARDED, cause="retention") == 2
        trail = await here.store_call("XRANGE", "lockgate:{delivery}:audit", "-", "+")
        purged = [json.loads(each[1][1]) for each in trail if b'"purged"' in each[1][1]]
        assert {(each["event"], each["by"], each["detail"]) for each in purged} == {
            (old, "lockgate", "retention")
        }


async def test_letters_that_are_too_many(tmp_path: Path) -> None:
    """The oldest go; what another target still needs of them stays."""
    delivery = "attempts: 2\n      schedule: [1h]\n      dead_letter: {max: 2}"
    async with house(tmp_path, delivery) as here:
        here.shop.statuses = {"/one": REFUSES, "/two": "503 Service Unavailable"}
        events = []
        for number in range(4):
            events.append(await here.post({"n": number}))
            await here.settled(dead=number + 1, retried=number + 1)
        await discard.keep_in_bounds(dispatcher_of(here))
        assert [each["event"] for each in await here.letters()] == events[2:]
        states = {
            each["target"]: each["state"] for each in (await here.status(events[0]))["targets"]
        }
        assert states == {"one": "dead", "two": "waiting"}
        assert here.gateway.metric(DISCARDED, cause="max") == 2


async def test_what_an_eviction_leaves_is_mended(tmp_path: Path) -> None:
    """A turn that nobody gives on, an event that is not there, consumers of dead workers."""
    delivery = "attempts: 2\n      schedule: [1h]\n      ordered_by: body.o"
    async with house(tmp_path, delivery) as here:
        here.shop.statuses = {"/one": "503 Service Unavailable"}
        first = await here.post({"o": 1})
        await here.settled(retried=1, delivered=1)
        await here.post({"o": 1})
        await here.settled(delivered=2)
        here.shop.statuses = {}
        base = "lockgate:{delivery}:"
        await here.store_call("DEL", f"{base}event:{first}")
        for consumer in ("idle", "holds"):
            await here.store_call(
                "XGROUP", "CREATECONSUMER", f"{base}ready:hooks/one", "lockgate", consumer
            )
        dispatcher = dispatcher_of(here)
        await tidy.tidy(dispatcher)
        await here.settled(delivered=3)
        found = await here.ask("queues", route="hooks")
        assert [each["depth"] for each in found["queues"]] == [0, 0]
        stream = f"{base}ready:hooks/one"
        assert len(await here.store_call("XINFO", "CONSUMERS", stream, "lockgate")) == 3
        await dispatcher.queue.store.run(
            tidy._TIDY, (dispatcher.queue.base,), ("hooks", "one", 10, dispatcher.consumer, -1)
        )
        (left,) = await here.store_call("XINFO", "CONSUMERS", stream, "lockgate")
        assert left[1].decode() == dispatcher.consumer


def event(route: str, number: int) -> tuple[Event, Record]:
    head = Head(
        route, "POST", "/", b"", "", [], {}, {}, "", "", "", f"c-{number}", None, 0.0, 1, "k"
    )  # fmt: skip
    return Event(f"e-{number}", head, b"", 0.0), Record(reason="exhausted", status=503)


async def test_alerts_are_gathered_over_all_gateways(tmp_path: Path) -> None:
    """One at once, one for all that came while nobody was to be told; tries until it is taken."""
    hook = Shop()
    async with (
        serving(VALKEY, tmp_path / "store") as server,
        opened(server.unix, tmp_path) as store,
        ScriptedUpstream(hook) as upstream,
    ):
        metrics, client, clock = Metrics(SystemClock()), ControlClient(), SystemClock()
        queue = Queue(store, 3600.0)
        both = [
            Alerts(f"{upstream.url}/hook", client, queue, clock.monotonic, metrics, every=2.0)
            for _ in range(2)
        ]
        for each in both:
            await each.start()
            await each.start()
        hook.statuses = {"/hook": "503 Service Unavailable"}
        both[0].dead("one", *event("a", 1))
        both[0].dead("one", *event("b", 2))
        await eventually(lambda: len(hook.got) >= 1)
        hook.statuses = {}
        for number in range(3, 13):
            both[number % 2].dead("one", *event("a", number))
        posted = {"a": 0, "b": 0}

        def told() -> bool:
            posted.update({"a": 0, "b": 0})
            taken = {(each["route"], each["newest"]["event_id"]): each for each in bodies()}
            for each in taken.values():
                posted[each["route"]] += each["count"]
            return posted == {"a": 11, "b": 1}

        def bodies() -> list[dict[str, Any]]:
            return hook.bodies("/hook")

        await eventually(told)
        for each in both:
            await each.aclose()
        await client.aclose()
        last = bodies()[-1]
        assert (last["type"], last["reason"]) == ("dead_letters", "exhausted")
        # The first try of the first one failed; the later ones of a were told of together.
        assert len(bodies()) <= 6


def test_the_text_of_an_alert() -> None:
    """Says how many, where, why, and which one to look at."""
    one = make_alert("r", "invalid", 1, 5.0, Newest("e", "c", "t", 422, "invalid_body"))
    assert one.text == (
        "Lockgate gave up 1 event of r (invalid); the newest is e, which met invalid_body"
    )
    many = make_alert("r", "expired", 2, 5.0, Newest("e", "c", "t", 0, ""))
    assert many.text == "Lockgate gave up 2 events of r (expired); the newest is e"


async def test_quarantined_and_given_up_events_alert(tmp_path: Path) -> None:
    """End to end, by the configuration; without a webhook that is refused."""
    hook = Shop()
    validate = "validate: {request: {body: {type: object, required: [n]}}, on_invalid: quarantine}"
    async with serving(VALKEY, tmp_path / "store") as store, ScriptedUpstream(hook) as upstream:
        text = config(
            store.unix, upstream.url, "attempts: 1\n      dead_letter: {alert: true}", validate
        )
        with pytest.raises(ConfigError, match=r"dead_letter\.alert.*telemetry\.alerts\.webhook"):
            async with run_gateway(tmp_path, text):
                pass
        telemetry = f'telemetry: {{alerts: {{webhook: "{upstream.url}/hook"}}}}\n'
        hook.statuses = {"/one": REFUSES}
        async with run_gateway(tmp_path, telemetry + text) as gateway, gateway.client() as client:
            await client.post("/hooks", json={"n": 1}, headers={"X-Correlation-ID": "c-7"})
            await client.post("/hooks", json={"m": 1})
            await eventually(lambda: len(hook.keys("/hook")) == 2)
            told = {each["reason"]: each for each in hook.bodies("/hook")}
            assert told["permanent"]["count"] == 1
            assert told["permanent"]["newest"] | {"event_id": ""} == {
                "event_id": "", "correlation_id": "c-7", "target": "one", "status": 422, "code": "",
            }  # fmt: skip
            assert told["invalid"]["count"] == 2
            assert told["invalid"]["newest"]["code"] == "invalid_body"
            await eventually(
                lambda: gateway.metric("gateway_delivery_alerts_total", result="sent") == 2
            )
            letters = "gateway_delivery_dead_letters_total"
            assert gateway.metric(letters, reason="invalid") == 2
