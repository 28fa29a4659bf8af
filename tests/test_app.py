"""The edge as an ASGI application: what any server may hand it, and what it hands back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.errors import GatewayError
from gateway.runtime import Runtime
from tests.support.gateway import eventually, load, routes
from tests.support.scripted import ScriptedUpstream, answer, answer_then_wait, echo, respond

HERE = "routes: [{name: here, match: {path: /here}, respond: {body: hello}}]\n"


@asynccontextmanager
async def app(folder: Path, text: str) -> AsyncIterator[tuple[Gateway, Runtime]]:
    """The application without a server."""
    runtime = Runtime(instance="test")
    try:
        await runtime.start(load(folder, text))
        yield Gateway(runtime), runtime
    finally:
        await runtime.aclose()


class Client:
    """What a server is to the application: messages in, messages out."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.sent: list[Any] = []
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.waiting.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.waiting.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def scope(path: str = "/here", kind: str = "http", **more: Any) -> dict[str, Any]:
    """A minimal scope, with what the specification leaves out left out."""
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"a")],
        **more,
    }


WHOLE = {"type": "http.request", "body": b"", "more_body": False}


async def test_an_answer(tmp_path: Path) -> None:
    """A start and a body, whatever the server says of client, server and extensions."""
    for more in ({}, {"client": None, "server": None}, {"client": ("10.0.0.1", 1), "server": None}):
        async with app(tmp_path, HERE) as (gateway, runtime):
            client = Client(WHOLE)
            await gateway(scope(**more), client.receive, client.send)

            assert client.kinds == ["http.response.start", "http.response.body"]
            assert client.sent[0]["status"] == 200
            assert (b"content-length", b"5") in client.sent[0]["headers"]
            assert client.body == b"hello"
            assert runtime.snapshot.active == 0


async def test_names_are_lower_case(tmp_path: Path) -> None:
    """As the specification asks of an application; also of fields that come from the upstream."""
    reply = respond(b"ok", "200 OK", b"X-Mixed-Case: A")
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with app(tmp_path, routes(upstream.url)) as (gateway, _):
            client = Client(WHOLE)
            await gateway(scope("/"), client.receive, client.send)

    names = [name for name, _ in client.sent[0]["headers"]]
    assert b"x-mixed-case" in names
    assert all(name == name.lower() for name in names)


async def test_a_body_in_pieces(tmp_path: Path) -> None:
    """Empty pieces and a missing `more_body` are all right."""
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"one ", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"two"},
    ]
    fields = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    async with ScriptedUpstream(echo) as upstream:
        async with app(tmp_path, routes(upstream.url)) as (gateway, _):
            client = Client(*pieces)
            await gateway(scope("/", method="POST", headers=fields), client.receive, client.send)

    assert upstream.requests[0].body == b"one two"


async def test_a_client_that_is_gone_before_it_is_served(tmp_path: Path) -> None:
    """The exchange ends, nothing is held, and nothing was sent."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with app(tmp_path, routes(upstream.url)) as (gateway, runtime):
            client = Client(WHOLE, {"type": "http.disconnect"})
            await asyncio.wait_for(gateway(scope("/"), client.receive, client.send), 20)

            assert client.sent == []
            assert runtime.snapshot.active == 0


async def test_a_broken_answer_is_raised(tmp_path: Path) -> None:
    """A server closes the connection without ending the body when the application raises."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"

    async def service(peer: Any) -> None:
        await peer.request()
        await peer.send(half)
        peer.close()

    async with ScriptedUpstream(service) as upstream:
        async with app(tmp_path, routes(upstream.url)) as (gateway, _):
            client = Client(WHOLE)
            with pytest.raises(GatewayError, match="response_incomplete"):
                await gateway(scope("/"), client.receive, client.send)

    assert not any(
        message["type"] == "http.response.body" and not message.get("more_body")
        for message in client.sent
    )


async def test_a_server_that_cancels(tmp_path: Path) -> None:
    """A cancellation from outside, as at a shutdown, goes on to whoever asked for it."""
    async with ScriptedUpstream(answer_then_wait()) as upstream:
        async with app(tmp_path, routes(upstream.url)) as (gateway, runtime):
            client = Client(WHOLE)
            serving = asyncio.create_task(gateway(scope("/"), client.receive, client.send))
            await eventually(lambda: bool(upstream.requests))
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

            assert runtime.snapshot.active == 0
            await asyncio.wait_for(upstream.peers[0].gone.wait(), 20)


async def test_a_finish_hook_that_fails_hinders_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other hooks run, and the exchange is over."""
    (tmp_path / "hooks.py").write_text("""
from gateway.plugin import Guard, PolicyConfig


class NoConfig(PolicyConfig):
    pass


def fail(exchange):
    raise ValueError("a hook's own mistake")


class Hooks(Guard):
    name = "hooks"
    Config = NoConfig
    before = "observe"

    @classmethod
    def build(cls, config, context):
        return cls()

    def check(self, exchange):
        exchange.on_finish.append(fail)
""")
    text = "plugins: [hooks.py]\ndefaults: {plugins: [{use: hooks}]}\n" + HERE
    async with app(tmp_path, text) as (gateway, runtime):
        client = Client(WHOLE)
        await gateway(scope(), client.receive, client.send)
        assert runtime.snapshot.active == 0
        assert runtime.metrics.route("here").in_flight == 0
        await eventually(lambda: (tmp_path / "access.log").read_text() != "")

    assert client.body == b"hello"
    assert "a finish hook failed" in caplog.text


async def test_lifespan(tmp_path: Path) -> None:
    """Start-up and shutdown are answered; the runtime belongs to whoever made it."""
    async with app(tmp_path, HERE) as (gateway, runtime):
        client = Client({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        await gateway({"type": "lifespan"}, client.receive, client.send)

        assert client.kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert runtime.snapshot.generation == 1


async def test_an_unknown_scope(tmp_path: Path) -> None:
    """The specification asks for an exception."""
    async with app(tmp_path, HERE) as (gateway, _):
        client = Client()
        with pytest.raises(RuntimeError, match="unknown"):
            await gateway({"type": "telepathy"}, client.receive, client.send)


async def test_a_websocket_is_refused_by_closing_where_nothing_else_is_known(
    tmp_path: Path,
) -> None:
    """A server without the denial extension gets the close that every server understands."""
    async with app(tmp_path, HERE) as (gateway, runtime):
        client = Client({"type": "websocket.connect"})
        await gateway(
            scope("/nothing", "websocket", scheme="ws", subprotocols=[]),
            client.receive,
            client.send,
        )

        assert client.kinds == ["websocket.close"]
        assert runtime.snapshot.active == 0


async def test_respond_is_no_websocket(tmp_path: Path) -> None:
    """A route that answers by itself answers a handshake, too, with what it has to say."""
    async with app(tmp_path, HERE) as (gateway, _):
        client = Client({"type": "websocket.connect"})
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        await gateway(
            scope("/here", "websocket", scheme="ws", extensions=extensions),
            client.receive,
            client.send,
        )

    assert client.kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    assert client.sent[0]["status"] == 200
    assert client.body == b"hello"


async def test_a_reload_is_taken_by_the_next_request(tmp_path: Path) -> None:
    """The application follows its runtime."""
    async with app(tmp_path, HERE) as (gateway, runtime):
        runtime.commit(await runtime.prepare(load(tmp_path, HERE.replace("hello", "other"))))
        client = Client(WHOLE)
        await gateway(scope(), client.receive, client.send)

    assert client.body == b"other"
