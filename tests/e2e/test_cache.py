"""The cache from the client to the upstream and back, over real sockets, on both servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin.control import Purge
from gateway.policies.cache import KEY
from tests.e2e.conftest import Serve
from tests.store.servers import VALKEY, serving
from tests.support.gateway import RunningGateway, eventually, routes, run_gateway, within
from tests.support.scripted import Peer, Received, ScriptedUpstream, respond

Handler = Callable[[Received], bytes]


def origin(handler: Handler, seen: list[Received]) -> Any:
    """A script that answers each request with what `handler` says."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request)
            await peer.send(handler(request))

    return script


def counting(*fields: bytes) -> tuple[Any, list[Received]]:
    """An origin whose body is the number of the request."""
    seen: list[Received] = []
    lines = fields or (b"Cache-Control: max-age=60",)

    def handler(request: Received) -> bytes:
        return respond(b"%d" % len(seen), "200 OK", *lines)

    return origin(handler, seen), seen


def status(got: httpx.Response) -> str:
    return got.headers["cache-status"].removeprefix("lockgate; ")


async def test_hit(serve: Serve) -> None:
    """The second answer comes from memory: same bytes, an age, and fields of its own."""
    script, seen = counting(b"Cache-Control: max-age=60", b"X-Correlation-ID: upstream",
                            b"Connection: X-Hop", b"X-Hop: 1")  # fmt: skip
    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                first = await client.get("/a", headers={"X-Correlation-ID": "one"})
                second = await client.get("/a", headers={"X-Correlation-ID": "two"})
                head = await client.head("/a")
            lines = await gateway.lines(3)
            hits = gateway.metric("gateway_cache_requests_total", route="any", result="hit")
            entries = gateway.metric("gateway_cache_entries")

    assert len(seen) == 1
    assert (first.text, second.text, head.text) == ("1", "1", "")
    assert status(first) == "fwd=uri-miss; stored"
    assert status(second).startswith("hit; ttl=")
    assert int(second.headers["age"]) <= 5
    assert "age" not in first.headers
    assert [got.headers["x-correlation-id"] for got in (first, second)] == ["one", "two"]
    assert "x-hop" not in second.headers
    assert head.headers["content-length"] == "1"
    assert [line["cache"] for line in lines] == ["miss", "hit", "hit"]
    assert "upstream" not in lines[1]
    assert (hits, entries) == (2, 1)


async def test_streamed_bodies(serve: Serve) -> None:
    """A chunked body is stored once it is whole, and given with a length."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n")
            await peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                await asyncio.sleep(0.005)
                await peer.send(b"4\r\nabcd\r\n")
            await peer.send(b"0\r\nX-Trailer: 1\r\n\r\n")

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                first = await client.get("/a")
                second = await client.get("/a")
            await gateway.quiet()

    assert len(seen) == 1
    assert first.content == second.content == b"abcd" * 3
    assert second.headers["content-length"] == "12"
    assert "transfer-encoding" not in second.headers


@pytest.mark.parametrize("how", ["length", "chunked"])
async def test_a_truncated_body_is_not_stored(serve: Serve, how: str) -> None:
    """A body that breaks off breaks off for the client too, and nothing is kept."""
    seen: list[Received] = []
    framing = b"Content-Length: 9" if how == "length" else b"Transfer-Encoding: chunked"
    part = b"abcd" if how == "length" else b"4\r\nabcd\r\n"

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n%b\r\n\r\n" % framing)
        await asyncio.sleep(0.01)
        await peer.send(part)
        peer.close()

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                for _ in range(2):
                    with pytest.raises(httpx.HTTPError):
                        await client.get("/a")
            await gateway.quiet()
            assert gateway.metric("gateway_cache_entries") == 0
    assert len(seen) == 2


async def test_concurrent_misses(serve: Serve) -> None:
    """Forty clients, one call; each gets the whole answer."""
    go = asyncio.Event()
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await go.wait()
            await peer.send(respond(b"x" * 1000, "200 OK", b"Cache-Control: max-age=60"))

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                tasks = [asyncio.create_task(client.get("/a")) for _ in range(40)]
                await eventually(lambda: gateway.snapshot.active == 40)
                go.set()
                answers = await within(asyncio.gather(*tasks))
            await gateway.quiet()

    assert len(seen) == 1
    assert {len(got.content) for got in answers} == {1000}
    assert sum("collapsed" in status(got) for got in answers) == 39


async def test_the_leader_leaves(serve: Serve) -> None:
    """When the first client goes away, the others still get their answers."""
    go = asyncio.Event()
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await go.wait()
            await peer.send(respond(b"x", "200 OK", b"Cache-Control: max-age=60"))

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                leader = asyncio.create_task(client.get("/a"))
                await eventually(lambda: len(seen) == 1)
                tasks = [asyncio.create_task(client.get("/a")) for _ in range(10)]
                await eventually(lambda: gateway.snapshot.active == 11)
                leader.cancel()
                await eventually(lambda: len(seen) == 2)
                go.set()
                answers = await within(asyncio.gather(*tasks))
            await gateway.quiet()

    assert {got.text for got in answers} == {"x"}
    assert len(seen) == 2


async def test_refresh_outlives_its_client(serve: Serve) -> None:
    """The client that set off a background fetch leaves, and the fetch goes on."""
    go = asyncio.Event()
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            if len(seen) > 1:
                await go.wait()
            fields = b"Cache-Control: max-age=0, stale-while-revalidate=60"
            await peer.send(respond(b"%d" % len(seen), "200 OK", fields))

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}, timeout: 10s")) as gateway:
            async with gateway.client() as client:
                await client.get("/a")
                stale = await client.get("/a")
                await eventually(lambda: len(seen) == 2)
            go.set()
            await eventually(lambda: gateway.metric("gateway_cache_entries") == 1)
            await gateway.quiet()
            async with gateway.client() as client:
                again = await client.get("/a")
            await gateway.quiet()

    assert (stale.text, status(stale)[:8]) == ("1", "hit; ttl")
    assert again.text == "2"


async def test_refreshing_when_the_gateway_stops(serve: Serve) -> None:
    """A background fetch that hangs does not keep the gateway from closing."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            if len(seen) > 1:
                await peer.until_gone()
                return
            fields = b"Cache-Control: max-age=0, stale-while-revalidate=60"
            await peer.send(respond(b"1", "200 OK", fields))

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                await client.get("/a")
                await client.get("/a")
                await eventually(lambda: len(seen) == 2)
        await within(upstream.peers[1].gone.wait() if len(upstream.peers) > 1 else
                     upstream.peers[0].gone.wait())  # fmt: skip


async def test_stale_when_the_upstream_is_gone(serve: Serve) -> None:
    """The upstream dies: what is stale is given, then the failure once the window is over."""
    script, _ = counting(b"Cache-Control: max-age=0, stale-if-error=60")
    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                await client.get("/a")
                await upstream.__aexit__(None, None, None)
                stale = await client.get("/a")
                other = await client.get("/b")
            line = (await gateway.lines(3))[1]

    assert (stale.status_code, stale.text, status(stale)) == (200, "1", "fwd=stale")
    assert other.status_code == 502
    assert "cache-status" not in other.headers
    assert (line["cache"], line["status"]) == ("stale_error", 200)


async def test_deadline_and_stale_answers(serve: Serve) -> None:
    """An upstream that does not answer in time is a failure like others."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            if len(seen) > 1:
                await peer.until_gone()
                return
            fields = b"Cache-Control: max-age=0, stale-if-error=60"
            await peer.send(respond(b"1", "200 OK", fields))

    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}, timeout: 100ms")) as gateway:
            async with gateway.client() as client:
                await client.get("/a")
                stale = await client.get("/a")
                again = await client.get("/a")
            await gateway.quiet()

    assert (stale.text, again.text) == ("1", "1")


async def test_conditions_and_validation(serve: Serve) -> None:
    """The cache asks with its own validators and answers the client's."""
    seen: list[Received] = []

    def handler(request: Received) -> bytes:
        if request.get("if-none-match") == '"v1"':
            return respond(b"", "304 Not Modified", b'ETag: "v1"', length=False)
        return respond(b"one", "200 OK", b'ETag: "v1"', b"Cache-Control: no-cache")

    async with ScriptedUpstream(origin(handler, seen)) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                await client.get("/a")
                plain = await client.get("/a")
                condition = await client.get("/a", headers={"If-None-Match": '"v1"'})
                other = await client.get("/a", headers={"If-None-Match": '"v0"'})

    assert [request.get("if-none-match") for request in seen] == [None, *['"v1"'] * 3]
    assert (plain.status_code, plain.text) == (200, "one")
    assert (condition.status_code, condition.text) == (304, "")
    assert (other.status_code, other.text) == (200, "one")
    assert status(plain) == "fwd=stale; fwd-status=304"


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-Host": "evil"}, {"X-Host": "evil"}, {"X-Original-URL": "/admin"},
        {"X-HTTP-Method-Override": "POST"}, {"Host": "evil.example"}, {"Range": "bytes=0-0"},
        {"Authorization": "Bearer x"}, {"Cookie": "session=1"}, {"Cache-Control": "no-store"},
    ],
)  # fmt: skip
async def test_poison(serve: Serve, fields: dict[str, str]) -> None:
    """What one client sends does not shape what others get."""
    seen: list[Received] = []

    def handler(request: Received) -> bytes:
        names = {name.lower() for name in fields}
        mine = [f"{name}={value}" for name, value in request.fields if name in names]
        return respond("&".join(mine).encode(), "200 OK", b"Cache-Control: max-age=60")

    async with ScriptedUpstream(origin(handler, seen)) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                await client.get("/a", headers=fields)
                clean = await client.get("/a")

    value = next(iter(fields.values()))
    assert value not in clean.text
    assert len(seen) == 2


async def test_a_get_with_a_body(serve: Serve) -> None:
    """A body that the key does not hold keeps a request away from the cache."""
    script, seen = counting()
    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                fat = await client.request("GET", "/a", content=b"evil")
                clean = await client.get("/a")
                again = await client.request("GET", "/a", content=b"evil")
    assert [status(got) for got in (fat, clean, again)] == [
        "fwd=bypass", "fwd=uri-miss; stored", "fwd=bypass",
    ]  # fmt: skip
    assert len(seen) == 3


async def test_invalidation_across_routes(serve: Serve) -> None:
    """What a PUT route with a cache changes is forgotten on the GET route."""
    script, _ = counting()
    text = """\
upstreams: {{api: {{targets: ["{url}"]}}}}
defaults: {{cache: {{}}}}
routes:
  - {{name: read, match: {{path: /a, methods: [GET]}}, upstream: api}}
  - {{name: write, match: {{path: /a, methods: [PUT]}}, upstream: api}}
"""
    async with ScriptedUpstream(script) as upstream:
        async with serve(text.format(url=upstream.url)) as gateway:
            async with gateway.client() as client:
                answers = [
                    await client.request(method, "/a") for method in ("GET", "GET", "PUT", "GET")
                ]
    assert [got.text for got in answers] == ["1", "1", "2", "3"]


async def test_reload(serve: Serve) -> None:
    """What is stored survives a reload, unless its route would give other answers now."""
    script, _ = counting()
    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="cache: {}")) as gateway:
            async with gateway.client() as client:
                first = await client.get("/a")
                await gateway.reload(routes(upstream.url, options="cache: {}, timeout: 9s"))
                kept = await client.get("/a")
                other = 'cache: {}, rewrite: {path: "/v2/{rest:path}"}'
                await gateway.reload(routes(upstream.url, options=other))
                changed = await client.get("/a")
                await gateway.reload(routes(upstream.url))
                off = await client.get("/a")
    assert [got.text for got in (first, kept, changed, off)] == ["1", "1", "2", "3"]
    assert "cache-status" not in off.headers


async def test_websocket_on_a_cached_route(serve: Serve) -> None:
    """A handshake passes, whatever is cached."""
    import websockets

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with serve(routes(url, options="cache: {ttl: 1m}")) as gateway:
            async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/ws") as client:
                await client.send("hello")
                assert await within(client.recv()) == "hello"


SHARED = "cache: {shared: true, tags: [all]}"


async def two_gateways(
    tmp_path: Path, url: str, store: str, use: Callable[[RunningGateway, RunningGateway], Any]
) -> None:
    text = routes(url, f'store: {{url: "{store}", timeout: 500ms}}\n', options=SHARED)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with run_gateway(tmp_path / "one", text, instance="one") as one:
        async with run_gateway(tmp_path / "two", text, instance="two") as two:
            await use(one, two)


async def test_two_gateways_on_one_store(tmp_path: Path) -> None:
    """One call for both; a purge on one is a purge on the other, within a second or so."""
    script, seen = counting()
    async with serving(VALKEY, tmp_path / "store") as store, ScriptedUpstream(script) as upstream:

        async def use(one: RunningGateway, two: RunningGateway) -> None:
            async with one.client() as first, two.client() as second:
                # The same name for both: Host is in the key.
                headers = {"Host": "api.test"}
                await first.get("/a", headers=headers)
                (tier,) = one.runtime.long_lived(KEY).tiers
                await eventually(lambda: not tier._tasks)
                assert (await second.get("/a", headers=headers)).text == "1"
                assert len(seen) == 1
                result = await one.plane.purge(Purge(tag="all"))
                assert (result.removed, result.shared) == (1, "told")
                async with asyncio.timeout(5):
                    while (await second.get("/a", headers=headers)).text == "1":
                        await asyncio.sleep(0.05)
                assert len(seen) == 2

        await two_gateways(tmp_path, upstream.url, store.url, use)
