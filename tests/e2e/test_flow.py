"""Flows over real gateways, a real store and upstreams that answer what a test says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway.delivery.timeline import make_timeline, render
from tests.store.servers import VALKEY, serving, stopped
from tests.support.flows import (
    ORDER,
    SAGA,
    accepted,
    config,
    letter,
    services,
    settled,
    states,
    status,
    trail,
)
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import ScriptedUpstream


async def test_a_flow_takes_its_steps_in_order(tmp_path: Path) -> None:
    """Each with a key of its own, made of the event and of what earlier steps answered."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, SAGA)) as gateway,
        gateway.client() as client,
    ):
        script.on("/reserve", (201, {"id": "r/7 ?"}))
        event = await accepted(gateway, client, **{"X-Correlation-ID": "c-1"})
        flow = await settled(client, event)

        assert (flow["target"], flow["state"], flow["status"]) == ("flow", "delivered", 200)
        assert script.asked_for == ["/reserve", "/charge", "/ship"]
        assert [json.loads(call.body) for call in script.calls] == [
            {"sku": "a/1"}, {"reservation": "r/7 ?", "amount": 12}, ORDER,
        ]  # fmt: skip
        assert states(flow) == {
            "reserve": "done", "vip": "skipped", "charge": "done", "ship": "done",
        }  # fmt: skip
        key = event["event_id"]
        assert script.keys("/charge") == [f'"{key}:charge"']
        assert {call.get("x-lockgate-event") for call in script.calls} == {key}
        assert {call.get("x-correlation-id") for call in script.calls} == {"c-1"}
        assert gateway.metric("gateway_delivery_steps_total", step="vip", result="skipped") == 1
        assert gateway.metric("gateway_delivery_step_seconds", route="orders") == 3
        entries = await trail(store, tmp_path, "c-1")
        told = [(entry.kind, entry.step, entry.verdict) for entry in entries]
        assert told == [
            ("accepted", "", ""), ("step", "reserve", "done"), ("step", "vip", "skipped"),
            ("step", "charge", "done"), ("step", "ship", "done"), ("attempt", "", "delivered"),
        ]  # fmt: skip
        lines = "\n".join(render(make_timeline(entries), "c-1"))
        assert "step reserve: done 201" in lines


async def test_what_fails_for_a_while_is_tried_again(tmp_path: Path) -> None:
    """With the same key; steps that were done are not taken again."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, SAGA)) as gateway,
        gateway.client() as client,
    ):
        script.on("/reserve", (201, {"id": 7.0}))
        script.on("/charge", (503, {}), "reset", (200, {"id": "p"}))
        event = await accepted(gateway, client, **{"X-Correlation-ID": "c-1"})
        flow = await settled(client, event)

        assert flow["state"] == "delivered"
        assert script.asked_for == ["/reserve", "/charge", "/charge", "/charge", "/ship"]
        assert len(set(script.keys("/charge"))) == 1
        attempts = [call.get("x-lockgate-attempt") for call in script.calls]
        assert attempts == ["1", "1", "2", "3", "1"]
        assert [step["attempts"] for step in flow["steps"] if step["name"] == "charge"] == [3]
        entries = await trail(store, tmp_path, "c-1")
        charges = [
            (entry.attempt, entry.verdict, entry.status, entry.code, entry.due_in)
            for entry in entries
            if entry.step == "charge"
        ]
        assert charges == [
            (1, "retried", 503, "", 0.02),
            (2, "retried", 0, "upstream_reset", 0.02),
            (3, "done", 200, "", 0.0),
        ]


async def test_a_wait_outlives_the_gateway(tmp_path: Path) -> None:
    """It is spent in the store, and another gateway goes on when it is over."""
    flow = """\
- {name: first, path: /first}
- {name: pause, wait: "=steps.first.body.seconds"}
- {name: last, path: /last}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
    ):
        text = config(store, upstream, flow)
        script.on("/first", (200, {"seconds": 0.5}))
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            event = await accepted(gateway, client)
            begun = asyncio.get_running_loop().time()
            await status(client, event, lambda found: found["targets"][0]["state"] == "waiting")
        assert script.asked_for == ["/first"]
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            assert (await settled(client, event))["state"] == "delivered"
        assert asyncio.get_running_loop().time() - begun > 0.4
        assert script.asked_for == ["/first", "/last"]


async def test_a_gateway_that_stops_hands_the_step_over(tmp_path: Path) -> None:
    """A step that is cut off by the end of the gateway is taken again, with the same key."""
    flow = "- {name: only, path: /only, timeout: 5s}\n"
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
    ):
        text = config(store, upstream, flow)
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        script.on("/only", never, (200, {}))
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            event = await accepted(gateway, client)
            await asyncio.wait_for(script.asked.wait(), 20)
            (target,) = (await status(client, event))["targets"]
            assert target["state"] == "running"
            for plan, worker in _lanes(gateway):
                await worker.finish(plan, 0.0)
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            assert (await settled(client, event))["state"] == "delivered"
        assert len(set(script.keys("/only"))) == 1
        never.cancel()


def _lanes(gateway: RunningGateway) -> list[Any]:
    found = []
    for _, dispatcher in gateway.runtime.known("delivery"):
        for worker in dispatcher._lanes.values():
            found += [(plan, worker) for plan in worker.plans]
    return found


async def test_an_open_breaker_pauses_the_flow(tmp_path: Path) -> None:
    """No attempt is spent on it, and the step is taken when the upstream is back."""
    breaker = ", circuit_breaker: {min_requests: 1, open_for: 200ms, probes: 1}"
    flow = "- {name: a, path: /a}\n- {name: b, path: /b, retry: {attempts: 2}}\n"
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow, extra=breaker)) as gateway,
        gateway.client() as client,
    ):
        script.on("/b", (503, {}), (200, {}))
        flow_status = await settled(client, await accepted(gateway, client))
        assert flow_status["state"] == "delivered"
        assert script.asked_for == ["/a", "/b", "/b"]
        assert [step["attempts"] for step in flow_status["steps"]] == [1, 2]
        assert gateway.metric("gateway_delivery_attempts_total", result="paused") >= 1


async def test_a_step_is_asked_until_its_answer_fits(tmp_path: Path) -> None:
    """A status that is no success may be expected, and an answer that does not fit yet is none."""
    flow = """\
- name: poll
  method: GET
  path: /poll
  expect: [200, 404]
  until: steps.poll.body.state == "ready"
- {name: b, path: /b, body: {n: =steps.poll.body.n}}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        script.on(
            "/poll", (404, b"none"), (200, {"state": "busy"}), (200, {"state": "ready", "n": 1})
        )
        flow_status = await settled(client, await accepted(gateway, client))
        assert flow_status["state"] == "delivered"
        assert [step["attempts"] for step in flow_status["steps"]] == [3, 1]
        assert json.loads(script.calls[3].body) == {"n": 1}
        assert script.calls[0].body == b""


async def test_a_flow_beside_targets(tmp_path: Path) -> None:
    """It is one more target: each succeeds or fails alone."""
    flow = "- {name: a, path: /a}\n"
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(
            tmp_path, config(store, upstream, flow, delivery="to: [{upstream: api, path: /inbox}]")
        ) as gateway,
        gateway.client() as client,
    ):
        script.on("/inbox", (400, {}))
        event = await accepted(gateway, client)
        assert event["targets"] == {"api": "queued", "flow": "queued"}
        found = await status(client, event, lambda found: found["state"] != "accepted")
        assert {each["target"]: each["state"] for each in found["targets"]} == {
            "api": "dead", "flow": "delivered",
        }  # fmt: skip


EXAMPLE = (
    (Path(__file__).parents[2] / "docs/flows.md")
    .read_text()
    .partition("```yaml\n")[2]
    .partition("```")[0]
    .replace("15m", "20ms")
    .replace("[30s]", "[20ms]")
)


async def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """A large order that is approved after a while and then can't be shipped; and a small one."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, shop),
        ScriptedUpstream(script) as stock,
        ScriptedUpstream(script) as billing,
    ):
        named = (("shop", shop), ("stock", stock), ("billing", billing))
        upstreams = "".join(f'  {name}: {{targets: ["{each.url}"]}}\n' for name, each in named)
        text = f'store: {{url: "{store.unix}", timeout: 2s}}\nupstreams:\n{upstreams}{EXAMPLE}'
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            script.on("/reservations", (201, {"id": "r1"}))
            script.on("/reservations/r1", (404, {}))
            script.on("/payments", (200, {"id": "p1"}))
            script.on("/approvals/7", (200, {"state": "open"}), (200, {"state": "granted"}))
            script.on("/shipments", (409, {}))
            order = {"order_id": 7, "sku": "a", "count": 2, "total": 2000}
            event = (await client.post("/orders", json=order)).json()
            flow = await settled(client, event)
            assert script.asked_for == [
                "/reservations", "/payments", "/approvals/7", "/approvals/7", "/shipments",
                "/refunds", "/reservations/r1",
            ]  # fmt: skip
            # A compensation goes where its step went, unless it says otherwise.
            assert [call.target for call in stock.requests] == ["/reservations", "/reservations/r1"]
            assert [call.target for call in billing.requests] == ["/payments", "/refunds"]
            assert states(flow)["reserve"] == "compensated"
            found = await letter(store, tmp_path, event)
            assert found.detail == (
                'step "ship" failed (409, permanent); compensated: charge, reserve'
            )

            script.calls.clear()
            script.on("/shipments", (201, {}))
            event = (await client.post("/orders", json={**order, "total": 20})).json()
            assert (await settled(client, event))["state"] == "delivered"
            assert script.asked_for == ["/reservations", "/payments", "/shipments"]


async def test_what_was_done_while_the_store_was_away_is_written_down_later(tmp_path: Path) -> None:
    """And is not done again meanwhile."""
    flow = "- {name: a, path: /a}\n- {name: b, path: /b}\n"
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        later: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        script.on("/a", later)
        event = await accepted(gateway, client)
        await asyncio.wait_for(script.asked.wait(), 20)
        with stopped(store):
            later.set_result((200, {}))
            # Longer than a call to the store may take.
            await asyncio.sleep(2.3)
            assert script.asked_for == ["/a"]
        assert (await settled(client, event))["state"] == "delivered"
        assert script.asked_for == ["/a", "/b"]


async def test_two_gateways_share_the_flows(tmp_path: Path) -> None:
    """Each step is taken once, by one of them."""
    flow = "- {name: a, path: /a}\n- {name: pause, wait: 20ms}\n- {name: b, path: /b}\n"
    (tmp_path / "two").mkdir()
    async with serving(VALKEY, tmp_path / "store") as store, services() as (script, upstream):
        text = config(store, upstream, flow, delivery="concurrency: 3")
        async with (
            run_gateway(tmp_path, text) as one,
            run_gateway(tmp_path / "two", text) as two,
            one.client() as client,
        ):
            # Three at once in each of them: six wait for an answer only if both have some.
            both: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            script.on("/a", both)
            events = [await accepted(one, client) for _ in range(20)]
            await eventually(lambda: len(script.calls) == 6)
            both.set_result((200, {}))
            for event in events:
                assert (await settled(client, event))["state"] == "delivered"
            for target in ("/a", "/b"):
                keys = script.keys(target)
                assert len(keys) == len(set(keys)) == 20
            for gateway in (one, two):
                assert gateway.metric("gateway_delivery_steps_total", result="done") > 0
