"""How exchanges end: expectations answered early, clients that leave, and drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.case import get, request
from tests.conformance.target import Target, recording_app, running, serving
from tests.conformance.wire import Wire
from tests.server.app import Signal, body, cycle_of, read_all, start


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def connect(address: tuple[str, int]) -> Wire:
    return Target(address, []).connect()


@pytest.mark.parametrize("half", [True, False])
def test_a_client_that_leaves_is_noticed_once(half: bool) -> None:
    """on_disconnect fires once, receive() says so, and send() does nothing any more."""
    import socket

    began, left, done = Signal(), Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).on_disconnect = left.note
        await read_all(receive)
        began.note()
        assert (await receive())["type"] == "http.disconnect"
        await start(send)
        await body(send, b"x")
        cycle_of(scope).respond(200, [], b"x")
        done.note(cycle_of(scope).failure)

    with running(app) as served:
        with connect(served.address) as wire:
            wire.send(get())
            began.wait()
            if half:
                wire.sock.shutdown(socket.SHUT_WR)
                left.wait()
        left.wait()
        (failure,) = done.wait()
        eventually(lambda: served.http.open_connections == 0, "the connection stayed")
        assert served.http.in_flight == 0
    assert left.values == [None]
    assert failure.code == "client_disconnected"


def test_a_waiting_send_ends_when_the_client_leaves() -> None:
    """An application that waits for room is woken by the disconnect."""
    done = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        while not cycle_of(scope).disconnected:
            await body(send, b"x" * 65536, more=True)
        done.note()

    with serving(app) as address:
        with connect(address) as wire:
            wire.send(get())
            wire._until(b"\r\n\r\n")
        done.wait()


def test_a_body_cut_short_is_no_body() -> None:
    """A client that leaves in mid-body has not sent a request; nothing looks whole."""
    seen: list[Any] = []
    with running(recording_app(seen)) as served:
        with connect(served.address) as wire:
            wire.send(request(b"POST", b"/", b"Content-Length: 5", body=b"hel"))
        eventually(lambda: served.http.open_connections == 0, "the connection stayed")
    assert seen == []


def test_100_is_sent_when_the_body_is_asked_for() -> None:
    """RFC 9110 10.1.1: not before, and not if the answer comes first."""
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await read_all(receive)
        cycle_of(scope).respond(200, [], b"ok")

    with running(app) as served, connect(served.address) as wire:
        wire.send(request(b"POST", b"/", b"Expect: 100-continue", b"Content-Length: 5"))
        wire.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
        wire.sock.settimeout(15)
        served.call(go.set)
        assert wire._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"hello")
        assert wire.read().status == 200
        wire.send(get())
        assert wire.read().status == 200


def test_an_early_answer_to_an_expectation_closes() -> None:
    """RFC 9110 10.1.1: nobody knows what the client will send next, so the connection ends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(403, [], b"no")

    with serving(app) as address, connect(address) as wire:
        wire.send(request(b"POST", b"/", b"Expect: 100-continue", b"Content-Length: 5"))
        answer = wire.read()
        assert answer.interim == []
        assert answer.get(b"connection") == b"close"
        assert wire.ended()


def test_a_body_that_comes_unasked_needs_no_100() -> None:
    """RFC 9110 10.1.1: a server may leave the 100 out once it has some of the body."""
    with serving(recording_app([])) as address, connect(address) as wire:
        head = request(b"POST", b"/", b"Expect: 100-continue", b"Content-Length: 5", body=b"hello")
        wire.send(head)
        answer = wire.read()
        assert (answer.interim, answer.body) == ([], b"hello")


def test_drain_closes_the_idle_and_finishes_the_rest() -> None:
    """shutdown(): an idle connection ends, a request under way is answered with close."""
    began, go = Signal(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["raw_path"] == b"/slow":
            began.note()
            await go.wait()
        cycle_of(scope).respond(200, [], b"ok")

    with running(app) as served, connect(served.address) as idle, connect(served.address) as busy:
        idle.send(get())
        assert idle.read().status == 200
        busy.send(get(b"/slow"))
        began.wait()

        def shutdown() -> None:
            for connection in list(served.state.connections):
                connection.shutdown()

        served.call(shutdown)
        assert idle.ended()
        served.call(go.set)
        answer = busy.read()
        assert answer.body == b"ok"
        assert answer.get(b"connection") == b"close"
        assert busy.ended()


def test_a_streaming_answer_begun_before_the_drain_is_the_last() -> None:
    """Its head could not say close any more; the connection ends behind it all the same."""
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, (b"content-length", b"2"))
        await body(send, b"a", more=True)
        await go.wait()
        await body(send, b"b")

    with running(app) as served, connect(served.address) as wire:
        wire.send(get())
        wire._until(b"\r\n\r\na")
        served.call(lambda: [each.shutdown() for each in list(served.state.connections)])
        served.call(go.set)
        assert wire.rest() == b"b"
