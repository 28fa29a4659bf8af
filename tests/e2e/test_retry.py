"""Retries over real sockets: what is tried again, where, when, and what the client sees."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.support.fault_proxy import FaultProxy, Faults
from tests.support.gateway import RunningGateway, eventually, within
from tests.support.scripted import (
    OK,
    Peer,
    Script,
    ScriptedUpstream,
    answer,
    answer_then_reset,
    answer_then_wait,
    close_at_once,
    echo,
    respond,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BAD = respond(b"busy", "503 Service Unavailable")


def config(*upstreams: ScriptedUpstream | FaultProxy | str, retry: str = "", more: str = "") -> str:
    """Quick retries; `retry` are further keys of the policy, `more` those of the upstream."""
    urls = ", ".join(f'"{each if isinstance(each, str) else each.url}"' for each in upstreams)
    policy = f"{{backoff: {{base: 1ms, max: 2ms}}{', ' if retry else ''}{retry}}}"
    return f"""\
upstreams:
  api: {{targets: [{urls}], connect_timeout: 2s, retry: {policy}{", " if more else ""}{more}}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api, body: {{max: 10MiB}}}}
"""


def count(gateway: RunningGateway, result: str, reason: str) -> float:
    labels = {"route": "any", "upstream": "api", "result": result, "reason": reason}
    return gateway.metric("gateway_retries_total", **labels)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Busy", "504 Late", "429 Slow Down"])
async def test_a_failed_answer_is_retried(serve: Serve, status: str) -> None:
    """The client sees the good answer alone; the retry and its reason are counted."""
    async with ScriptedUpstream(answer(respond(b"bad", status), OK)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.get("/")
            await gateway.quiet()
            assert count(gateway, "success", status[:3]) == 1
            line = await gateway.line()

    assert (got.status_code, got.content) == (200, b"ok")
    assert len(upstream.requests) == 2
    assert (line["status"], line["attempts"]) == (200, 2)


async def test_the_last_answer_is_passed_on_as_it_came(serve: Serve) -> None:
    """With its status, fields and body, once the attempts are used up."""
    last = respond(b"still busy", "503 Busy", b"Retry-After: 0", b"X-Own: yes")
    async with ScriptedUpstream(answer(BAD, BAD, last)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.get("/")
            await gateway.quiet()
            assert count(gateway, "failure", "503") == 2
            assert count(gateway, "skipped", "attempts") == 1

    assert (got.status_code, got.content, got.headers["x-own"]) == (503, b"still busy", "yes")
    assert len(upstream.requests) == 3


async def test_a_status_that_is_not_listed_is_no_reason(serve_lean: Serve) -> None:
    """500 may have happened in the middle of anything."""
    async with ScriptedUpstream(answer(respond(b"", "500 Oops"))) as upstream:
        async with serve_lean(config(upstream)) as gateway, gateway.client() as client:
            assert (await client.get("/")).status_code == 500
    assert len(upstream.requests) == 1


async def test_a_broken_connection_is_retried(serve_lean: Serve) -> None:
    """For a GET, which may be done twice."""
    async with ScriptedUpstream(answer_then_reset(), answer(OK)) as upstream:
        async with serve_lean(config(upstream)) as gateway, gateway.client() as client:
            assert (await client.get("/")).content == b"ok"
            assert count(gateway, "success", "reset") == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_write_is_not_retried_once_it_was_sent(serve: Serve, method: str) -> None:
    """It may have been done; the failure is passed on, and why it was not retried is counted."""
    async with ScriptedUpstream(answer_then_reset(), answer(OK)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.request(method, "/", content=b"x")
            assert count(gateway, "skipped", "not_safe") == 1

    assert (got.status_code, got.json()["code"]) == (502, "upstream_reset")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("key", ['"8e03978e-40d5-43dd-bc93-6894a57f9324"', "bare"])
async def test_a_write_with_a_key_is_retried(serve: Serve, key: str) -> None:
    """The upstream can tell that it is the same one; key and body go with it each time."""
    async with ScriptedUpstream(answer(BAD, BAD, OK)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.post("/", content=b"body", headers={"Idempotency-Key": key})

    assert got.content == b"ok"
    assert [each.body for each in upstream.requests] == [b"body"] * 3
    assert [each.get("idempotency-key") for each in upstream.requests] == [key] * 3


@pytest.mark.parametrize(("unsafe", "key", "tries"), [("never", '"k"', 1), ("always", "", 2),
                                                      ("with_key", '""', 1)])  # fmt: skip
async def test_the_rule_for_writes(serve_lean: Serve, unsafe: str, key: str, tries: int) -> None:
    """never, whatever travels; always, whatever happens; an empty key is none."""
    headers = {"Idempotency-Key": key} if key else {}
    async with ScriptedUpstream(answer(BAD, OK)) as upstream:
        text = config(upstream, retry=f"unsafe: {unsafe}")
        async with serve_lean(text) as gateway, gateway.client() as client:
            await client.post("/", content=b"x", headers=headers)
    assert len(upstream.requests) == tries


async def test_a_write_that_was_not_sent_is_retried(serve_lean: Serve) -> None:
    """Nothing left: another target gets it, and it is one of the attempts."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with ScriptedUpstream(answer(OK)) as upstream:
            async with serve_lean(config(dead, upstream)) as gateway, gateway.client() as client:
                for _ in range(4):
                    assert (await client.post("/", content=b"x")).content == b"ok"
                await gateway.quiet()


async def test_attempts_count_every_target(serve_lean: Serve) -> None:
    """Two attempts are two, however many dead targets there are."""
    sockets = [socket.socket() for _ in range(4)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        dead = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        text = config(*dead, retry="attempts: 2")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = await client.get("/")
            failures = [target["failures"] for target in gateway.targets()]
    finally:
        for each in sockets:
            each.close()

    assert got.json()["code"] == "connect_failed"
    assert sum(each.get("connect_failed", 0) for each in failures) == 2


async def test_another_target_is_tried(serve_lean: Serve) -> None:
    """Each attempt at one that this request has not met; then again from the start."""
    async with (
        ScriptedUpstream(answer(BAD)) as one,
        ScriptedUpstream(answer(BAD)) as two,
        ScriptedUpstream(answer(BAD)) as three,
    ):
        text = config(one, two, three, retry="attempts: 4")
        async with serve_lean(text) as gateway, gateway.client() as client:
            assert (await client.get("/")).status_code == 503
        seen = sorted(len(each.requests) for each in (one, two, three))
    assert seen == [1, 1, 2]


async def test_a_reset_moves_on_to_a_good_target(serve_lean: Serve) -> None:
    """Whichever comes first in turn, every request is answered."""
    async with ScriptedUpstream(answer_then_reset()) as bad, ScriptedUpstream(answer(OK)) as good:
        async with serve_lean(config(bad, good)) as gateway, gateway.client() as client:
            got = [(await client.get("/")).status_code for _ in range(6)]
    assert got == [200] * 6


async def test_the_attempt_timeout(serve: Serve) -> None:
    """A stalled attempt is cut and made again elsewhere; nothing is left behind."""
    async with (
        ScriptedUpstream(answer_then_wait()) as stalled,
        ScriptedUpstream(answer(OK)) as good,
    ):
        text = config(stalled, good, retry="per_try_timeout: 50ms")
        async with serve(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).status_code for _ in range(4)]
            await gateway.quiet()
            assert count(gateway, "success", "timeout") == 2

    assert got == [200] * 4


async def test_the_attempt_timeout_as_the_answer(serve_lean: Serve) -> None:
    """Where no attempt is left: 504 with a code of its own, and Proxy-Status."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        text = config(upstream, retry="per_try_timeout: 30ms, attempts: 2")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = await client.get("/")
            await gateway.quiet()

    assert (got.status_code, got.json()["code"]) == (504, "attempt_timeout")
    assert "error=http_response_timeout" in got.headers["proxy-status"]
    assert len(upstream.requests) == 2


async def test_the_attempt_timeout_covers_the_connect(serve_lean: Serve) -> None:
    """An attempt that can't connect in its time was not sent, so a write is retried, too."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        with socket.create_connection(listening.getsockname()):
            dead = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with ScriptedUpstream(answer(OK)) as good:
                text = config(dead, good, retry="per_try_timeout: 60ms")
                async with serve_lean(text) as gateway, gateway.client() as client:
                    got = [(await client.post("/", content=b"x")).status_code for _ in range(4)]
                    await gateway.quiet()
    assert got == [200] * 4


async def test_the_attempt_timeout_ends_with_the_head(serve_lean: Serve) -> None:
    """A body may take longer; on the same connection the next attempt has its own time."""

    async def slow_body(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(0.15)
            await peer.send(b"k")

    async with ScriptedUpstream(slow_body) as upstream:
        text = config(upstream, retry="per_try_timeout: 60ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).content for _ in range(3)]
    assert got == [b"ok"] * 3
    assert len(upstream.peers) == 1


async def test_the_deadline_bounds_the_pauses(serve: Serve) -> None:
    """An answer is passed on at once if the next attempt could only begin too late."""
    asks = respond(b"later", "503 Busy", b"Retry-After: 5")
    async with ScriptedUpstream(answer(asks)) as upstream:
        text = config(upstream, more="timeout: 3s")
        async with serve(text) as gateway, gateway.client() as client:
            began = time.monotonic()
            got = await client.get("/")
            took = time.monotonic() - began
            assert count(gateway, "skipped", "deadline") == 1

    assert (got.status_code, got.content, got.headers["retry-after"]) == (503, b"later", "5")
    assert took < 1.5
    assert len(upstream.requests) == 1


async def test_retry_after_is_honoured(serve_lean: Serve) -> None:
    """The next attempt comes when the upstream asked for it, and not before."""
    asks = respond(b"", "429 Slow", b"Retry-After: 1")
    async with ScriptedUpstream(answer(asks, OK)) as upstream:
        async with serve_lean(config(upstream)) as gateway, gateway.client() as client:
            began = time.monotonic()
            assert (await client.get("/")).content == b"ok"
            assert 1.0 <= time.monotonic() - began < 2.5


async def test_max_total_bounds_everything(serve_lean: Serve) -> None:
    """No retry begins after it, and one that is under way is cut by it."""
    async with ScriptedUpstream(answer(BAD), answer_then_wait()) as upstream:
        reset = respond(b"", "503 Busy", b"Connection: close")
        upstream.scripts = (answer(reset), answer_then_wait())
        text = config(upstream, retry="max_total: 200ms, attempts: 10")
        async with serve_lean(text) as gateway, gateway.client() as client:
            began = time.monotonic()
            got = await client.get("/")
            took = time.monotonic() - began

    assert got.json()["code"] == "attempt_timeout"
    assert 0.15 < took < 1.0


async def test_a_streamed_body_is_kept_and_sent_again(serve: Serve) -> None:
    """Up to keep_body: each attempt gets all of it, though the client sends it once."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 1000
            await asyncio.sleep(0.002)

    async with ScriptedUpstream(answer(BAD), answer(BAD), answer(OK)) as upstream:
        busy = respond(b"", "503 Busy", b"Connection: close")
        upstream.scripts = (answer(busy), answer(busy), answer(OK))
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.put("/", content=parts())
            await gateway.quiet()

    assert got.content == b"ok"
    assert [each.body for each in upstream.requests] == [b"x" * 8000] * 3


async def test_an_upload_that_is_refused_half_way_is_sent_again(serve: Serve) -> None:
    """What had left is replayed, and what had not is read on from the client."""
    half = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first,"
        await within(half.wait())
        yield b"second"

    async def refuse(peer: Peer) -> None:
        await peer.head()
        await peer.read()
        half.set()
        peer.reset()

    async with ScriptedUpstream(refuse, answer(OK)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.put("/", content=parts())
            await gateway.quiet()

    assert got.content == b"ok"
    assert upstream.requests[1].body == b"first,second"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_to_keep(serve: Serve, declared: bool) -> None:
    """It goes through once; once its first bytes left there is no retry, and that is counted."""
    size = 300_000

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000
            await asyncio.sleep(0)

    headers = {"Content-Length": str(size)} if declared else {}
    async with ScriptedUpstream(answer(BAD, OK)) as upstream:
        text = config(upstream, retry="keep_body: 64KiB")
        async with serve(text) as gateway, gateway.client() as client:
            got = await client.put("/", content=parts(), headers=headers)
            await gateway.quiet()
            assert count(gateway, "skipped", "body_not_kept") == 1

    assert got.status_code == 503
    assert [len(each.body) for each in upstream.requests] == [size]


async def test_a_failed_answer_with_a_body_that_streams_is_let_go(serve: Serve) -> None:
    """Its connection is closed instead of held; the good one's is kept."""
    endless = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\npart"
    async with ScriptedUpstream(answer_then_wait(endless), answer(OK)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            assert (await client.get("/")).content == b"ok"
            await within(upstream.peers[0].gone.wait())
            await gateway.quiet()


async def test_the_body_streams_while_it_comes(serve_lean: Serve) -> None:
    """Retrying buffers nothing: the first piece is with the client before the last is made."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await within(go.wait())
        await peer.send(b"cd")

    async with ScriptedUpstream(script) as upstream:
        async with serve_lean(config(upstream)) as gateway, gateway.client() as client:
            async with client.stream("GET", "/") as got:
                pieces = got.aiter_raw()
                assert await within(anext(pieces)) == b"ab"
                go.set()
                assert b"".join([piece async for piece in pieces]) == b"cd"


async def test_no_retry_once_the_head_was_passed_on(serve_lean: Serve) -> None:
    """A body that breaks off breaks off for the client, too."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with ScriptedUpstream(answer_then_reset(half), answer(OK)) as upstream:
        async with serve_lean(config(upstream)) as gateway, gateway.client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
            await gateway.quiet()
    assert len(upstream.requests) == 1


async def test_the_client_leaves_during_a_pause(serve: Serve) -> None:
    """The retry that would have followed is counted as not made."""
    asks = respond(b"", "503 Busy", b"Retry-After: 5")
    async with ScriptedUpstream(answer(asks)) as upstream:
        async with serve(config(upstream)) as gateway:
            async with gateway.raw() as client:
                await client.send(GET)
                await eventually(lambda: len(upstream.requests) == 1)
                await eventually(lambda: gateway.targets()[0]["active"] == 0)
                client.reset()
            await gateway.quiet()
            assert count(gateway, "skipped", "client_gone") == 1
    assert len(upstream.requests) == 1


async def test_what_the_upstream_is_told(serve_lean: Serve) -> None:
    """The attempt's number and the time that is left; one correlation id and one trace for all."""
    retry = "attempt_header: X-Attempt, timeout_header: X-Request-Timeout-Ms"
    busy = respond(b"", "503 Busy", b"Connection: close")
    async with ScriptedUpstream(answer(busy), echo) as upstream:
        text = config(upstream, retry=retry, more="timeout: 5s")
        async with serve_lean(text) as gateway, gateway.client() as client:
            await client.get("/", headers={"X-Attempt": "9"})

    one, two = upstream.requests
    assert [each.get_all("x-attempt") for each in (one, two)] == [["1"], ["2"]]
    assert 4000 < int(two.get("x-request-timeout-ms") or 0) <= 5000
    for name in ("x-correlation-id", "traceparent"):
        assert one.get(name) == two.get(name) != None  # noqa: E711


async def test_a_timeout_in_the_form_of_grpc(serve_lean: Serve) -> None:
    """The attempt's own time, where that is shorter than the deadline."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        retry = "timeout_header: grpc-timeout, per_try_timeout: 700ms"
        text = config(upstream, retry=retry, more="timeout: 5s")
        async with serve_lean(text) as gateway, gateway.client() as client:
            await client.get("/")
    assert upstream.requests[0].get("grpc-timeout") == "700m"


async def test_the_budget_bounds_a_storm(serve_lean: Serve) -> None:
    """An upstream that fails every time sees at most a quarter more than what clients sent, though
    five attempts are configured.
    """
    enough = asyncio.Event()

    async def fail(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.05)
            await peer.send(BAD)

    async def visit(gateway: RunningGateway) -> None:
        async with gateway.raw() as client:
            while not enough.is_set():
                assert (await client.ask(GET)).status == 503

    async with ScriptedUpstream(fail) as upstream:
        text = config(upstream, retry="attempts: 5")
        async with serve_lean(text) as gateway:

            def seen() -> tuple[float, int]:
                return gateway.metric("gateway_requests_total"), len(upstream.requests)

            visits = [asyncio.ensure_future(visit(gateway)) for _ in range(40)]
            await eventually(lambda: seen()[0] >= 100)
            sent, received = seen()
            await eventually(lambda: seen()[0] >= 600)
            sent, received = seen()[0] - sent, seen()[1] - received
            enough.set()
            await asyncio.gather(*visits)
            await gateway.quiet()
            assert count(gateway, "skipped", "budget") > 100

    assert 1.05 * sent < received <= 1.25 * sent + 40


@pytest.mark.parametrize(
    "faults",
    [Faults(reset_requests=True), Faults(reset_after=0), Faults(truncate_after=0),
     Faults(reset_after=10), Faults(refuse=True), Faults(blackhole=True)],
    ids=["reset", "reset before", "fin before", "reset in the head", "refused", "blackhole"],
)  # fmt: skip
async def test_trouble_on_the_way(serve_lean: Serve, faults: Faults) -> None:
    """Every way for an attempt to fail before its head is there leads to another target."""
    async with ScriptedUpstream(answer(OK)) as upstream, FaultProxy(upstream.port) as proxy:
        proxy.faults = faults
        text = config(proxy, upstream, retry="per_try_timeout: 80ms")
        async with serve_lean(text) as gateway, gateway.client() as client:
            got = [(await client.get("/")).status_code for _ in range(4)]
            await gateway.quiet()
    assert got == [200] * 4
    assert proxy.accepted


async def test_a_retry_of_a_websocket_handshake(serve_lean: Serve) -> None:
    """It is a GET: another target is connected to if the first resets."""
    from websockets.asyncio.client import connect

    from tests.e2e.test_websocket import service

    async with ScriptedUpstream(close_at_once) as bad, service() as good:
        async with serve_lean(config(bad, good.url)) as gateway:
            for _ in range(3):
                url = gateway.url.replace("http", "ws")
                async with connect(url, proxy=None) as client:
                    await client.send("x")
                    await client.recv()
            await gateway.quiet()


async def test_a_route_overrides_field_by_field(serve_lean: Serve) -> None:
    """More attempts here, none there, and the rest as the upstream says."""
    async with ScriptedUpstream(answer(BAD)) as upstream:
        text = (
            config(upstream, retry="attempts: 2, budget: null")
            + """\
  - {name: more, match: {path: /more}, upstream: api, retry: {attempts: 4}}
  - {name: none, match: {path: /none}, upstream: api, retry: null}
"""
        )
        seen: list[int] = []
        async with serve_lean(text) as gateway, gateway.client() as client:
            for path in ("/", "/more", "/none"):
                before = len(upstream.requests)
                await client.get(path)
                seen.append(len(upstream.requests) - before)
    assert seen == [2, 4, 1]


@pytest.mark.parametrize("script", [answer(OK), answer(BAD), answer_then_reset()])
async def test_a_storm_of_clients_that_leave(serve: Serve, script: Script) -> None:
    """Whenever they leave, every permit and connection is back."""

    async def visit(gateway: RunningGateway, number: int) -> None:
        async with gateway.raw() as client:
            await client.send(GET)
            await asyncio.sleep(number % 10 * 0.003)
            client.reset()

    async with ScriptedUpstream(script) as upstream, FaultProxy(upstream.port) as proxy:
        proxy.faults = Faults(latency=0.005)
        more = (
            "circuit_breaker: {min_requests: 5, open_for: 20ms, ramp: 20ms}, bulkhead: "
            "{max_concurrent: 10, max_queued: 20, queue_timeout: 20ms}, hedge: {after: 8ms}"
        )
        text = config(proxy, more=more, retry="per_try_timeout: 20ms")
        async with serve(text) as gateway:
            await asyncio.gather(*(visit(gateway, number) for number in range(120)))
            await gateway.quiet()
