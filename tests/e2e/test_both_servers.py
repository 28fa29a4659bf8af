"""The whole gateway as a process before real upstreams, on our protocol and on uvicorn's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.run.gateway_process import GatewayProcess, gateway
from tests.support.scripted import (
    Peer,
    Script,
    ScriptedUpstream,
    answer,
    respond,
)

pytestmark = pytest.mark.parametrize("server", ["lean", "stock"])
WAIT_S = 20.0


def config(upstream: str, extra: str = "") -> str:
    return f"""\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
telemetry: {{access_log: null}}
upstreams:
  api: {{targets: ["{upstream}"], connect_timeout: 2s}}
defaults: {{timeout: 15s}}
routes:
  - name: items
    match: {{path: "/items/{{id}}", methods: [GET, POST]}}
    upstream: api
    rewrite: {{path: "/v2/{{id}}", query: {{add: {{seen: "1"}}, remove: [secret]}}}}
    headers: {{response: {{set: {{X-Served-By: lockgate}}}}}}
    cors: {{origins: ["https://app.internal"]}}
    body: {{max: 1MiB}}
  - {{name: slow, match: {{path: /slow}}, upstream: api, timeout: 300ms}}
  - {{name: any, match: {{path: "/any/{{rest:path}}"}}, upstream: api}}
  - {{name: closed, match: {{path: /closed}}, upstream: api, access: {{deny: [127.0.0.0/8]}}}}
{extra}"""


@asynccontextmanager
async def proxying(
    tmp_path: Path, server: str, script: Script
) -> AsyncIterator[tuple[GatewayProcess, ScriptedUpstream, httpx.AsyncClient]]:
    """A gateway process in front of a scripted upstream, and a client for it."""
    file = tmp_path / "gateway.yaml"
    async with ScriptedUpstream(script) as upstream:
        file.write_text(config(f"http://127.0.0.1:{upstream.port}"))
        async with (
            gateway(file, "--http", server) as running,
            httpx.AsyncClient(base_url=running.url, timeout=WAIT_S) as client,
        ):
            yield running, upstream, client


async def test_a_request_is_rewritten_and_its_answer_dressed(tmp_path: Path, server: str) -> None:
    """Path, query, forwarding fields and ids reach the upstream; the answer carries the id once."""
    reply = respond(b'{"ok":true}', "200 OK", b"x-correlation-id: theirs")
    async with proxying(tmp_path, server, answer(reply)) as (_, upstream, client):
        got = await client.get(
            "/items/a%2Fb?secret=1&keep=2",
            headers={"X-Forwarded-For": "6.6.6.6", "X-Correlation-ID": "flow-1"},
        )

        (request,) = upstream.requests
        assert got.json() == {"ok": True}
        assert got.headers.get_list("x-correlation-id") == ["flow-1"]
        assert got.headers["x-served-by"] == "lockgate"
        assert request.raw.startswith(b"GET /v2/a%2Fb?keep=2&seen=1 HTTP/1.1\r\n")
        assert request.get("x-forwarded-for") == "127.0.0.1"
        assert request.get("x-correlation-id") == "flow-1"
        assert (request.get("via") or "").startswith("1.1 lockgate-")
        assert (request.get("traceparent") or "").startswith("00-")


async def test_a_client_that_leaves_frees_the_upstream(tmp_path: Path, server: str) -> None:
    """Its upstream connection is closed, and nothing stays in flight."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.until_gone()
        gone.set()

    async with proxying(tmp_path, server, silent) as (running, _, client):
        asking = asyncio.create_task(client.get("/any/thing"))
        await arrived.wait()
        asking.cancel()
        await asyncio.wait_for(gone.wait(), WAIT_S)

        metrics = (await client.get(f"{running.admin}/metrics")).text
        assert 'gateway_requests_in_flight{route="any"} 0' in metrics
        assert 'code="client_disconnected"' in metrics


async def test_a_websocket_goes_through(tmp_path: Path, server: str) -> None:
    """Text, binary, subprotocol and the close code, with a real client and a real service."""

    async def service(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(json.dumps({"path": connection.request.path}))
        async for message in connection:
            await connection.send(message)
            if message == b"end":
                await connection.close(4001, "enough")

    async with serve(service, "127.0.0.1", 0, subprotocols=["chat"]) as upstream:  # type: ignore[list-item]
        port = next(iter(upstream.sockets)).getsockname()[1]
        file = tmp_path / "gateway.yaml"
        file.write_text(config(f"http://127.0.0.1:{port}"))
        async with gateway(file, "--http", server) as running:
            url = running.url.replace("http", "ws") + "/any/live"
            async with connect(url, subprotocols=["chat"]) as client:  # type: ignore[list-item]
                assert client.subprotocol == "chat"
                assert json.loads(await client.recv()) == {"path": "/any/live"}
                await client.send("hello")
                assert await client.recv() == "hello"
                await client.send(b"end")
                assert await client.recv() == b"end"
                await client.wait_closed()
                assert client.close_code == 4001
