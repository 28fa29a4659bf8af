"""The circuit breaker over real sockets: what clients see, what the upstream does not, orders."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import httpx
import pytest

from gateway.admin.control import BreakerOrder
from tests.e2e.conftest import Serve
from tests.run.gateway_process import KILL, WAIT_S, config_text, gateway, until
from tests.run.test_workers import all_serve, workers, write
from tests.support.gateway import RunningGateway, eventually, within
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer, answer_then_wait, respond

BAD = respond(b"bad", "500 Oops")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def config(url: str, breaker: str = "", more: str = "", routes: str = "") -> str:
    """A breaker that opens at four calls; `breaker` are further keys of it."""
    policy = f"{{min_requests: 4, probes: 1, ramp: 0s{', ' if breaker else ''}{breaker}}}"
    return f"""\
upstreams:
  api: {{targets: ["{url}"], circuit_breaker: {policy}{", " if more else ""}{more}}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api}}
{routes}"""


def breakers(gateway: RunningGateway) -> list[dict[str, object]]:
    """What the admin API shows of them."""
    from gateway.admin.describe import upstream_infos

    return list(upstream_infos(gateway.runtime)[0].get("circuit_breakers", []))


async def test_it_opens_and_the_upstream_is_left_alone(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """503 with code, Retry-After and Proxy-Status; state and reason in metrics, API and log."""
    async with ScriptedUpstream(answer(BAD)) as upstream:
        async with serve(config(upstream.url)) as gateway, gateway.client() as client:
            with caplog.at_level(logging.WARNING, "gateway.breaker"):
                for _ in range(4):
                    assert (await client.get("/")).status_code == 500
                got = await client.get("/")
            await gateway.quiet()
            labels = {"upstream": "api", "route": ""}
            assert gateway.metric("gateway_circuit_breaker_state", **labels) == 3
            assert gateway.metric("gateway_circuit_breaker_since_timestamp_seconds", **labels) > 1e9
            name = "gateway_circuit_breaker_transitions_total"
            assert gateway.metric(name, state="open", reason="failure_ratio", **labels) == 1
            shown = breakers(gateway)[0]

    assert (got.status_code, got.json()["code"]) == (503, "circuit_open")
    assert 1 <= int(got.headers["retry-after"]) <= 15
    assert "error=destination_unavailable" in got.headers["proxy-status"]
    assert len(upstream.requests) == 4
    assert (shown["state"], shown["reason"], shown["manual"]) == ("open", "failure_ratio", False)
    assert "circuit breaker of api: open (failure_ratio)" in caplog.text


async def test_it_recovers(serve_lean: Serve) -> None:
    """After its time one probe is let through, and all traffic behind it if it is good."""
    async with ScriptedUpstream(answer(BAD, BAD, BAD, BAD, OK)) as upstream:
        text = config(upstream.url, "open_for: 50ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            for _ in range(4):
                await client.get("/")
            assert (await client.get("/")).status_code == 503
            await asyncio.sleep(0.06)
            assert [(await client.get("/")).status_code for _ in range(3)] == [200] * 3
            assert breakers(gateway)[0]["state"] == "closed"


async def test_an_open_breaker_ends_the_retries(serve_lean: Serve) -> None:
    """At once: the third of three attempts is not made."""
    async with ScriptedUpstream(answer(respond(b"", "503 Busy"))) as upstream:
        more = "retry: {attempts: 9, backoff: {base: 1ms}, budget: null}"
        text = config(upstream.url, more=more)
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = await client.get("/")
            assert gateway.metric("gateway_retries_total", reason="circuit_open") == 1
    assert got.json()["code"] == "circuit_open"
    assert len(upstream.requests) == 4


@pytest.mark.parametrize("status", ["404 No", "429 Slow", "501 Never", "400 Bad"])
async def test_what_clients_do_wrong_never_counts(serve_lean: Serve, status: str) -> None:
    """Nor does what is not listed."""
    async with ScriptedUpstream(answer(respond(b"", status))) as upstream:
        async with serve_lean(config(upstream.url)) as gateway, gateway.client() as client:
            for _ in range(12):
                await client.get("/")
            assert breakers(gateway)[0]["state"] == "closed"


async def test_clients_that_leave_never_count(serve: Serve) -> None:
    """However many give up waiting."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with serve(config(upstream.url)) as gateway:
            for number in range(8):
                async with gateway.raw() as client:
                    await client.send(GET)
                    await eventually(lambda n=number: len(upstream.requests) == n + 1)  # type: ignore[misc]
                    client.reset()
            await gateway.quiet()
            shown = breakers(gateway)[0]
    assert (shown["state"], shown["failures"], shown["calls"]) == ("closed", 0, 0)


async def test_deadlines_count_as_failures_of_the_upstream(serve_lean: Serve) -> None:
    """An upstream that answers nobody in time must not be asked for ever."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        text = config(upstream.url, more="timeout: 60ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).json()["code"] for _ in range(5)]
            await gateway.quiet()
    assert got == ["deadline_exceeded"] * 4 + ["circuit_open"]


async def test_slow_answers_open_it(serve_lean: Serve) -> None:
    """By the time to their head; the gateway's own queue is not part of it."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.06)
            await peer.send(OK)

    async with ScriptedUpstream(slow) as upstream:
        text = config(upstream.url, "slow_call: 50ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).status_code for _ in range(5)]
            assert breakers(gateway)[0]["reason"] == "slow_ratio"
    assert got == [200] * 4 + [503]


async def test_routes_share_the_upstreams_breaker_unless_they_override(serve_lean: Serve) -> None:
    """What one route learns protects the other; a route with settings of its own is apart."""
    routes = """\
  - {name: shares, match: {path: /shares}, upstream: api}
  - {name: own, match: {path: /own}, upstream: api, circuit_breaker: {min_requests: 3}}
  - {name: none, match: {path: /none}, upstream: api, circuit_breaker: null}
"""
    async with ScriptedUpstream(answer(BAD)) as upstream:
        text = config(upstream.url, routes=routes)
        async with serve_lean(text) as gateway, gateway.client() as client:
            for _ in range(4):
                await client.get("/")
            got = [(await client.get(path)).status_code for path in ("/shares", "/own", "/none")]
            shown = {each["route"]: each["state"] for each in breakers(gateway)}
    assert got == [503, 500, 500]
    assert shown == {"": "open", "own": "closed"}


async def test_report_mode(serve_lean: Serve) -> None:
    """Requests pass while it would be open, and are counted as such."""
    async with ScriptedUpstream(answer(BAD)) as upstream:
        text = config(upstream.url, "mode: report")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).status_code for _ in range(6)]
            reported = gateway.metric("gateway_policy_reported_total", code="circuit_open")
    assert got == [500] * 6
    assert reported == 2


async def test_a_reload_keeps_the_state_and_orders_outlive_it(serve_lean: Serve) -> None:
    """An open breaker stays open; one opened by hand stays so even with other settings."""
    async with ScriptedUpstream(answer(BAD, BAD, BAD, BAD, OK)) as upstream:
        text = config(upstream.url)
        async with serve_lean(text) as gateway, gateway.client() as client:
            for _ in range(4):
                await client.get("/")
            await gateway.reload(text + "# the same\n")
            assert (await client.get("/")).status_code == 503

            assert await gateway.plane.order_breaker(BreakerOrder("api", "closed"))
            assert (await client.get("/")).status_code == 200
            assert await gateway.plane.order_breaker(BreakerOrder("api", "open"))
            await gateway.reload(config(upstream.url, "window: 20s"))
            got = await client.get("/")
            assert (got.status_code, got.json()["code"]) == (503, "circuit_open")
            await eventually(lambda: len(breakers(gateway)) == 1)
            assert breakers(gateway)[0]["manual"] is True

            assert await gateway.plane.order_breaker(BreakerOrder("api", "auto"))
            assert (await client.get("/")).status_code == 200
            assert not await gateway.plane.order_breaker(BreakerOrder("api", "open", "any"))
            assert not await gateway.plane.order_breaker(BreakerOrder("crm", "open"))


async def test_its_series_go_with_it(serve_lean: Serve) -> None:
    """A breaker that was taken out of the configuration is shown no more."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        async with serve_lean(config(upstream.url)) as gateway:

            def series() -> int:
                families = gateway.runtime.metrics.snapshot().families
                return sum(
                    len(each.samples)
                    for each in families
                    if each.declaration.name == "gateway_circuit_breaker_state"
                )

            assert series() == 1
            text = (
                config(upstream.url)
                .replace("circuit_breaker: {", "bulkhead: {")
                .replace("min_requests: 4, probes: 1, ramp: 0s", "")
            )
            await gateway.reload(text)
            await eventually(lambda: series() == 0)


async def test_only_so_many_probes(serve_lean: Serve) -> None:
    """Twenty clients come when it is half open; one gets through, and its end frees the next."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        for _ in range(4):
            await peer.request()
            await peer.send(BAD)
        await peer.request()
        await within(go.wait())
        await peer.send(OK)
        while True:
            await peer.request()
            await peer.send(OK)

    async with ScriptedUpstream(script) as upstream:
        text = config(upstream.url, "open_for: 1s")
        async with serve_lean(text) as gateway, gateway.client() as client:
            for _ in range(4):
                await client.get("/")
            await asyncio.sleep(1.01)
            probe = asyncio.ensure_future(client.get("/"))
            await eventually(lambda: len(upstream.requests) == 5)
            others = await asyncio.gather(*(client.get("/") for _ in range(20)))
            go.set()
            assert (await within(probe)).status_code == 200
            await gateway.quiet()
    assert {each.status_code for each in others} == {503}
    assert {each.headers["retry-after"] for each in others} == {"1"}


async def test_orders_reach_every_worker(tmp_path: Path) -> None:
    """Two processes open it, and the successor of one that was killed; then all leave it alone."""
    routes = """\
upstreams:
  api: {targets: ["http://127.0.0.1:9"], circuit_breaker: {}}
routes:
  - {name: any, match: {path: "/{rest:path}"}, upstream: api}
"""
    text = config_text().partition("routes:")[0] + routes
    async with gateway(write(tmp_path, text)) as running:
        path = f"{running.admin}/api/v1/upstreams"

        async def states() -> list[str]:
            async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
                found = (await client.get(path)).json()["upstreams"]
            return [each["circuit_breakers"][0]["state"] for each in found]

        async def order(state: str) -> None:
            async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
                got = await client.post(f"{path}/api/circuit_breaker", json={"state": state})
            assert got.status_code == 200

        await order("open")
        assert await states() == ["open", "open"]
        os.kill((await workers(running))[0]["pid"], KILL)
        await running.line("starting another")
        await until(lambda: all_serve(running))
        assert await states() == ["open", "open"]
        await order("auto")
        assert await states() == ["closed", "closed"]
