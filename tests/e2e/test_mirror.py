"""A mirror: what it gets, what is found out, and that the client never notices."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from gateway.errors import ConfigError
from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, eventually
from tests.support.scripted import Peer, Received, ScriptedUpstream, answer, respond

REQUESTS = "gateway_mirror_requests_total"
VERDICTS = "gateway_mirror_comparisons_total"
CLOSED = "http://127.0.0.1:1"


def config(stable: str, mirror: str, options: str = "", upstream: str = "", extra: str = "") -> str:
    """A mirrored route to `stable`; `upstream` are further keys of the mirror's upstream."""
    more, given = (f", {each}" if each else "" for each in (upstream, options))
    return f"""\
upstreams:
  old: {{targets: ["{stable}"], auth: {{type: bearer, token: stable-secret}}, timeout: 9s}}
  new: {{targets: ["{mirror}"], timeout: 9s{more}}}
routes:
  - name: any
    match: {{path: "/{{rest:path}}"}}
    upstream: old
    mirror: {{upstream: new{given}}}
{extra}"""


def json_upstream(value: object) -> ScriptedUpstream:
    body = json.dumps(value).encode()
    return ScriptedUpstream(answer(respond(body, "200 OK", b"Content-Type: application/json")))


def received(upstream: ScriptedUpstream) -> list[Received]:
    return [request for peer in upstream.peers for request in peer.requests]


async def ended(gateway: RunningGateway, count: int) -> None:
    """Wait until so many copies have come to an end."""
    await eventually(lambda: gateway.metric(REQUESTS) >= count)


async def samples(gateway: RunningGateway) -> list[dict[str, object]]:
    return [each for mirror in await gateway.plane.mirrors() for each in mirror["samples"]]


async def test_what_the_mirror_gets(serve: Serve) -> None:
    """The same request with a mark, without the other upstream's credentials or a key."""
    old, new = json_upstream({}), json_upstream({})
    options = "methods: [GET, POST]"
    async with old, new, serve(config(old.url, new.url, options)) as gateway:
        async with gateway.client() as client:
            headers = {"X-A": "b", "Idempotency-Key": "k", "X-Lockgate-Tag": "c"}
            await client.post("/a?b=c", content=b"body", headers=headers)
        await ended(gateway, 1)
        (copy,), (first,) = received(new), received(old)

        assert copy.line == first.line == b"POST /a?b=c HTTP/1.1"
        assert copy.body == first.body == b"body"
        assert first.get("authorization") == "Bearer stable-secret"
        assert first.get("idempotency-key") == "k"
        assert copy.get("authorization") is None
        assert copy.get("idempotency-key") is None
        assert (copy.get("x-a"), copy.get("x-lockgate-mirror")) == ("b", "1")
        assert copy.get("x-correlation-id") == first.get("x-correlation-id")
        assert gateway.metric(REQUESTS, route="any", result="answered") == 1
        assert gateway.metric(VERDICTS, route="any", result="equal") == 1
        assert len(await gateway.lines(1)) == 1
        await gateway.quiet()


async def test_what_differs_is_shown(serve: Serve) -> None:
    """As a count, and as a sample without what is secret."""
    old, new = json_upstream({"id": 1, "pin": "1234"}), json_upstream({"id": "1", "pin": "9876"})
    options = "compare: [status, schema], fields: [/pin]"
    redact = "telemetry: {access_log: null, redact: {fields: [$.pin]}}\n"
    async with (
        old,
        new,
        serve(config(old.url, new.url, options, extra=redact)) as gateway,
        gateway.client() as client,
    ):
        got = await client.get("/a?api_key=secret&b=c")
        assert got.json() == {"id": 1, "pin": "1234"}
        await ended(gateway, 1)

        assert gateway.metric(VERDICTS, route="any", result="schema") == 1
        (sample,) = await samples(gateway)
        assert sample["query"] == "api_key=***&b=c"
        assert sample["correlation_id"] == got.headers["x-correlation-id"]
        assert sample["differences"] == [
            {"aspect": "schema", "where": "/id", "expected": "number", "found": "string"},
            {"aspect": "fields", "where": "/pin", "expected": "***", "found": "***"},
        ]
        for _ in range(30):
            await client.get("/a")
        await ended(gateway, 31)
        assert len(await samples(gateway)) == 20
        # A reload with other rules keeps what was found.
        await gateway.reload(config(old.url, new.url, extra=redact))
        assert len(await samples(gateway)) == 20


async def test_a_streamed_answer_is_compared(serve: Serve) -> None:
    """The client gets it piece by piece; the copy waits for its end."""
    body = json.dumps({"a": "b" * 30_000}).encode()

    async def stream(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 10_000):
                piece = body[start : start + 10_000]
                await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await peer.send(b"0\r\n\r\n")

    async with (
        ScriptedUpstream(stream) as old,
        json_upstream({"a": 1}) as new,
        serve(config(old.url, new.url, "compare: [schema]")) as gateway,
        gateway.client() as client,
    ):
        assert (await client.get("/a")).content == body
        await ended(gateway, 1)
        assert gateway.metric(VERDICTS, result="schema") == 1
        await gateway.reload(config(old.url, new.url, "compare: [schema], max_body: 1KiB"))
        assert (await client.get("/a")).content == body
        await ended(gateway, 2)
        assert gateway.metric(VERDICTS, result="unreadable") == 1
        await gateway.quiet()


async def test_what_is_not_copied(serve: Serve) -> None:
    """Unsafe methods unless they are named, bodies that are too large, copies of copies."""
    old, new = json_upstream({}), json_upstream({})
    async with old, new, serve(config(old.url, new.url)) as gateway, gateway.client() as client:
        assert (await client.post("/a")).status_code == 200
        assert (await client.get("/a", headers={"X-Lockgate-Mirror": "1"})).status_code == 200
        assert gateway.metric(REQUESTS) == 0
        await gateway.reload(config(old.url, new.url, "methods: [POST], max_body: 10B"))
        big = await client.post("/a", content=b"x" * 11)
        assert big.status_code == 200
        assert gateway.metric(REQUESTS, result="too_large") == 1
        await gateway.reload(config(old.url, new.url, "percent: 0%"))
        assert (await client.get("/a")).status_code == 200
        assert gateway.metric(REQUESTS) == 1
        assert not new.peers


@pytest.mark.parametrize("mirror", ["closed", "silent", "resets"])
async def test_a_dead_mirror(serve: Serve, mirror: str) -> None:
    """At 100 %, clients get every answer, and none of them late."""

    async def silent(peer: Peer) -> None:
        await peer.until_gone()

    async def resets(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    scripts = {"silent": silent, "resets": resets}
    async with (
        json_upstream({}) as old,
        ScriptedUpstream(scripts.get(mirror, resets)) as new,
    ):
        url = CLOSED if mirror == "closed" else new.url
        options = "max_concurrent: 4, timeout: 1s"
        async with serve(config(old.url, url, options)) as gateway, gateway.client() as client:
            slowest = 0.0
            first = time.monotonic()
            for _ in range(40):
                began = time.monotonic()
                assert (await client.get("/a")).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
            took = time.monotonic() - first
            assert slowest < 0.9
            await ended(gateway, 40)
            assert gateway.metric(REQUESTS, result="answered") == 0
            if mirror == "silent":
                assert gateway.metric(REQUESTS, result="timeout") >= 4
                # Four at once, for a second each: the rest had no place, on a slow machine too.
                assert gateway.metric(REQUESTS, result="dropped") >= 40 - 4 * (int(took) + 1)
            else:
                assert gateway.metric(REQUESTS, result="failed") >= 5
                assert gateway.metric(REQUESTS, result="paused") >= 20
            assert gateway.metric(VERDICTS) == 0
            await gateway.quiet()


async def test_the_mirrors_own_breaker(serve: Serve) -> None:
    """It keeps copies from a dead mirror, and nothing is tried twice."""
    policies = "retry: {attempts: 5, backoff: {base: 1ms}}, circuit_breaker: {min_requests: 5}"
    async with (
        json_upstream({}) as old,
        ScriptedUpstream(answer(respond(b"", "503 Unavailable"))) as new,
        serve(config(old.url, new.url, upstream=policies)) as gateway,
        gateway.client() as client,
    ):
        for number in range(12):
            assert (await client.get("/a")).status_code == 200
            await ended(gateway, number + 1)
        assert len(received(new)) == 5
        assert gateway.metric(VERDICTS, result="status") == 5


async def test_it_ends_with_its_configuration(serve: Serve) -> None:
    """Copies under way are cancelled by a reload that drops them, and by the end."""

    async def silent(peer: Peer) -> None:
        await peer.until_gone()

    async with json_upstream({}) as old, ScriptedUpstream(silent) as new:
        async with serve(config(old.url, new.url)) as gateway, gateway.client() as client:
            await client.get("/a")
            await eventually(lambda: len(new.peers) == 1)
            await gateway.reload(config(old.url, new.url, "percent: 0%"))
            await ended(gateway, 1)
            assert gateway.metric(REQUESTS, result="cancelled") == 1
            await gateway.quiet()
            await gateway.reload(config(old.url, new.url))
            await client.get("/a")
            await eventually(lambda: len(new.peers) == 2)
        await asyncio.wait_for(new.peers[1].gone.wait(), 5)


async def test_a_client_that_leaves(serve: Serve) -> None:
    """Before its answer: no copy. In mid-body: the copy ends without a comparison."""
    begun = asyncio.Event()

    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        begun.set()
        await peer.until_gone()

    async with (
        ScriptedUpstream(half) as old,
        json_upstream({}) as new,
        serve(config(old.url, new.url, "compare: [schema]")) as gateway,
    ):
        async with gateway.raw() as client:
            await client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            await begun.wait()
            await eventually(lambda: len(received(new)) == 1)
        await ended(gateway, 1)
        assert gateway.metric(VERDICTS, result="unreadable") == 1
        await gateway.quiet()


async def test_beside_a_canary(serve: Serve) -> None:
    """What the canary answered is not copied to it again."""
    canary = '    canary: {upstream: new, when: {header: {X-Canary: "1"}}}\n    mirror:'
    async with json_upstream({}) as old, json_upstream({}) as new:
        text = config(old.url, new.url).replace("    mirror:", canary)
        async with serve(text) as gateway, gateway.client() as client:
            await client.get("/a", headers={"X-Canary": "1"})
            assert gateway.metric(REQUESTS, result="same_upstream") == 1
            await client.get("/a")
            await ended(gateway, 2)
            assert [len(received(each)) for each in (old, new)] == [1, 2]


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("{upstream: newe}", 'there is no upstream "newe": did you mean "new"'),
        ("{upstream: old}", "is the upstream that the route has anyway"),
        ("{upstream: new, fields: [a]}", "expected a JSON pointer"),
    ],
)
async def test_what_does_not_load(serve_lean: Serve, mirror: str, message: str) -> None:
    """Every mistake is told with its place."""
    text = f"""\
upstreams: {{old: {{targets: ["http://a"]}}, new: {{targets: ["http://b"]}}}}
routes: [{{name: any, match: {{path: /a}}, upstream: old, mirror: {mirror}}}]
"""
    with pytest.raises(ConfigError, match=message):
        async with serve_lean(text):
            pass
