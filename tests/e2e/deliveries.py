"""Gateways with an asynchronous route, for the tests of what becomes of its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.delivery.queue import Queue
from gateway.delivery.queued import Lane
from tests.store.servers import VALKEY, Server, opened, serving
from tests.support.gateway import RunningGateway
from tests.support.scripted import ScriptedUpstream

WAIT_S = 20.0


def config(
    upstream: ScriptedUpstream,
    store: Server | str,
    delivery: str = "{}",
    *,
    route: str = "",
    extra: str = "",
    api: str = "",
) -> str:
    """A route `hooks` at /hooks. `route` are further lines of it, `api` further keys of its
    upstream, `extra` lines at the end of the file.
    """
    url = store if isinstance(store, str) else store.unix
    return f"""\
store: {{url: "{url}", timeout: 500ms}}
upstreams:
  api: {{targets: ["{upstream.url}"]{api and ", " + api}}}
routes:
  - name: hooks
    match: {{path: /hooks, methods: [POST]}}
    upstream: api
    delivery: {delivery}
{route}
{extra}
"""


@asynccontextmanager
async def store_in(folder: Path, *options: str) -> AsyncIterator[Server]:
    async with serving(VALKEY, folder / "store", *options) as server:
        yield server


async def send(client: httpx.AsyncClient, body: Any = None, **headers: str) -> dict[str, Any]:
    """Have an event accepted; what the answer says."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    got = await client.post("/hooks", json={} if body is None else body, headers=fields)
    assert got.status_code == 202, got.text
    return dict(got.json())


async def look(client: httpx.AsyncClient, event_id: str) -> dict[str, Any]:
    """The status of an event."""
    got = await client.get(f"/hooks/{event_id}")
    assert got.status_code == 200, got.text
    return dict(got.json())


async def settled(client: httpx.AsyncClient, event_id: str) -> dict[str, Any]:
    """The status once nothing is to come any more."""
    async with asyncio.timeout(WAIT_S):
        while (found := await look(client, event_id))["state"] == "accepted":
            await asyncio.sleep(0.01)
    return found


async def target(client: httpx.AsyncClient, event_id: str, name: str = "api") -> dict[str, Any]:
    """How far one target of an event is."""
    return next(e for e in (await look(client, event_id))["targets"] if e["target"] == name)


async def until_state(client: httpx.AsyncClient, event_id: str, state: str) -> dict[str, Any]:
    """Wait for a state of the target `api`."""
    async with asyncio.timeout(WAIT_S):
        while (found := await target(client, event_id))["state"] != state:
            await asyncio.sleep(0.01)
    return found


@asynccontextmanager
async def queue_of(store: Server) -> AsyncIterator[Queue]:
    """The queues, from outside."""
    async with opened(store.unix, store.folder) as found:
        yield Queue(found, 0.0)


async def clean(store: Server, *lanes: Lane) -> None:
    """Nothing is left in the queues of these lanes, of `api` if none is given."""
    async with queue_of(store) as queue:
        for lane in lanes or (Lane("hooks", "api"),):
            for kind, command in (("open", "ZCARD"), ("later", "ZCARD"), ("ready", "XLEN"),
                                  ("again", "XLEN")):  # fmt: skip
                count = await queue.store.call(command, queue.key(kind, lane.name))
                assert count == 0, (kind, lane)


def rows(gateway: RunningGateway, name: str, **labels: str) -> float:
    """A metric of the deliveries."""
    return gateway.metric(f"gateway_delivery_{name}", **labels)


def as_text(value: object) -> str:
    """For configurations: JSON is YAML."""
    return json.dumps(value)
