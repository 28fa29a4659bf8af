"""A canary as its callers and both upstreams meet it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from gateway.errors import ConfigError
from tests.e2e.conftest import Serve
from tests.support.gateway import within
from tests.support.scripted import ScriptedUpstream, answer, respond

ALL = "weight: 100%"


def config(stable: str, canary: str, options: str, extra: str = "", upstream: str = "") -> str:
    """A route to `stable` with a canary; `upstream` are further keys of the canary's upstream."""
    more = f", {upstream}" if upstream else ""
    return f"""\
upstreams:
  old: {{targets: ["{stable}"], auth: {{type: bearer, token: stable-secret}}, timeout: 9s}}
  new: {{targets: ["{canary}"], timeout: 9s{more}}}
routes:
  - name: any
    match: {{path: "/{{rest:path}}"}}
    upstream: old
    canary: {{upstream: new, {options}}}
{extra}"""


def upstreams() -> tuple[ScriptedUpstream, ScriptedUpstream]:
    return ScriptedUpstream(answer(respond(b"old"))), ScriptedUpstream(answer(respond(b"new")))


async def test_rules_and_what_is_told(serve: Serve) -> None:
    """`when` leads to the canary, `unless` away; answer, log and metrics say which side it was."""
    options = (
        'when: {header: {X-Canary: "1"}}, unless: {header: {X-Never: "1"}}, reply_header: X-Side'
    )
    old, new = upstreams()
    async with (
        old,
        new,
        serve(config(old.url, new.url, options)) as gateway,
        gateway.client() as client,
    ):
        plain = await client.get("/a")
        chosen = await client.get("/a", headers={"X-Canary": "1"})
        excepted = await client.get("/a", headers={"X-Canary": "1", "X-Never": "1"})

        assert [each.text for each in (plain, chosen, excepted)] == ["old", "new", "old"]
        sides = ["stable", "canary", "stable"]
        assert [each.headers["x-side"] for each in (plain, chosen, excepted)] == sides
        lines = await gateway.lines(3)
        assert [line["side"] for line in lines] == sides
        assert [line["upstream"] for line in lines] == ["old", "new", "old"]
        name = "gateway_canary_requests_total"
        assert gateway.metric(name, route="any", side="canary", result="2xx") == 1
        assert gateway.metric(name, route="any", side="stable", result="2xx") == 2


async def test_each_side_has_its_own_credentials(serve: Serve) -> None:
    """The stable upstream's token never reaches the canary, with or without one of its own."""
    old, new = upstreams()
    async with old, new, serve(config(old.url, new.url, ALL)) as gateway:
        async with gateway.client() as client:
            assert (await client.get("/a")).text == "new"
            own = "auth: {type: bearer, token: canary-secret}"
            await gateway.reload(config(old.url, new.url, ALL, upstream=own))
            assert (await client.get("/a")).text == "new"
            await gateway.reload(config(old.url, new.url, "weight: 0%"))
            assert (await client.get("/a")).text == "old"
    received = [request for peer in new.peers for request in peer.requests]
    assert [each.get("authorization") for each in received] == [None, "Bearer canary-secret"]
    assert old.peers[0].requests[0].get("authorization") == "Bearer stable-secret"


async def test_failures_stay_on_their_side(serve: Serve) -> None:
    """The canary's own retries, then its failure; its breaker opens and the stable one's not."""
    old = ScriptedUpstream(answer(respond(b"old")))
    new = ScriptedUpstream(answer(respond(b"no", "503 Unavailable")))
    policies = "retry: {attempts: 2, backoff: {base: 1ms}}, circuit_breaker: {min_requests: 4}"
    options = 'when: {header: {X-Canary: "1"}}'
    async with (
        old,
        new,
        serve(config(old.url, new.url, options, upstream=policies)) as gateway,
        gateway.client() as client,
    ):
        codes = [(await client.get("/a", headers={"X-Canary": "1"})).status_code for _ in range(4)]
        assert codes == [503] * 4
        assert sum(len(peer.requests) for peer in new.peers) == 4
        assert not old.peers
        assert (await client.get("/a")).text == "old"
        assert gateway.metric("gateway_circuit_breaker_state", upstream="new") == 3
        name = "gateway_canary_requests_total"
        assert gateway.metric(name, side="canary") == 4
        assert gateway.metric(name, side="canary", result="error") > 0
        await gateway.quiet()


@pytest.mark.parametrize(
    ("sticky", "header"),
    [("header:X-Tenant", "X-Tenant: {}"), ("cookie:session", "Cookie: a=b; session={}")],
)
async def test_a_caller_stays_on_its_side(serve: Serve, sticky: str, header: str) -> None:
    """Whoever met the canary at 20 % meets it at 60 %, through reloads and restarts alike."""
    name, _, text = header.partition(": ")
    old, new = upstreams()

    async def canaries(weight: str) -> set[int]:
        options = f"weight: {weight}, sticky: '{sticky}'"
        found = set()
        async with serve(config(old.url, new.url, options)) as gateway, gateway.client() as client:
            for caller in range(40):
                for _ in range(2):
                    got = await client.get("/a", headers={name: text.format(caller)})
                    if got.text == "new":
                        found.add(caller)
        return found

    async with old, new:
        few, more = await canaries("20%"), await canaries("60%")
    assert few < more
    assert 0 < len(few) < 20 < len(more) < 40


async def test_the_gateways_own_cookie(serve: Serve) -> None:
    """A caller without one is given it, and keeps its side with it."""
    old, new = upstreams()
    async with old, new:
        async with (
            serve(config(old.url, new.url, "weight: 50%, sticky: cookie")) as gateway,
        ):
            sides = set()
            for _ in range(12):
                async with gateway.client() as client:
                    first = await client.get("/a")
                    assert "HttpOnly" in first.headers["set-cookie"]
                    again = await client.get("/a")
                    assert again.text == first.text
                    assert "set-cookie" not in again.headers
                    sides.add(first.text)
            assert sides == {"old", "new"}


async def test_a_websocket_goes_to_the_canary(serve: Serve) -> None:
    """A handshake is an exchange like any other."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(f"new: {message!s}")

    async with (
        ScriptedUpstream(answer(respond(b"old"))) as old,
        serve_websocket(echo, "127.0.0.1", 0) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        async with serve(config(old.url, f"http://127.0.0.1:{port}", ALL)) as gateway:
            url = gateway.url.replace("http", "ws") + "/a"
            async with connect(url, proxy=None) as client:
                await client.send("hello")
                assert await within(client.recv()) == "new: hello"
            assert (await gateway.line())["side"] == "canary"


async def test_a_client_that_leaves(serve: Serve) -> None:
    """What was acquired on the canary's side is given back there."""
    hold = asyncio.Event()

    async def stall(peer: object) -> None:
        await hold.wait()

    old, new = ScriptedUpstream(answer(respond(b"old"))), ScriptedUpstream(stall)
    policies = "bulkhead: {max_concurrent: 2}, retry: {attempts: 2}"
    async with old, new:
        async with serve(config(old.url, new.url, ALL, upstream=policies)) as gateway:
            async with gateway.raw() as client:
                await client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
                while not new.peers:
                    await asyncio.sleep(0.002)
            await gateway.quiet()
        hold.set()


PLUGIN = '''
"""Sends everything to another upstream."""
from gateway.plugin import Around, PolicyConfig, Stage


class AwayConfig(PolicyConfig):
    """Where to."""

    to: str


class Away(Around):
    """There."""

    name = "away"
    stage = Stage.DELIVERY
    before = "timeout"
    Config = AwayConfig
    further_upstreams = ("to",)

    def __init__(self, send):
        self.send = send

    @classmethod
    def build(cls, config, context):
        return cls(context.forward_to("away", "to", config.to))

    async def handle(self, exchange, forward):
        return await self.send(exchange)
'''


async def test_a_plugin_can_do_it_too(serve_lean: Serve, tmp_path: Path) -> None:
    """With the other upstream's policies, and not with the route's upstream's credentials."""
    (tmp_path / "away.py").write_text(PLUGIN)
    old, new = upstreams()
    async with old, new:
        text = config(old.url, new.url, ALL, "plugins: [away.py]\n")
        away = "plugins: [{use: away, with: {to: new}}]"
        text = text.replace(f"canary: {{upstream: new, {ALL}}}", away)
        async with serve_lean(text) as gateway, gateway.client() as client:
            assert (await client.get("/a")).text == "new"
        assert new.peers[0].requests[0].get("authorization") is None
        broken = PLUGIN.replace('further_upstreams = ("to",)', "")
        (tmp_path / "away.py").write_text(broken)
        with pytest.raises(ConfigError, match="further_upstreams"):
            async with serve_lean(text):
                pass


@pytest.mark.parametrize(
    ("canary", "message"),
    [
        ("{upstream: newe, weight: 5%}", 'there is no upstream "newe": did you mean "new"'),
        ("{upstream: old, weight: 5%}", "is the upstream that the route has anyway"),
        ("{upstream: new}", "nobody would meet it"),
        ("{upstream: new, weight: 5%, sticky: moon}", "names nothing of a caller"),
        ("{upstream: new, when: {}}", "a rule needs header, consumers or tags"),
    ],
)
async def test_what_does_not_load(serve: Serve, canary: str, message: str) -> None:
    """Every mistake is told with its place."""
    text = f"""\
upstreams: {{old: {{targets: ["http://a"]}}, new: {{targets: ["http://b"]}}}}
routes:
  - name: any
    match: {{path: /a}}
    upstream: old
    canary: {canary}
"""
    with pytest.raises(ConfigError, match=message) as caught:
        async with serve(text):
            pass
    assert "gateway.yaml:" in str(caught.value)
