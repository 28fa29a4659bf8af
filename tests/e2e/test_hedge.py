"""Hedging over real sockets: the first good answer wins, and the loser leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, eventually, within
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_reset,
    answer_then_wait,
    respond,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FAST = respond(b"fast")


def config(*upstreams: ScriptedUpstream, hedge: str = "after: 20ms", more: str = "") -> str:
    urls = ", ".join(f'"{each.url}"' for each in upstreams)
    return f"""\
upstreams:
  api: {{targets: [{urls}], hedge: {{{hedge}}}, bulkhead: {{max_concurrent: 50}},
        circuit_breaker: {{}}{", " if more else ""}{more}}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api}}
"""


def stalled() -> ScriptedUpstream:
    """An upstream that reads its request and says nothing, until the other side leaves."""
    return ScriptedUpstream(answer_then_wait())


def hedges(gateway: RunningGateway, result: str) -> float:
    labels = {"route": "any", "upstream": "api", "result": result}
    return gateway.metric("gateway_hedges_total", **labels)


async def test_a_stalled_attempt_is_overtaken(serve: Serve) -> None:
    """By one at the other target, whose answer the client gets; the stalled one is cut."""
    async with (
        stalled() as bad,
        ScriptedUpstream(answer(FAST)) as good,
    ):
        async with serve(config(bad, good)) as gateway, gateway.client() as client:
            for _ in range(4):
                assert (await within(client.get("/"))).content == b"fast"
            await gateway.quiet()
            assert hedges(gateway, "won") == 2
            lines = await gateway.lines(4)
            assert {line["target"] for line in lines} == {f"127.0.0.1:{good.port}"}
    assert all(peer.gone.is_set() for peer in bad.peers)
    assert sorted(line.get("attempts", 1) for line in lines) == [1, 1, 2, 2]


async def test_the_first_attempt_may_still_win(serve: Serve) -> None:
    """Then the second one is cancelled, at once."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.08)
            await peer.send(OK)

    async with ScriptedUpstream(slow) as one, stalled() as two:
        async with serve(config(one, two)) as gateway, gateway.client() as client:
            for _ in range(4):
                assert (await within(client.get("/"))).content == b"ok"
            await gateway.quiet()
    assert all(peer.gone.is_set() for peer in two.peers)


async def test_a_body_of_the_winner_streams(serve: Serve) -> None:
    """Whole, with all that it holds given back at its end."""

    async def stream(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
            await asyncio.sleep(0.03)
            await peer.send(b"cdef")

    async with stalled() as bad, ScriptedUpstream(stream) as good:
        async with serve(config(bad, good)) as gateway, gateway.client() as client:
            for _ in range(4):
                assert (await within(client.get("/"))).content == b"abcdef"
            await gateway.quiet()


@pytest.mark.parametrize("bad", [answer_then_reset(), answer(respond(b"", "503 Busy"))])
async def test_a_bad_second_answer_wins_nothing(serve_lean: Serve, bad: object) -> None:
    """A failure that comes quickly is no reason to give up the attempt under way."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.08)
            await peer.send(OK)

    async with ScriptedUpstream(slow, slow) as one, ScriptedUpstream(bad) as two:  # type: ignore[arg-type]
        async with serve_lean(config(one, two)) as gateway, gateway.client() as client:
            got = [(await within(client.get("/"))).status_code for _ in range(4)]
            await gateway.quiet()
    # Where the bad target came first there is no second attempt: it failed before it was slow.
    assert got.count(200) >= 2


async def test_a_bad_first_answer_waits_for_the_second(serve_lean: Serve) -> None:
    """The first failed while the second is under way: whoever is good wins."""

    async def slow_failure(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.05)
            await peer.send(respond(b"", "503 Busy"))

    async def slower(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.07)
            await peer.send(FAST)

    async with ScriptedUpstream(slow_failure) as bad, ScriptedUpstream(slower) as good:
        async with serve_lean(config(bad, good)) as gateway, gateway.client() as client:
            got = [(await within(client.get("/"))).status_code for _ in range(4)]
            await gateway.quiet()
    assert got == [200] * 4


async def test_both_fail(serve_lean: Serve) -> None:
    """The client gets the first one's failure."""

    async def slow_failure(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.05)
            await peer.send(respond(b"busy", "503 Busy"))

    async with ScriptedUpstream(slow_failure) as one, ScriptedUpstream(slow_failure) as two:
        async with serve_lean(config(one, two)) as gateway, gateway.client() as client:
            got = await within(client.get("/"))
            await gateway.quiet()
    assert (got.status_code, got.content) == (503, b"busy")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_writes_are_not_hedged(serve_lean: Serve, method: str) -> None:
    """Nor is anything with a body."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.06)
            await peer.send(OK)

    async with ScriptedUpstream(slow) as one, ScriptedUpstream(slow) as two:
        async with serve_lean(config(one, two)) as gateway, gateway.client() as client:
            await client.request(method, "/")
            await client.request("GET", "/", content=b"x")
            await gateway.quiet()
    assert len(one.requests) + len(two.requests) == 2


async def test_the_quantile_must_be_known_first(serve_lean: Serve) -> None:
    """The first hundred requests teach it; then the slow one is hedged."""
    stalls = 0

    async def script(peer: Peer) -> None:
        nonlocal stalls
        while True:
            request = await peer.request()
            # Told apart by path: once it is known, any request of a slow moment may be sent twice.
            if request.target == "/stalls" and not stalls:
                stalls += 1
                await peer.until_gone()
                return
            await peer.send(OK)

    async with ScriptedUpstream(script) as upstream:
        async with serve_lean(config(upstream, hedge="after: p90")) as gateway:
            async with gateway.client() as client:
                got = [(await within(client.get("/"))).status_code for _ in range(110)]
                got.append((await within(client.get("/stalls"))).status_code)
            await gateway.quiet()
            assert hedges(gateway, "won") >= 1
    assert (got, stalls) == ([200] * 111, 1)


async def test_the_budget_bounds_hedges(serve_lean: Serve) -> None:
    """With none left, nothing is doubled."""
    async with (
        stalled() as one,
        stalled() as two,
    ):
        hedge = "after: 10ms, budget: 0%, budget_floor: 2"
        text = config(one, two, hedge=hedge, more="timeout: 300ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = await within(asyncio.gather(*(client.get("/") for _ in range(10))))
            await gateway.quiet()
            assert hedges(gateway, "budget") == 8
    assert {each.status_code for each in got} == {504}
    assert len(one.requests) + len(two.requests) == 12


async def test_more_than_one(serve_lean: Serve) -> None:
    """Each further attempt after the same time again, at a target that was not tried."""
    async with (
        stalled() as one,
        stalled() as two,
        ScriptedUpstream(answer(FAST)) as good,
    ):
        text = config(one, two, good, hedge="after: 15ms, max: 2", more="timeout: 5s")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await within(client.get("/"))).content for _ in range(3)]
            await gateway.quiet()
    assert got == [b"fast"] * 3


async def test_the_client_leaves_during_the_race(serve: Serve) -> None:
    """Both attempts are cancelled, and all they hold is back."""
    async with (
        stalled() as one,
        stalled() as two,
    ):
        async with serve(config(one, two)) as gateway:
            async with gateway.raw() as client:
                await client.send(GET)
                await eventually(lambda: len(one.requests) + len(two.requests) == 2)
                client.reset()
            await gateway.quiet()
    assert all(peer.gone.is_set() for peer in [*one.peers, *two.peers])


async def test_the_deadline_ends_the_race(serve: Serve) -> None:
    """504, and nothing is left."""
    async with (
        stalled() as one,
        stalled() as two,
    ):
        async with serve(config(one, two, more="timeout: 80ms")) as gateway:
            async with gateway.client() as client:
                got = await within(client.get("/"))
            await gateway.quiet()
    assert got.json()["code"] == "deadline_exceeded"
