"""Who asks, and what it is called: forwarding fields, Via, loops, correlation, traces."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import routes
from tests.support.scripted import ScriptedUpstream, answer, echo, respond

TRUSTING = 'server: {listen: "127.0.0.1:0", admin: null, trusted_proxies: [127.0.0.0/8]}\n'
SPOOFED = {
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.test",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "X-Real-IP": "6.6.6.6",
    "X_Forwarded_For": "6.6.6.6",
}


async def test_forwarding_fields_are_written(serve: Serve) -> None:
    """What a stranger says of itself is overwritten, in every spelling."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client(headers={"Host": "shop.example"}) as client:
            await client.get("/", headers=SPOOFED)
        port = gateway.port

    (request,) = upstream.requests
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "shop.example"
    assert request.get("x-forwarded-port") == str(port)
    assert request.get("forwarded") == "for=127.0.0.1;host=shop.example;proto=http"
    assert b"6.6.6.6" not in request.raw
    assert b"evil" not in request.raw


async def test_trusted_proxies_are_believed(serve: Serve) -> None:
    """The client behind them is the client: in the log, for access lists, and further on."""
    options = "access: {deny: [6.6.6.0/24]}"
    async with ScriptedUpstream(echo) as upstream:
        async with serve(TRUSTING + routes(upstream.url, options=options)) as gateway:
            async with gateway.client() as client:
                chain = "192.0.2.1, 198.51.100.7"
                passed = await client.get(
                    "/", headers={"X-Forwarded-For": chain, "X-Forwarded-Proto": "https"}
                )
                denied = await client.get("/", headers={"X-Forwarded-For": "6.6.6.6"})
            lines = await gateway.lines(2)

    (request,) = upstream.requests
    assert passed.status_code == 200
    assert request.get("x-forwarded-for") == "192.0.2.1, 198.51.100.7, 127.0.0.1"
    assert request.get("x-forwarded-proto") == "https"
    assert (denied.status_code, denied.json()["code"]) == (403, "access_denied")
    assert [line["client"] for line in lines] == ["198.51.100.7", "6.6.6.6"]


async def test_connection_cannot_strip_fields(serve: Serve) -> None:
    """Fields that Connection names go no further, but ours can't be taken away with it."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.raw() as client:
            await client.ask(
                b"GET / HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
                b"Authorization: Bearer x\r\n"
                b"Connection: x-hop, x-forwarded-for, via, x-correlation-id, authorization\r\n\r\n"
            )

    (request,) = upstream.requests
    assert request.get("x-hop") is None
    assert request.get("keep-alive") is None
    assert request.get("connection") is None
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("authorization") == "Bearer x"
    assert request.get("via") == "1.1 lockgate-test"
    assert request.get("x-correlation-id")


async def test_a_loop_is_detected(serve: Serve) -> None:
    """A route that leads back to the gateway ends after one round; another gateway is no loop."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            other = await client.get("/", headers={"Via": "1.1 lockgate-other"})
            await gateway.reload(routes(gateway.url))
            got = await client.get("/", headers={"Connection": "close"})
        lines = await gateway.lines(3)

    assert other.status_code == 200
    assert upstream.requests[0].get("via") == "1.1 lockgate-other, 1.1 lockgate-test"
    assert (got.status_code, got.json()["code"]) == (502, "loop_detected")
    assert [line.get("code") for line in lines] == [None, "loop_detected", None]


@pytest.mark.parametrize("theirs", [b"X-Correlation-ID: theirs", b"x-correlation-id: flow-1"])
async def test_correlation_is_accepted_and_echoed_once(serve: Serve, theirs: bytes) -> None:
    """The client's id goes up and comes back once, also if the upstream answers with one."""
    reply = answer(respond(b"", "200 OK", theirs))
    async with ScriptedUpstream(reply) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            got = await client.get("/", headers={"X-Correlation-ID": "flow-1"})
        line = await gateway.line()

    assert upstream.requests[0].get_all("x-correlation-id") == ["flow-1"]
    assert got.headers.get_list("x-correlation-id") == ["flow-1"]
    assert line["correlation_id"] == "flow-1"


@pytest.mark.parametrize("sent", [None, "has space", "x" * 129, "a,b", "<script>"])
async def test_correlation_is_made(serve: Serve, sent: str | None) -> None:
    """Without an id, or with one that is none, a new one is made, for every request another."""
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            headers = {} if sent is None else {"X-Correlation-ID": sent}
            got = [(await client.get("/", headers=headers)).headers for _ in range(2)]

    ids = [each["x-correlation-id"] for each in got]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]
    assert [request.get("x-correlation-id") for request in upstream.requests] == ids


async def test_accept_false_makes_its_own(serve: Serve) -> None:
    """Where clients are strangers, nothing of theirs passes, a request id included."""
    options = "correlation: {header: X-Flow, accept: false}"
    async with ScriptedUpstream(echo) as upstream:
        async with serve(routes(upstream.url, options=options)) as gateway:
            async with gateway.client() as client:
                got = await client.get("/", headers={"X-Flow": "mine", "X-Request-ID": "mine"})

    (request,) = upstream.requests
    assert got.headers["x-flow"] == request.get("x-flow") != "mine"
    assert request.get("x-request-id") is None


async def test_traces_are_continued(serve: Serve) -> None:
    """The trace id stays, the span is ours, and the log has the trace."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    async with ScriptedUpstream(echo) as upstream, serve(routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            await client.get("/", headers={"traceparent": parent, "tracestate": "a=1"})
            await client.get("/", headers={"traceparent": "00-nonsense", "tracestate": "a=1"})
            await client.get("/")
        lines = await gateway.lines(3)

    told = [request.get_all("traceparent") for request in upstream.requests]
    assert [len(each) for each in told] == [1, 1, 1]
    found = [re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]", each[0]) for each in told]
    assert all(found)
    assert found[0] is not None and found[0][1] == trace and found[0][2] != "00f067aa0ba902b7"
    own = f"lockgate={found[0][2]},a=1"
    assert [request.get("tracestate") for request in upstream.requests] == [own, None, None]
    assert [line["trace_id"] for line in lines] == [match[1] for match in found if match]
