"""The composition root: what a reload keeps and what it closes, failures on the way, lifecycles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.issues import ConfigErrors
from gateway.runtime import Runtime
from tests.support.gateway import eventually, load, routes, run_gateway, within
from tests.support.scripted import (
    OK,
    Peer,
    ScriptedUpstream,
    answer,
    answer_then_wait,
    respond,
)

# A plugin that tells what happens to it, in a file beside it.
LIFE = """
from pathlib import Path

from gateway.plugin import ConfigError, Field, Guard, PolicyConfig


class LifeConfig(PolicyConfig):
    name: str = Field(default="life", description="What it is called in the notes.")
    fail: str = Field(default="", description="Where it fails.")


class Life(Guard):
    name = "life"
    Config = LifeConfig

    def __init__(self, config, folder):
        self.config = config
        self.notes = folder / "notes"

    @classmethod
    def build(cls, config, context):
        if config.fail == "build":
            raise ConfigError("this can't work", "fail")
        if config.fail == "bug":
            raise KeyError("a-secret")
        return cls(config, context.base_dir)

    def note(self, what):
        with self.notes.open("a") as file:
            file.write(f"{self.config.name} {what}\\n")

    async def start(self):
        self.note("start")
        if self.config.fail == "start":
            raise ConfigError("it does not start")
        if self.config.fail == "start with a bug":
            raise OSError("nobody there")

    async def aclose(self):
        self.note("close")
        if self.config.fail == "close":
            raise RuntimeError("won't")

    def check(self, exchange):
        return None
"""


def notes(folder: Path) -> list[str]:
    """What the plugin wrote."""
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def living(folder: Path, *uses: dict[str, Any]) -> str:
    """A route for each of these uses of the plugin."""
    (folder / "life.py").write_text(LIFE)
    lines = [
        f"  - {{name: r{at}, match: {{path: /{at}}}, respond: {{}},"
        f" plugins: [{{use: life, with: {json.dumps(use)}}}]}}\n"
        for at, use in enumerate(uses)
    ]
    return "plugins: [life.py]\nroutes:\n" + "".join(lines)


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    """A runtime without anything in front of it."""
    made = Runtime(instance="test")
    try:
        yield made
    finally:
        await made.aclose()


async def test_a_reload_keeps_what_did_not_change(tmp_path: Path) -> None:
    """The same upstream with its connections, the same counters, the same log."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        async with run_gateway(tmp_path, routes(upstream.url)) as gateway:
            async with gateway.client() as client:
                await client.get("/")
                before = gateway.snapshot
                await gateway.reload(routes(upstream.url, options="timeout: 5s"))
                await client.get("/")
            after = gateway.snapshot
            lines = await gateway.lines(2)

            assert after is not before
            assert after.upstreams["api"] is before.upstreams["api"]
            assert after.access_log is before.access_log
            assert gateway.metric("gateway_requests_total", route="any") == 2
            assert gateway.metric("gateway_config_generation") == 2

    assert len(upstream.peers) == 1
    assert [line["generation"] for line in lines] == [1, 2]


async def test_a_changed_upstream_is_a_new_one(tmp_path: Path) -> None:
    """The old one's idle connections are closed; another upstream keeps its own."""
    text = """\
upstreams:
  one: {{targets: ["{one}"], connect_timeout: {timeout}}}
  two: {{targets: ["{two}"]}}
routes:
  - {{name: one, match: {{path: /one}}, upstream: one}}
  - {{name: two, match: {{path: /two}}, upstream: two}}
"""
    wait = answer_then_wait(OK)
    async with ScriptedUpstream(wait) as one, ScriptedUpstream(wait) as two:
        texts = [text.format(one=one.url, two=two.url, timeout=each) for each in ("1s", "2s")]
        async with run_gateway(tmp_path, texts[0]) as gateway, gateway.client() as client:
            await client.get("/one")
            await client.get("/two")
            before = gateway.snapshot.upstreams
            await gateway.reload(texts[1])
            await within(one.peers[0].gone.wait())
            after = gateway.snapshot.upstreams

            assert after["one"] is not before["one"]
            assert after["two"] is before["two"]
            assert not two.peers[0].gone.is_set()


async def test_requests_in_flight_finish_on_the_old_configuration(tmp_path: Path) -> None:
    """An upstream that left is closed when its last request has ended, and not before."""
    go = asyncio.Event()

    async def service(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await go.wait()
        await peer.send(b"lf")
        await peer.until_gone()

    gone = "routes:\n  - {name: new, match: {path: /}, respond: {body: new}}\n"
    async with ScriptedUpstream(service) as upstream:
        async with run_gateway(tmp_path, routes(upstream.url)) as gateway:
            async with gateway.raw() as old, gateway.client() as client:
                await old.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await old.head()
                before = gateway.snapshot
                await gateway.reload(gone)
                assert (await client.get("/")).text == "new"
                assert gateway.snapshot.upstreams == {}
                assert (before.active, before.drained.is_set()) == (1, False)
                assert not upstream.peers[0].gone.is_set()

                go.set()
                assert await old.exactly(4) == b"half"
                await within(before.drained.wait())
                await within(upstream.peers[0].gone.wait())
                # The client's connection was not touched.
                assert (await old.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"new"


async def test_a_websocket_outlives_reloads(tmp_path: Path) -> None:
    """It goes on, on the configuration that it began with."""
    from tests.e2e.test_websocket import service, to

    async with service() as upstream, run_gateway(tmp_path, routes(upstream.url)) as gateway:
        async with to(gateway) as client:
            before = gateway.snapshot
            await gateway.reload("routes: [{name: a, match: {path: /}, respond: {}}]\n")
            await client.send("x")
            assert await within(client.recv()) == "x"
            assert before.active == 1
        await within(before.drained.wait())


async def test_a_failed_prepare_leaves_nothing_behind(tmp_path: Path) -> None:
    """The old configuration serves on; what was started for the new one is closed again."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        async with run_gateway(tmp_path, routes(upstream.url)) as gateway:
            before, shared = gateway.snapshot, set(gateway.runtime._shared)
            good = {"name": "good"}
            for fail in ("build", "start", "start with a bug", "bug"):
                with pytest.raises((ConfigErrors, OSError)):
                    await gateway.reload(
                        'upstreams: {other: {targets: ["http://127.0.0.1:1"]}}\n'
                        + living(tmp_path, good, {"name": "bad", "fail": fail})
                    )
                assert gateway.snapshot is before
                assert set(gateway.runtime._shared) == shared
                assert gateway.runtime._live == [before]
            async with gateway.client() as client:
                assert (await client.get("/")).text == "ok"

    started = ["good start", "bad start", "good close", "bad close"]
    assert sorted(notes(tmp_path)) == sorted(started * 2)


async def test_policies_live_as_long_as_their_snapshot(tmp_path: Path) -> None:
    """Started before the first request, closed after the last; each once."""
    async with runtime() as gateway:
        await gateway.start(load(tmp_path, living(tmp_path, {"name": "one"})))
        assert notes(tmp_path) == ["one start"]
        gateway.commit(await gateway.prepare(load(tmp_path, living(tmp_path, {"name": "two"}))))
        await eventually(lambda: len(notes(tmp_path)) == 3)
        assert notes(tmp_path) == ["one start", "two start", "one close"]

    assert notes(tmp_path) == ["one start", "two start", "one close", "two close"]


async def test_a_failing_close_keeps_nothing_open(tmp_path: Path) -> None:
    """The others are closed all the same."""
    async with runtime() as gateway:
        uses = [{"name": name, "fail": "close"} for name in ("one", "two")]
        await gateway.start(load(tmp_path, living(tmp_path, *uses)))

    assert notes(tmp_path)[2:] == ["one close", "two close"]


async def test_aclose_twice(tmp_path: Path) -> None:
    """The second one has nothing to do; before the start, neither has the first."""
    gateway = Runtime()
    await gateway.aclose()
    await gateway.start(load(tmp_path, living(tmp_path, {"name": "one"})))
    await asyncio.gather(gateway.aclose(), gateway.aclose())
    await gateway.aclose()

    assert notes(tmp_path) == ["one start", "one close"]
    with pytest.raises(RuntimeError, match="not been started"):
        _ = gateway.snapshot


async def test_aclose_while_a_snapshot_drains(tmp_path: Path) -> None:
    """What is still in flight on an old snapshot does not keep it open."""
    async with runtime() as gateway:
        await gateway.start(load(tmp_path, living(tmp_path, {"name": "one"})))
        gateway.snapshot.active += 1
        gateway.commit(await gateway.prepare(load(tmp_path, living(tmp_path, {"name": "two"}))))
        await asyncio.sleep(0)
        assert "one close" not in notes(tmp_path)

    assert sorted(notes(tmp_path)[2:]) == ["one close", "two close"]


async def test_two_gateways_in_one_process(tmp_path: Path) -> None:
    """They share nothing: not even the loop detection takes one for the other."""
    (tmp_path / "front").mkdir()
    (tmp_path / "back").mkdir()
    async with ScriptedUpstream(answer(respond(b"deep"))) as upstream:
        async with run_gateway(tmp_path / "back", routes(upstream.url), instance="b") as back:
            async with run_gateway(tmp_path / "front", routes(back.url), instance="f") as front:
                async with front.client() as client:
                    assert (await client.get("/")).text == "deep"
                one, two = await front.line(), await back.line()
                assert front.metric("gateway_requests_total") == 1
                assert back.metric("gateway_requests_total") == 1

    assert one["correlation_id"] == two["correlation_id"]
    assert one["trace_id"] == two["trace_id"]
    assert upstream.requests[0].get("via") == "1.1 lockgate-f, 1.1 lockgate-b"
    assert upstream.requests[0].get("x-forwarded-for") == "127.0.0.1"


async def test_reloads_at_once(tmp_path: Path) -> None:
    """Two snapshots may be prepared beside each other; what they share is made once."""
    async with ScriptedUpstream(answer(OK)) as upstream, runtime() as gateway:
        text = routes(upstream.url)
        await gateway.start(load(tmp_path, text))
        loaded = [load(tmp_path, routes(upstream.url, options=f"timeout: {n}s")) for n in (1, 2)]
        prepared = await asyncio.gather(*(gateway.prepare(each) for each in loaded))
        assert prepared[0].upstreams["api"] is prepared[1].upstreams["api"]
        await gateway.abandon(prepared[0])
        gateway.commit(prepared[1])
        await eventually(lambda: len(gateway._live) == 1)
        assert gateway.snapshot.upstreams["api"]._sweeper is not None, "it was closed with another"


BROKEN = {
    "routes": """\
routes:
  - {name: a, match: {path: "/x/{id}"}, respond: {}}
  - name: b
    match: {path: "/x/{other}"}
    respond: {}
  - {name: c, match: {path: "/{a}/{a}"}, respond: {}}
""",
    "terminal": """\
routes:
  - {name: a, match: {path: /a}, respond: {headers: {Connection: upgrade}}}
  - name: b
    match: {path: /b}
    respond: {headers: {Content-Length: "3"}}
""",
    "profile": """\
profiles:
  web: {cors: {origins: ["*"], credentials: true}}
routes:
  - {name: a, match: {path: /a}, respond: {}, use: [web]}
""",
    "plugin": """\
plugins: [life.py]
routes:
  - name: a
    match: {path: /a}
    respond: {}
    plugins:
      - use: life
        with: {fail: build}
  - name: b
    match: {path: /b}
    respond: {}
    plugins: [{use: life, with: {fail: bug}}]
""",
    "plugin by default": """\
plugins: [life.py]
defaults:
  plugins: [{use: life, with: {fail: build}}]
routes:
  - {name: a, match: {path: /a}, respond: {}}
""",
    "access log": """\
telemetry: {access_log: {to: /nowhere/at/all.log}}
routes: [{name: a, match: {path: /a}, respond: {}}]
""",
    "upstream tls": """\
upstreams:
  api:
    targets: ["https://127.0.0.1:1"]
    tls: {ca: nowhere.pem}
routes: [{name: a, match: {path: /a}, upstream: api}]
""",
}
PLACES = {
    "routes": [
        ("routes[1].match", '{path: "/x/{other}"}'),
        ("routes[2].match.path", '"/{a}/{a}"'),
    ],
    "terminal": [
        ("routes[0].respond.headers.Connection", "upgrade}"),
        ("routes[1].respond.headers.Content-Length", '"3"'),
    ],
    "profile": [("routes[0].cors.origins", '["*"], credentials')],
    "plugin": [
        ("routes[0].plugins[0].with.fail", "build}"),
        ("routes[1].plugins[0].with", "{fail: bug}"),
    ],
    "plugin by default": [("routes[0].plugins[0].with.fail", "build}")],
    "access log": [("telemetry.access_log.to", "/nowhere/at/all.log")],
    "upstream tls": [("upstreams.api.tls.ca", "nowhere.pem")],
}


@pytest.mark.parametrize("what", BROKEN)
async def test_errors_of_a_build_say_where(tmp_path: Path, what: str) -> None:
    """Whatever is found while building has file, line and column, all of it in one run."""
    (tmp_path / "life.py").write_text(LIFE)
    async with runtime() as gateway:
        with pytest.raises(ConfigErrors) as refused:
            await gateway.start(load(tmp_path, BROKEN[what]))
        assert gateway._shared == {}

    file = tmp_path / "gateway.yaml"
    lines = file.read_text().splitlines()
    for issue, (path, text) in zip(refused.value.issues, PLACES[what], strict=True):
        assert issue.file == str(file)
        assert issue.path == path
        assert lines[issue.line - 1][issue.column - 1 :].startswith(text), str(issue)
    assert "a-secret" not in str(refused.value)


async def test_the_upstreams_timeout_is_the_routes(tmp_path: Path) -> None:
    """A route without a timeout takes its upstream's; its own goes first."""
    text = """\
upstreams: {api: {targets: ["http://127.0.0.1:1"], timeout: 3s}}
routes:
  - {name: theirs, match: {path: /a}, upstream: api}
  - {name: own, match: {path: /b}, upstream: api, timeout: 1s}
  - {name: none, match: {path: /c}, respond: {}}
"""
    async with runtime() as gateway:
        await gateway.start(load(tmp_path, text))
        timeouts = {
            route.name: getattr(route.configs.get("timeout"), "root", None)
            for route in gateway.snapshot.routes
        }

    assert timeouts == {"theirs": 3.0, "own": 1.0, "none": None}
