"""An asynchronous route whose upstreams a test can make fail, and what operators ask about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.admin.control import DeliveryAnswer, DeliveryCall
from tests.store.servers import VALKEY, Server, opened, serving
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import Peer, Received, ScriptedUpstream, respond


class Shop:
    """Two upstreams, told apart by the path they are asked for: what they got, what they answer."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        self.got: list[Received] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.got.append(request)
            await self.go.wait()
            await peer.send(respond(b"said", self.statuses.get(request.target, "200 OK")))

    def keys(self, path: str) -> list[str]:
        """The idempotency keys that came there."""
        return [each.get("idempotency-key") or "" for each in self.got if each.target == path]

    def bodies(self, path: str) -> list[Any]:
        """The bodies that came there."""
        return [json.loads(each.body) for each in self.got if each.target == path]


REFUSES = "422 Unprocessable Content"


class House:
    """A gateway with such a route, its store, and its upstreams."""

    def __init__(self, gateway: RunningGateway, store: Server, shop: Shop, url: str) -> None:
        self.gateway = gateway
        self.store = store
        self.shop = shop
        self.url = url
        self.client: httpx.AsyncClient

    async def ask(self, name: str, **params: Any) -> dict[str, Any]:
        """What an operation gives, as JSON has it."""
        found = await self.answer(name, **params)
        assert found.state == "done", found
        data: dict[str, Any] = json.loads(msgspec.json.encode(found.data))
        return data

    async def answer(self, name: str, **params: Any) -> DeliveryAnswer:
        by = "tester" if name in ("letters.replay", "letters.purge") else ""
        return await self.gateway.plane.delivery(DeliveryCall(name, params, by))

    async def letters(self, **params: Any) -> list[dict[str, Any]]:
        """All that are meant."""
        found: list[dict[str, Any]] = (await self.ask("letters.list", **params))["letters"]
        return found

    async def post(self, body: Any = None, path: str = "/hooks", **fields: str) -> str:
        """Send an event, and give its id."""
        sent = await self.client.post(path, json={} if body is None else body, headers=fields)
        assert sent.status_code == 202, sent.text
        return str(sent.json()["event_id"])

    async def settled(self, **results: int) -> None:
        """Wait until so many attempts ended so: dead=2, delivered=1."""
        name = "gateway_delivery_attempts_total"
        await eventually(
            lambda: all(
                self.gateway.metric(name, result=result) >= count
                for result, count in results.items()
            )
        )

    async def status(self, event: str) -> dict[str, Any]:
        """`letters.show`, its status."""
        found: dict[str, Any] = (await self.ask("letters.show", event=event))["status"]
        return found

    async def store_call(self, *parts: Any) -> Any:
        async with opened(self.store.unix, self.store.folder) as store:
            return await store.call(*parts)


def config(store: str, upstream: str, delivery: str, options: str = "", extra: str = "") -> str:
    """The route `hooks`; its targets are `one` and `two`, which are asked for /one and /two."""
    return f"""\
store: {{url: "{store}", timeout: 500ms}}
upstreams:
  shop: {{targets: ["{upstream}"]}}
routes:
  - name: hooks
    match: {{path: "/hooks", methods: [POST]}}
    {options}
    delivery:
      to: [{{name: one, upstream: shop, path: /one}}, {{name: two, upstream: shop, path: /two}}]
      {delivery}
{extra}"""


@asynccontextmanager
async def house(
    folder: Path, delivery: str = "attempts: 1", options: str = "", extra: str = ""
) -> AsyncIterator[House]:
    """Run it all until the block ends. UPSTREAM in what is given stands for the upstream's URL."""
    shop = Shop()
    async with (
        serving(VALKEY, folder / "store") as store,
        ScriptedUpstream(shop) as upstream,
        run_gateway(
            folder,
            config(store.unix, upstream.url, delivery, options, extra).replace(
                "UPSTREAM", upstream.url
            ),
        ) as gateway,
        gateway.client() as client,
    ):
        made = House(gateway, store, shop, upstream.url)
        made.client = client
        yield made
