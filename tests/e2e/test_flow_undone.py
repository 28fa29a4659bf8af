"""Flows that fail, are undone, replayed, or meet another definition."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import VALKEY, serving
from tests.support.flows import (
    ORDER,
    SAGA,
    accepted,
    config,
    letter,
    replay,
    services,
    settled,
    states,
    status,
)
from tests.support.gateway import run_gateway


async def test_a_refused_step_has_the_others_undone_backwards(tmp_path: Path) -> None:
    """The last one first, each with a key of its own; a replay then begins anew."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, SAGA)) as gateway,
        gateway.client() as client,
    ):
        script.on("/reserve", (201, {"id": "../r 7"}))
        script.on("/charge", (200, {"id": "p-1"}))
        script.on("/ship", (409, {"why": "no address"}), (200, {}))
        event = await accepted(gateway, client)
        flow = await settled(client, event)

        key = event["event_id"]
        assert script.asked_for == [
            "/reserve", "/charge", "/ship", "/refund", "/release/..%2Fr%207",
        ]  # fmt: skip
        assert json.loads(script.calls[3].body) == {"payment": "p-1"}
        release = script.calls[4]
        assert (release.method, release.body) == ("DELETE", b"")
        assert release.get("content-type") is None
        assert release.get("idempotency-key") == f'"{key}:reserve:compensate"'
        assert (flow["state"], flow["reason"], flow["status"]) == ("dead", "permanent", 409)
        assert states(flow) == {
            "reserve": "compensated", "vip": "skipped", "charge": "compensated", "ship": "failed",
        }  # fmt: skip
        found = await letter(store, tmp_path, event)
        assert found.detail == 'step "ship" failed (409, permanent); compensated: charge, reserve'
        assert json.loads(found.answer) == {"why": "no address"}

        script.calls.clear()
        await replay(gateway, event)
        flow = await settled(client, event)
        assert (flow["state"], script.asked_for) == ("delivered", ["/reserve", "/charge", "/ship"])
        assert script.keys("/charge") == [f'"{key}.2:charge"']


async def test_nothing_undone_means_that_a_replay_goes_on(tmp_path: Path) -> None:
    """At the step that failed, with what the earlier ones answered."""
    flow = """\
- name: reserve
  path: /reserve
- name: ship
  path: /ship
  body: {reservation: =steps.reserve.body.id, by: "=steps.reserve.headers['x-by']"}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        script.on("/reserve", (201, {"id": 7}, (b"X-By: me",)))
        script.on("/ship", (422, {}), (200, {}))
        event = await accepted(gateway, client)
        await settled(client, event)
        found = await letter(store, tmp_path, event)
        assert found.detail == 'step "ship" failed (422, permanent); nothing was compensated'

        await replay(gateway, event)
        assert (await settled(client, event))["state"] == "delivered"
        assert script.asked_for == ["/reserve", "/ship", "/ship"]
        assert json.loads(script.calls[2].body) == {"reservation": 7, "by": "me"}
        assert script.calls[2].get("idempotency-key") == f'"{event["event_id"]}.2:ship"'


async def test_a_compensation_that_fails_is_told_and_goes_on_when_replayed(tmp_path: Path) -> None:
    """Nothing further is undone, and nothing is done anew before all is undone."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, SAGA)) as gateway,
        gateway.client() as client,
    ):
        script.on("/reserve", (201, {"id": "r"}))
        script.on("/charge", (200, {"id": "p"}))
        script.on("/ship", (400, {}))
        script.on("/refund", (500, {}), (500, {}), (500, {}), (200, {}))
        event = await accepted(gateway, client)
        flow = await settled(client, event)

        assert script.asked_for == ["/reserve", "/charge", "/ship", *["/refund"] * 3]
        assert len(set(script.keys("/refund"))) == 1
        assert (flow["code"], flow["reason"], flow["status"]) == (
            "compensation_failed", "permanent", 500,
        )  # fmt: skip
        assert states(flow)["charge"] == "stuck"
        found = await letter(store, tmp_path, event)
        assert found.detail == (
            'step "ship" failed (400, permanent); compensating "charge" failed (500, exhausted); '
            "still to be compensated: charge, reserve"
        )
        metric = "gateway_delivery_steps_total"
        assert gateway.metric(metric, step="charge", result="compensation_failed") == 1

        script.calls.clear()
        await replay(gateway, event)
        flow = await settled(client, event)
        assert script.asked_for == ["/refund", "/release/r"]
        assert script.keys("/refund") == [f'"{event["event_id"]}.2:charge:compensate"']
        assert (flow["state"], flow.get("code"), flow["status"]) == ("dead", None, 400)


async def test_a_killed_gateway_s_flow_goes_on_at_the_step_under_way(tmp_path: Path) -> None:
    """With the same key, by another gateway; what had been done is not done again."""
    flow = """\
- name: first
  path: /first
  compensate: {path: /undo-first}
- name: second
  path: /second
  compensate: {path: /undo-second, when_unsure: true}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
    ):
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        script.on("/second", never, (403, {}))
        text = config(store, upstream, flow, delivery="lease: 1s")
        file = tmp_path / "first.yaml"
        file.write_text(
            f'version: 1\nserver: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}\n{text}'
        )
        async with gateway_process(file) as process:
            async with httpx.AsyncClient(base_url=process.url) as client:
                event = (await client.post("/orders", json=ORDER)).json()
            async with asyncio.timeout(20):
                while "/second" not in script.asked_for:
                    await asyncio.sleep(0.01)
            process.signal(9)
            await process.exit_code()
        never.cancel()
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            flow_status = await settled(client, event)
        # Refused the second time; but nobody knows of the first, so it is undone as well.
        assert script.asked_for == ["/first", "/second", "/second", "/undo-second", "/undo-first"]
        assert script.keys("/second") == [f'"{event["event_id"]}:second"'] * 2
        assert states(flow_status) == {"first": "compensated", "second": "compensated"}


async def test_a_reload_changes_the_steps_that_are_to_come(tmp_path: Path) -> None:
    """What is done stays done; what is still to come goes by the new definition."""
    flow = "- {name: a, path: /a}\n- {name: pause, wait: 100ms}\n- {name: b, path: /b}\n"
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        event = await accepted(gateway, client)
        await status(client, event, lambda found: found["targets"][0]["state"] == "waiting")
        await gateway.reload(config(store, upstream, flow.replace("/a", "/A").replace("/b", "/B")))
        assert (await settled(client, event))["state"] == "delivered"
        assert script.asked_for == ["/a", "/B"]


async def test_a_flow_that_no_longer_fits_is_given_up_and_can_be_replayed(tmp_path: Path) -> None:
    """A step that was done and is gone could not be undone: nothing is guessed."""
    flow = """\
- {name: a, path: /a, compensate: {path: /undo}}
- {name: pause, wait: 100ms}
- {name: b, path: /b}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        event = await accepted(gateway, client)
        await status(client, event, lambda found: found["targets"][0]["state"] == "waiting")
        await gateway.reload(config(store, upstream, flow.replace("name: a", "name: z")))
        flow_status = await settled(client, event)
        assert (flow_status["reason"], flow_status["code"]) == ("internal", "flow_changed")
        # Tried again first: another gateway might have known it.
        assert flow_status["attempts"] == 3
        found = await letter(store, tmp_path, event)
        assert found.detail == '"a" may have to be undone, and is gone'

        await gateway.reload(config(store, upstream, flow))
        await replay(gateway, event)
        assert (await settled(client, event))["state"] == "delivered"
        assert script.asked_for == ["/a", "/b"]


async def test_max_total_ends_a_flow_and_has_it_undone(tmp_path: Path) -> None:
    """A step that never succeeds takes no longer than that, however many attempts it has."""
    flow = """\
- {name: a, path: /a, compensate: {path: /undo}}
- {name: b, path: /b, retry: {attempts: 1000, schedule: [100ms]}}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow, delivery="max_total: 1s")) as gateway,
        gateway.client() as client,
    ):
        script.on("/b", (503, {}))
        flow_status = await settled(client, await accepted(gateway, client))
        assert (flow_status["reason"], flow_status["status"]) == ("expired", 503)
        assert script.asked_for[0 :: len(script.calls) - 1] == ["/a", "/undo"]


async def test_an_answer_that_can_t_be_kept_has_the_step_undone(tmp_path: Path) -> None:
    """The step was carried out, so it is undone as well, though nothing of its answer is there."""
    flow = """\
- {name: a, path: /a, compensate: {path: /undo}}
- {name: b, path: /b, body: {x: =steps.a.body}}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        script.on("/a", (200, "x" * 65536))
        event = await accepted(gateway, client)
        flow_status = await settled(client, event)
        assert (flow_status["code"], flow_status["reason"]) == ("answer_unusable", "permanent")
        assert script.asked_for == ["/a", "/undo"]


async def test_what_an_answer_lacks_makes_the_event_invalid(tmp_path: Path) -> None:
    """What can't be made of it is not sent, and what was done is undone."""
    flow = """\
- {name: a, path: /a, compensate: {path: /undo}}
- {name: b, path: "/b/{x}", params: {x: =steps.a.body.x}}
"""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        services() as (script, upstream),
        run_gateway(tmp_path, config(store, upstream, flow)) as gateway,
        gateway.client() as client,
    ):
        for answer, detail in (
            ({}, "=steps.a.body.x: there is no 'x'"),
            ({"x": ".."}, "params.x can't stand in a path"),
            ({"x": []}, "params.x is neither text nor a number"),
        ):
            script.calls.clear()
            script.on("/a", (200, answer))
            event = await accepted(gateway, client)
            flow_status = await settled(client, event)
            assert (flow_status["code"], flow_status["reason"]) == ("mapping_failed", "invalid")
            assert detail in (await letter(store, tmp_path, event)).detail
            assert script.asked_for == ["/a", "/undo"]
