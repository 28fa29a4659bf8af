"""What flows in both directions: back-pressure, expectations, leftovers, disconnects, drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.server.body import HIGH_WATER
from gateway.server.settings import ServerSettings
from tests.conformance.case import get, request
from tests.conformance.target import Target, recording_app, running, serving
from tests.conformance.wire import Ended, Wire
from tests.server.app import Signal, body, cycle_of, forever, start


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def connect(address: tuple[str, int]) -> Wire:
    return Target(address, []).connect()


def test_a_body_nobody_reads_is_not_taken_in() -> None:
    """The server stops reading once HIGH_WATER bytes wait; the client's writes stand still."""
    began, go = Signal(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        began.note(cycle_of(scope))
        await go.wait()
        got, more = 0, True
        while more:
            message = await receive()
            got, more = got + len(message["body"]), message["more_body"]
        cycle_of(scope).respond(200, [], b"%d" % got)

    size = 24_000_000
    with running(app) as served, connect(served.address) as wire:
        wire.send(request(b"POST", b"/", b"Content-Length: %d" % size))
        (cycle,) = began.wait()
        sent, piece = 0, b"x" * 1_000_000
        wire.sock.settimeout(0.3)
        try:
            while sent < size:
                sent += wire.sock.send(piece[: size - sent])
        except TimeoutError:
            pass
        assert sent < size
        assert served.call(lambda: cycle._body.size) < HIGH_WATER + 1_000_000
        wire.sock.settimeout(15)
        served.call(go.set)
        while sent < size:
            sent += wire.sock.send(piece[: size - sent])
        assert wire.read().body == b"%d" % size


def test_an_answer_nobody_reads_is_not_produced() -> None:
    """send() waits while the transport holds more than its high-water mark."""
    produced = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        while True:
            await body(send, b"x" * 65536, more=True)
            produced.append(65536)

    with running(app) as served, connect(served.address) as wire:
        wire.send(get())
        connections: Any = served.state.connections
        eventually(
            lambda: served.call(lambda: any(each.write_paused for each in connections)),
            "never paused",
        )
        before = sum(produced)
        (connection,) = connections
        size = served.call(connection.transport.get_write_buffer_size)
        assert size < 1_000_000
        assert sum(produced) - before <= 65536


def test_a_large_body_arrives_whole_in_both_directions() -> None:
    """Pausing and resuming loses nothing: 32 MB there and back."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await body(send, message["body"], more=more)

    size = 32_000_000
    data = bytes(range(256)) * (size // 256)

    def upload(wire: Wire) -> None:
        wire.send(request(b"POST", b"/", b"Content-Length: %d" % size, body=data))

    import threading

    with serving(echo) as address, connect(address) as wire:
        sender = threading.Thread(target=upload, args=(wire,))
        sender.start()
        head = wire._until(b"\r\n\r\n")
        assert b" 200 " in head
        pieces, got = [], 0
        while got < size:
            piece = wire._exactly(int(wire._until(b"\r\n")[:-2], 16))
            wire._exactly(2)
            pieces.append(piece)
            got += len(piece)
        sender.join()
        assert b"".join(pieces) == data


def test_requests_wait_behind_a_slow_one_and_stay_in_order() -> None:
    """RFC 9112 9.3.2: a second request is not begun while the first is under way."""
    order: list[bytes] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(scope["raw_path"])
        if scope["raw_path"] == b"/slow":
            await go.wait()
        cycle_of(scope).respond(200, [], scope["raw_path"])

    with running(app) as served, connect(served.address) as wire:
        wire.send(get(b"/slow") + get(b"/b") + get(b"/c"))
        eventually(lambda: bool(order), "no request began")
        assert order == [b"/slow"]
        assert served.http.in_flight == 1
        served.call(go.set)
        assert [wire.read().body for _ in range(3)] == [b"/slow", b"/b", b"/c"]
        assert served.http.in_flight == 0


def _send_for_ever(wire: Wire, data: bytes) -> None:
    while True:
        wire.sock.send(data)


def test_a_flood_of_pipelined_requests_is_held_back() -> None:
    """What waits is bounded, also if the client never reads an answer."""
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        cycle_of(scope).respond(200, [], b"x" * 1000)

    with running(app) as served, connect(served.address) as wire:
        flood = get(b"/" + b"a" * 1000) * 1000
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            _send_for_ever(wire, flood)
        (connection,) = served.state.connections
        held = served.call(lambda: len(connection._buffer))  # type: ignore[union-attr]
        assert held < 1_000_000
        served.call(go.set)
        wire.sock.settimeout(15)
        for _ in range(500):
            assert wire.read().status == 200


def test_a_small_body_nobody_read_does_not_cost_the_connection() -> None:
    """The rest of a short body is read and thrown away, and the next request is served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(200, [], scope["raw_path"])

    for framing, rest in (
        (b"Content-Length: 20000", b"x" * 20000),
        (b"Transfer-Encoding: chunked", b"4e20\r\n" + b"x" * 20000 + b"\r\n0\r\n\r\n"),
    ):
        with serving(app) as address, connect(address) as wire:
            wire.send(request(b"POST", b"/a", framing))
            assert wire.read().body == b"/a"
            wire.send(rest + get(b"/b"))
            assert wire.read().body == b"/b"


def test_a_large_body_nobody_read_ends_the_connection_readably() -> None:
    """RFC 9112 9.6: the answer can be read whole, though megabytes are still on their way."""
    import threading

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(403, [], b"no")

    with serving(app) as address, connect(address) as wire:
        size = 30_000_000
        data = request(b"POST", b"/", b"Content-Length: %d" % size, body=b"x" * size)
        sender = threading.Thread(target=wire.send, args=(data,))
        sender.start()
        answer = wire.read()
        assert (answer.status, answer.body) == (403, b"no")
        assert answer.get(b"connection") == b"close"
        assert wire.ended()
        sender.join()


def test_endless_chunks_nobody_reads_end_the_connection() -> None:
    """A body of unknown length is thrown away up to a bound, not for ever."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(200, [], b"ok")

    with serving(app) as address, connect(address) as wire:
        wire.send(request(b"POST", b"/", b"Transfer-Encoding: chunked"))
        assert wire.read().body == b"ok"
        for _ in range(100):
            wire.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        assert wire.ended()


def test_broken_chunks_after_the_answer_began_cut_it() -> None:
    """An answer under way can't be taken back; the client must see that it is not whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"hello", more=True)
        await forever()

    with serving(app) as address, connect(address) as wire:
        wire.send(request(b"POST", b"/", b"Transfer-Encoding: chunked"))
        wire._until(b"hello")
        wire.send(b"nonsense\r\n")
        with pytest.raises(Ended) as ended:
            wire._until(b"0\r\n\r\n")
    assert b"400" not in ended.value.partial


def test_one_connection_too_many_is_503() -> None:
    """limits.connections: the next one is told, closed, and does not count for long."""
    refused: list[str] = []
    given = ServerSettings(connections=2, on_refused=lambda kind, *_: refused.append(kind.code))
    with running(recording_app([]), given) as served:
        wires = [connect(served.address) for _ in range(2)]
        for wire in wires:
            wire.send(get())
            assert wire.read().status == 200
        with connect(served.address) as extra:
            answer = extra.read()
            assert answer.status == 503
            assert answer.get(b"connection") == b"close"
            assert extra.ended()
        wires[0].close()
        eventually(lambda: served.http.open_connections <= 1, "the connection stayed")
        with connect(served.address) as again:
            again.send(get())
            assert again.read().status == 200
        wires[1].close()
    assert refused == ["connection_limit"]


def test_take_body_is_synchronous_when_the_body_is_there() -> None:
    """take_body() returns a body that came with its head, without a turn of the loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle = cycle_of(scope)
        assert cycle.body_complete
        cycle.respond(200, [], cycle.take_body())

    with serving(app) as address, connect(address) as wire:
        wire.send(request(b"POST", b"/", b"Content-Length: 5", body=b"hello"))
        assert wire.read().body == b"hello"
        wire.send(get())
        assert wire.read().body == b""
