"""Flags on routes and policies, changed while gateways serve; several gateways on one store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin.control import FlagOrder
from gateway.errors import ConfigError
from tests.e2e.conftest import Serve
from tests.run.gateway_process import GatewayProcess
from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import VALKEY, Server, serving, stopped
from tests.support.gateway import RunningGateway, run_gateway, within

ROUTES = """\
routes:
  - name: new
    match: {path: /new}
    respond: {status: 200, body: new}
    flag: new
  - name: all
    match: {path: "/{rest:path}"}
    respond: {status: 200, body: all}
"""


def config(flag: str, store: Server | None = None, routes: str = ROUTES) -> str:
    shared = f'store: {{url: "{store.unix}", timeout: 300ms}}\n' if store is not None else ""
    return f"{shared}flags: {{new: {flag}}}\n{routes}"


async def order(gateway: RunningGateway, value: Any) -> str:
    return (await gateway.plane.order_flag(FlagOrder("new", value))).state


async def value(gateway: RunningGateway) -> Any:
    (flag,) = await gateway.plane.flags()
    return flag["value"]


@asynccontextmanager
async def store_in(folder: Path) -> AsyncIterator[Server]:
    async with serving(VALKEY, folder / "store") as server:
        yield server


async def test_a_route_that_is_switched(serve: Serve) -> None:
    """Off, it is not there: 404 in the words of a path without a route; on, it is."""
    async with serve(config("off")) as gateway, gateway.client() as client:
        off = await client.get("/new")
        assert off.status_code == 404
        assert off.json()["code"] == "route_not_found"
        assert await order(gateway, "on") == "done"
        assert (await client.get("/new")).text == "new"
        assert gateway.metric("gateway_flag_share", flag="new") == 1
        # A reload leaves the order alone; taking it back has the configuration hold again.
        await gateway.reload(config("10%"))
        assert await value(gateway) == "on"
        await gateway.plane.order_flag(FlagOrder("new", reset=True))
        assert await value(gateway) == "10%"
        await gateway.reload(config("on"))
        assert (await client.get("/new")).text == "new"
        await gateway.quiet()


async def test_what_is_no_order(serve_lean: Serve) -> None:
    """Nothing changes for a value that is none, or a flag that is unknown."""
    async with serve_lean(config("off")) as gateway:
        assert await order(gateway, "maybe") == "invalid"
        assert (await gateway.plane.order_flag(FlagOrder("old", "on"))).state == "unknown"
        assert await value(gateway) == "off"
        await gateway.reload(ROUTES.replace("    flag: new\n", ""))
        assert await order(gateway, "on") == "unknown"
        assert list(await gateway.plane.flags()) == []


async def test_a_route_for_a_group(serve: Serve) -> None:
    """Known callers of the group get it, known others 404; who they are is asked first."""
    keys = {name: f"key-of-{name}-0123456789abcdef0123" for name in ("crm", "erp")}
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    text = config("{tags: [beta]}", routes=ROUTES.replace("    flag: new\n", """\
    flag: new
    auth: {any: [keys]}
""")) + f"""\
consumers: {{crm: {{tags: [beta]}}, erp: {{}}}}
identities:
  keys:
    type: api_key
    keys:
      - {{consumer: crm, hash: "sha256:{hashes["crm"]}"}}
      - {{consumer: erp, hash: "sha256:{hashes["erp"]}"}}
"""  # fmt: skip
    async with serve(text) as gateway, gateway.client() as client:
        codes = {
            name: (await client.get("/new", headers={"X-API-Key": key})).status_code
            for name, key in {**keys, "nobody": "x"}.items()
        }
        assert codes == {"crm": 200, "erp": 404, "nobody": 401}
        # Off for everybody, nobody is even asked.
        await order(gateway, "off")
        assert (await client.get("/new")).status_code == 404


async def test_a_policy_that_is_switched(serve: Serve) -> None:
    """Guards and what stands around the call take part where the flag is on, and only there."""
    routes = """\
routes:
  - name: all
    match: {path: "/{rest:path}"}
    respond: {status: 200, body: all}
    headers: {response: {set: {X-New: "1"}}, flag: new}
    body: {max: 3B, flag: new}
"""
    async with (
        serve(config("{header: {X-Try: yes}}", routes=routes)) as gateway,
        gateway.client() as client,
    ):
        plain = await client.post("/a", content=b"1234")
        refused = await client.post("/a", content=b"1234", headers={"X-Try": "yes"})
        edited = await client.post("/a", content=b"123", headers={"X-Try": "yes"})
        assert (plain.status_code, "x-new" in plain.headers) == (200, False)
        assert refused.status_code == 413
        assert edited.headers["x-new"] == "1"
        (route,) = await gateway.plane.routes()
        flags = {policy.name: policy.flag for policy in route.chain}
        assert flags["headers"] == flags["body"] == "new"


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ("flag: nwe", r'routes\[0\].flag: there is no flag "nwe"'),
        ("body: {max: 1B, flag: nwe}", r'routes\[0\].body.flag: there is no flag "nwe"'),
        ("access: {deny: [10.0.0.0/8], flag: new}", "not switched by flags"),
    ],
)
async def test_what_does_not_load(serve_lean: Serve, routes: str, message: str) -> None:
    """Told with its place."""
    route = f"routes: [{{name: a, match: {{path: /}}, respond: {{}}, {routes}}}]\n"
    with pytest.raises(ConfigError, match=message):
        async with serve_lean(config("on", routes=route)):
            pass


async def test_two_gateways_on_one_store(tmp_path: Path) -> None:
    """An order to one reaches the other; without the store the last known holds, and none is taken;
    a gateway that comes later knows it at once.
    """
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    async with store_in(tmp_path) as store:
        text = config("off", store)
        async with run_gateway(folders[0], text) as one, run_gateway(folders[1], text) as two:
            assert await order(one, "on") == "done"
            assert await value(one) == "on"
            await within(_becomes(two, "on"))
            async with two.client() as client:
                assert (await client.get("/new")).text == "new"
                with stopped(store):
                    assert await order(two, "off") == "unavailable"
                    assert await value(two) == "on"
                    assert (await client.get("/new")).text == "new"
            assert (await two.plane.flags())[0]["shared"] is True
            await within(_until_ordered(two, {"percent": "20%", "consumers": ["crm"]}))
            await within(_becomes(one, {"percent": "20%", "consumers": ["crm"]}))
            async with run_gateway(folders[2], text) as three:
                assert await value(three) == {"percent": "20%", "consumers": ["crm"]}
                await three.plane.order_flag(FlagOrder("new", reset=True))
            await within(_becomes(one, "off"))


async def _becomes(gateway: RunningGateway, wanted: Any) -> None:
    while await value(gateway) != wanted:
        await asyncio.sleep(0.02)


async def _until_ordered(gateway: RunningGateway, wanted: Any) -> None:
    """The store may need a moment after it was away."""
    while await order(gateway, wanted) != "done":
        await asyncio.sleep(0.05)


async def test_what_the_store_holds_is_not_trusted(tmp_path: Path) -> None:
    """What is no value of a flag is left alone, and the rest holds."""
    async with store_in(tmp_path) as store:
        async with run_gateway(tmp_path, config("off", store)) as gateway:
            board = gateway.plane._flag_board()
            assert board is not None
            assert board._store is not None
            await board._store.call("HSET", board._key, "new", '"on"', "other", "{", "x", "7")
            await within(_becomes(gateway, "on"))


async def test_workers_and_the_admin_api(tmp_path: Path) -> None:
    """An order reaches every worker at once, and those that start later; each is told once."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"""\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0", workers: 2}}
telemetry: {{access_log: null}}
{config("off")}""")
    async with gateway_process(path) as running:
        async with httpx.AsyncClient(base_url=running.admin, trust_env=False) as admin:
            put = await admin.put("/api/v1/flags/new", json={"value": "on"})
            assert put.json()["value"] == "on"
            assert put.json()["configured"] == "off"
            line = await running.line("changed from off to on")
            assert (line["logger"], line["client"]) == ("gateway.audit", "127.0.0.1")
            assert await _answers(running) == {200}
            bad = await admin.put("/api/v1/flags/new", json={"value": "maybe"})
            assert (bad.status_code, bad.json()["code"]) == (400, "invalid_body")
            gone = await admin.delete("/api/v1/flags/new")
            assert gone.json()["value"] == "off"
            assert await _answers(running) == {404}
            assert (await admin.get("/api/v1/flags/old")).status_code == 404
            assert (await admin.get("/api/v1/mirrors")).json() == {"mirrors": []}
            assert len((await admin.get("/api/v1/flags")).json()["flags"]) == 1


async def _answers(running: GatewayProcess) -> set[int]:
    """The statuses of several connections, which land on either worker."""
    found = set()
    for _ in range(8):
        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
            found.add((await client.get("/new")).status_code)
    return found
