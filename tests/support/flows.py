"""Flows under test: an upstream with many paths, a route with steps, what became of its events."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.admin.control import DeliveryCall
from gateway.delivery.audit_entry import Entry
from gateway.delivery.queue import Queue
from gateway.delivery.status import TargetStatus, read, status_of
from gateway.delivery.trail import of_transaction
from tests.store.servers import Server, opened
from tests.support.gateway import RunningGateway
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


async def replay(gateway: RunningGateway, event: Any) -> None:
    """Send a dead letter on its way again, as an operator does."""
    order = DeliveryCall("letters.replay", {"event": event["event_id"]}, "tester")
    answer = await gateway.plane.delivery(order)
    assert answer.state == "done", answer


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
