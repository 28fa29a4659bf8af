"""WebSocket is handed over to uvicorn's protocol, with a head that was checked first."""

from __future__ import annotations

from typing import Any

from websockets.sync.client import connect

from tests.conformance.case import get
from tests.conformance.target import Target, running
from tests.server.app import cycle_of

_HANDSHAKE = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        cycle_of(scope).respond(200, [], b"plain")
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": scope["path"] + message["text"]})


def test_a_websocket_client_is_served() -> None:
    """RFC 6455: a real client connects, sends, receives and closes."""
    with running(echo) as served:
        host, port = served.address
        with connect(f"ws://{host}:{port}/a", compression=None) as socket:
            socket.send("b")
            assert socket.recv() == "/ab"
            assert served.http.open_connections == 1
            assert served.http.in_flight == 0


def test_an_upgrade_behind_a_request_on_the_same_connection() -> None:
    """RFC 9110 7.8: the handshake may come on a connection that was used before."""
    with running(echo) as served, Target(served.address, []).connect() as wire:
        wire.send(get() + get(b"/a", *_HANDSHAKE))
        assert wire.read().body == b"plain"
        answer = wire.read()
        assert answer.status == 101
        assert answer.get(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_malformed_handshake_is_refused_before_the_hand_over() -> None:
    """Whatever is refused in any request is refused in a handshake as well."""
    with running(echo) as served, Target(served.address, []).connect() as wire:
        wire.send(get(b"/a", *_HANDSHAKE, b"X-A : b"))
        assert wire.read().status == 400
        assert wire.ended()


def test_other_upgrades_are_served_as_plain_requests() -> None:
    """RFC 9110 7.8: h2c and the like are ignored."""
    with running(echo) as served, Target(served.address, []).connect() as wire:
        wire.send(get(b"/a", b"Connection: upgrade", b"Upgrade: h2c"))
        assert wire.read().body == b"plain"


def test_without_a_websocket_class_the_request_is_plain() -> None:
    """A server configured without WebSocket ignores the upgrade."""
    with running(echo) as served, Target(served.address, []).connect() as wire:
        wire.send(get())
        assert wire.read().status == 200
        served.call(lambda: setattr(served.http.config, "ws_protocol_class", None))
        wire.send(get(b"/a", *_HANDSHAKE))
        assert wire.read().body == b"plain"
