"""Flows over real gateways, a real store and upstreams that answer what a test says."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.delivery.event import decode_record, encode
from gateway.delivery.journal import Entry
from gateway.delivery.queue import Queue
from gateway.delivery.status import TargetStatus, read, status_of
from gateway.delivery.timeline import make_timeline, render
from gateway.delivery.trail import of_transaction
from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import VALKEY, Server, opened, serving, stopped
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import Peer, Received, ScriptedUpstream, respond

ORDER = {"sku": "a/1", "total": 12}
JSON = (b"Content-Type: application/json",)


class Services:
    """An upstream with many paths. `answers` are those of a path, in turn, the last one again and
    again; each is a status and data, "reset", or a future to wait for. 200 and {} without any.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.calls: list[Received] = []
        self.asked = asyncio.Event()

    def on(self, target: str, *answers: Any) -> None:
        self.answers[target] = list(answers)

    @property
    def asked_for(self) -> list[str]:
        return [call.target for call in self.calls]

    def keys(self, target: str) -> list[str | None]:
        return [call.get("idempotency-key") for call in self.calls if call.target == target]

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.calls.append(request)
            self.asked.set()
            turns = self.answers.get(request.target, [(200, {})])
            answer = turns.pop(0) if len(turns) > 1 else turns[0]
            if isinstance(answer, asyncio.Future):
                answer = await asyncio.shield(answer)
            if answer == "reset":
                peer.reset()
                return
            status, data = answer[0], answer[1]
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            fields = answer[2] if len(answer) > 2 else ()
            await peer.send(respond(body, f"{status} X", *JSON, *fields))


@asynccontextmanager
async def services() -> AsyncIterator[tuple[Services, ScriptedUpstream]]:
    script = Services()
    async with ScriptedUpstream(script) as upstream:
        yield script, upstream


def config(
    store: Server, upstream: ScriptedUpstream, flow: str, *, delivery: str = "", extra: str = ""
) -> str:
    """A route `orders` whose events go through the steps of `flow`."""
    steps = textwrap.indent(textwrap.dedent(flow), " " * 8)
    return f"""\
store: {{url: "{store.unix}", timeout: 2s}}
upstreams:
  api: {{targets: ["{upstream.url}"]{extra}}}
telemetry: {{access_log: null, audit: {{retention: 1h}}}}
routes:
  - name: orders
    match: {{path: "/orders"}}
    upstream: api
    delivery:
      schedule: [20ms]
      attempts: 3
      {delivery}
      flow:
{steps}
"""


SAGA = """\
- name: reserve
  path: /reserve
  body: {sku: =body.sku}
  compensate: {path: "/release/{id}", params: {id: =steps.reserve.body.id}, method: DELETE}
- name: vip
  path: /vip
  when: body.total > 100
- name: charge
  path: /charge
  body: {reservation: =steps.reserve.body.id, amount: =body.total}
  compensate: {path: /refund, body: {payment: =steps.charge.body.id}}
- name: ship
  path: /ship
"""


async def accepted(gateway: RunningGateway, client: httpx.AsyncClient, **headers: str) -> Any:
    answer = await client.post("/orders", json=ORDER, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def settled(client: httpx.AsyncClient, event: Any) -> Any:
    """The status of the flow, once it has one."""
    return (await status(client, event, lambda found: found["state"] != "accepted"))["targets"][0]


async def letter(store: Server, folder: Path, event: Any) -> TargetStatus:
    """The flow's dead letter with all that operators see."""
    async with opened(store.unix, folder) as link:
        stored = read(event["event_id"], await Queue(link, 0).fields(event["event_id"]))
    assert stored is not None
    (found,) = status_of(stored, full=True).targets
    assert found.state == "dead"
    return found


async def replay(store: Server, folder: Path, event: Any) -> None:
    """Send a dead letter on its way again, in the next epoch."""
    name = event["event_id"]
    async with opened(store.unix, folder) as link:
        queue = Queue(link, 0)
        key = queue.key("event", name)
        fields = await queue.fields(name)
        record = decode_record(fields[b"t:flow"])
        record.epoch, record.attempts, record.begun_at = record.epoch + 1, 0, 0.0
        await link.call("HSET", key, "t:flow", encode(record), "s:flow", "q", "open", 1, "dead", 0)
        await link.call("ZREM", queue.key("dead", "orders"), fields[b"x:flow"])
        await link.call("ZADD", queue.key("open", "orders/flow"), 1, name)
        await link.call("XADD", queue.key("ready", "orders/flow"), "*", "e", name)


async def trail(store: Server, folder: Path, correlation_id: str) -> list[Entry]:
    """The audit's entries."""
    async with opened(store.unix, folder) as link:
        return await of_transaction(Queue(link, 0), correlation_id)


async def status(
    client: httpx.AsyncClient, event: Any, holds: Callable[[Any], bool] = lambda _: True
) -> Any:
    async with asyncio.timeout(20):
        while True:
            found = (await client.get(event["status_url"])).json()
            if holds(found):
                return found
            await asyncio.sleep(0.02)


def states(target: Any) -> dict[str, str]:
    return {step["name"]: step["state"] for step in target["steps"]}


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
        await replay(store, tmp_path, event)
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

        await replay(store, tmp_path, event)
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
        await replay(store, tmp_path, event)
        flow = await settled(client, event)
        assert script.asked_for == ["/refund", "/release/r"]
        assert script.keys("/refund") == [f'"{event["event_id"]}.2:charge:compensate"']
        assert (flow["state"], flow.get("code"), flow["status"]) == ("dead", None, 400)


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
        await replay(store, tmp_path, event)
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
    async with serving(VALKEY, tmp_path / "store") as store, services() as (script, upstream):
        upstreams = "".join(
            f'  {name}: {{targets: ["{upstream.url}"]}}\n' for name in ("shop", "stock", "billing")
        )
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
