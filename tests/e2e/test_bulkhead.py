"""The bulkhead over real sockets: permits to the end of the body, and a short queue, in order."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, eventually, within
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer, respond

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def config(url: str, bulkhead: str, routes: str = "") -> str:
    return f"""\
upstreams:
  api: {{targets: ["{url}"], bulkhead: {{{bulkhead}}}}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api}}
{routes}"""


class Gate:
    """An upstream that answers when it is told to. `seen` are the targets in order of arrival."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.seen: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.seen.append(request.target)
            await self.go.acquire()
            await peer.send(OK)


def machine(gateway: RunningGateway) -> Any:
    return gateway.runtime.known("bulkhead")[0][1].machine


async def test_waiters_are_served_in_turn_and_the_rest_is_refused(serve: Serve) -> None:
    """One at a time, two may wait; the fourth gets 503 at once."""
    gate = Gate()
    async with ScriptedUpstream(gate) as upstream:
        text = config(upstream.url, "max_concurrent: 1, max_queued: 2, queue_timeout: 20s")
        async with serve(text) as gateway, gateway.client() as client:
            calls = []
            for number in range(3):
                calls.append(asyncio.ensure_future(client.get(f"/{number}")))
                await eventually(lambda n=number: machine(gateway).queued == n)  # type: ignore[misc]
                await eventually(lambda: bool(gate.seen))
            got = await client.get("/3")
            assert gateway.metric("gateway_bulkhead_active", upstream="api") == 1
            assert gateway.metric("gateway_bulkhead_queued", upstream="api") == 2
            for _ in range(3):
                gate.go.release()
            answers = await within(asyncio.gather(*calls))
            await gateway.quiet()
            assert gateway.metric("gateway_bulkhead_waits_total", result="admitted") == 2
            assert gateway.metric("gateway_bulkhead_waits_total", result="full") == 1

    assert (got.status_code, got.json()["code"]) == (503, "bulkhead_full")
    assert int(got.headers["retry-after"]) >= 1
    assert "error=connection_limit_reached" in got.headers["proxy-status"]
    assert [each.status_code for each in answers] == [200] * 3
    assert gate.seen == ["/0", "/1", "/2"]


async def test_waiting_has_an_end(serve_lean: Serve) -> None:
    """503 after queue_timeout; whoever holds the permit is not disturbed."""
    gate = Gate()
    async with ScriptedUpstream(gate) as upstream:
        text = config(upstream.url, "max_concurrent: 1, queue_timeout: 50ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            first = asyncio.ensure_future(client.get("/"))
            await eventually(lambda: bool(gate.seen))
            got = await client.get("/late")
            gate.go.release()
            assert (await within(first)).status_code == 200
            await gateway.quiet()
    assert got.json()["code"] == "bulkhead_full"
    assert "50" in got.json()["detail"] or "0.05" in got.json()["detail"]


async def test_the_permit_is_held_to_the_end_of_the_body(serve: Serve) -> None:
    """A long download counts as long as it lasts, and no longer if its client leaves."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await within(go.wait())
        await peer.send(b"cd")

    async with ScriptedUpstream(script) as upstream:
        text = config(upstream.url, "max_concurrent: 1, max_queued: 0")
        async with serve(text) as gateway, gateway.client() as client:
            async with client.stream("GET", "/") as got:
                assert got.status_code == 200
                assert (await client.get("/")).status_code == 503
                go.set()
                await got.aread()
            await eventually(lambda: machine(gateway).active == 0)
            go.clear()
            async with gateway.raw() as raw:
                await raw.send(GET)
                await raw.head()
                assert machine(gateway).active == 1
                raw.reset()
            await gateway.quiet()


async def test_a_waiter_that_leaves_makes_no_hole(serve: Serve) -> None:
    """The one behind it gets the permit."""
    gate = Gate()
    async with ScriptedUpstream(gate) as upstream:
        text = config(upstream.url, "max_concurrent: 1, max_queued: 5, queue_timeout: 20s")
        async with serve(text) as gateway, gateway.client() as client:
            first = asyncio.ensure_future(client.get("/0"))
            await eventually(lambda: len(gate.seen) == 1)
            async with gateway.raw() as raw:
                await raw.send(GET)
                await eventually(lambda: machine(gateway).queued == 1)
                last = asyncio.ensure_future(client.get("/2"))
                await eventually(lambda: machine(gateway).queued == 2)
                raw.reset()
                await eventually(lambda: machine(gateway).queued == 1)
            gate.go.release()
            gate.go.release()
            assert [each.status_code for each in await within(asyncio.gather(first, last))] == [
                200, 200,
            ]  # fmt: skip
            await gateway.quiet()
    assert gate.seen == ["/0", "/2"]


async def test_routes_take_turns(serve_lean: Serve) -> None:
    """A route that floods the queue does not keep the other one out."""
    gate = Gate()
    more = "  - {name: other, match: {path: /other}, upstream: api}\n"
    async with ScriptedUpstream(gate) as upstream:
        text = config(upstream.url, "max_concurrent: 1, queue_timeout: 20s", more)
        async with serve_lean(text) as gateway, gateway.client() as client:
            calls = []
            for number, path in enumerate(["/0", "/1", "/2", "/3", "/other"]):
                calls.append(asyncio.ensure_future(client.get(path)))
                await eventually(lambda n=number: machine(gateway).queued == n)  # type: ignore[misc]
                await eventually(lambda: bool(gate.seen))
            for _ in calls:
                gate.go.release()
            await within(asyncio.gather(*calls))
    assert gate.seen == ["/0", "/1", "/other", "/2", "/3"]


async def test_one_stalled_upstream_leaves_the_other_alone(serve_lean: Serve) -> None:
    """While everything at one of them waits, requests to the other are answered."""
    gate = Gate()
    async with ScriptedUpstream(gate) as stalled, ScriptedUpstream(answer(OK)) as good:
        text = f"""\
upstreams:
  stalled: {{targets: ["{stalled.url}"], bulkhead: {{max_concurrent: 5, max_queued: 0}}}}
  good: {{targets: ["{good.url}"], bulkhead: {{max_concurrent: 5}}}}
routes:
  - {{name: stalled, match: {{path: /stalled}}, upstream: stalled}}
  - {{name: good, match: {{path: /good}}, upstream: good}}
"""
        async with serve_lean(text) as gateway, gateway.client() as client:
            calls = [asyncio.ensure_future(client.get("/stalled")) for _ in range(50)]
            await eventually(lambda: len(gate.seen) == 5)
            for _ in range(20):
                assert (await client.get("/good")).status_code == 200
            for _ in range(5):
                gate.go.release()
            got = [each.status_code for each in await within(asyncio.gather(*calls))]
            await gateway.quiet()
    assert len(gate.seen) == 5
    assert sorted(got) == [200] * 5 + [503] * 45


async def test_report_mode_delays_nobody(serve_lean: Serve) -> None:
    """What would have had to wait passes at once, and is counted."""
    gate = Gate()
    async with ScriptedUpstream(gate) as upstream:
        text = config(upstream.url, "max_concurrent: 1, queue_timeout: 20s, mode: report")
        async with serve_lean(text) as gateway, gateway.client() as client:
            calls = [asyncio.ensure_future(client.get("/")) for _ in range(3)]
            await eventually(lambda: len(gate.seen) == 3)
            for _ in calls:
                gate.go.release()
            await within(asyncio.gather(*calls))
            await gateway.quiet()
            assert gateway.metric("gateway_policy_reported_total", code="bulkhead_full") == 2


async def test_adaptive(serve_lean: Serve) -> None:
    """It needs no number, serves, and shows what it found."""
    async with ScriptedUpstream(answer(respond(b"x"))) as upstream:
        text = config(upstream.url, "max_concurrent: adaptive, adaptive: {start: 7, max: 50}")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = await asyncio.gather(*(client.get("/") for _ in range(40)))
            await gateway.quiet()
            limit = gateway.metric("gateway_bulkhead_limit", upstream="api")
    assert {each.status_code for each in got} == {200}
    assert 5 <= limit <= 50
