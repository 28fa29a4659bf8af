"""A client that is too slow, in each of the ways there are, and one that only looks slow."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from gateway.server.settings import ServerSettings
from tests.conformance.case import get, request
from tests.conformance.target import Target, recording_app, running, serving
from tests.server.app import Signal, body, cycle_of, read_all, start

NEVER = 60.0


def settings(**changes: Any) -> ServerSettings:
    given = {
        "headers_timeout": NEVER, "body_idle_timeout": NEVER, "keep_alive_timeout": NEVER,
        "body_grace": NEVER,
    }  # fmt: skip
    return ServerSettings(**(given | changes))


def test_a_connection_that_says_nothing_is_closed_in_silence() -> None:
    """RFC 9112 9.5: no request, no answer."""
    with (
        serving(recording_app([]), settings(headers_timeout=0.2)) as address,
        Target(address, []).connect() as wire,
    ):
        assert wire.ended()


def test_a_head_that_does_not_end_is_408() -> None:
    """RFC 9110 15.5.9: the whole head counts, so that a drip does not help."""
    refused: list[str] = []
    given = settings(headers_timeout=0.4, on_refused=lambda kind, *_: refused.append(kind.code))
    seen: list[Any] = []
    with serving(recording_app(seen), given) as address, Target(address, []).connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\n")
        wire.sock.settimeout(0.05)
        deadline = time.monotonic() + 10
        while not wire.buffer and time.monotonic() < deadline:
            wire.send(b"X")
            try:
                wire._more()
            except TimeoutError:
                continue
        wire.sock.settimeout(10)
        assert wire.read().status == 408
        assert wire.ended()
    assert refused == ["request_timeout"]
    assert seen == []


def test_a_second_head_that_does_not_end_is_408() -> None:
    """The time for a head starts with its first byte, not with the connection."""
    with (
        serving(recording_app([]), settings(headers_timeout=0.3)) as address,
        Target(address, []).connect() as wire,
    ):
        wire.send(get() + b"GET / HT")
        assert wire.read().status == 200
        assert wire.read().status == 408
        assert wire.ended()


def test_an_idle_connection_outlives_the_time_for_a_head() -> None:
    """RFC 9112 9.5: between requests the keep-alive timeout counts, and then it ends in silence."""
    given = settings(headers_timeout=0.1, keep_alive_timeout=0.5)
    with serving(recording_app([]), given) as address, Target(address, []).connect() as wire:
        before = time.monotonic()
        wire.send(get())
        assert wire.read().status == 200
        assert wire.ended()
        assert time.monotonic() - before >= 0.4


def test_a_body_that_stops_is_408_and_the_application_learns_it() -> None:
    """RFC 9110 15.5.9: nothing for body_idle seconds; the application sees a disconnect."""
    left = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle = cycle_of(scope)
        cycle.on_disconnect = left.note
        assert await read_all(receive) is None
        left.note(cycle.failure.code if cycle.failure else "")

    with (
        serving(app, settings(body_idle_timeout=0.3)) as address,
        Target(address, []).connect() as wire,
    ):
        wire.send(request(b"POST", b"/", b"Content-Length: 5", body=b"h"))
        assert wire.read().status == 408
        assert wire.ended()
        left.wait()
    assert left.values == [None, "request_timeout"]


def test_a_body_that_drips_is_408() -> None:
    """A byte now and then is never idle, and still too slow on average."""
    given = settings(body_idle_timeout=5.0, body_grace=0.4, body_min_rate=1000.0)
    with serving(recording_app([]), given) as address, Target(address, []).connect() as wire:
        wire.send(request(b"POST", b"/", b"Content-Length: 1000"))
        wire.sock.settimeout(0.05)
        deadline = time.monotonic() + 10
        while not wire.buffer and time.monotonic() < deadline:
            wire.send(b"x")
            try:
                wire._more()
            except TimeoutError:
                continue
        wire.sock.settimeout(10)
        assert wire.read().status == 408


def test_a_chunked_body_that_drips_is_408() -> None:
    """The average counts for a body of unknown length as well."""
    given = settings(body_idle_timeout=5.0, body_grace=0.3, body_min_rate=10_000.0)
    with serving(recording_app([]), given) as address, Target(address, []).connect() as wire:
        wire.send(request(b"POST", b"/", b"Transfer-Encoding: chunked", body=b"1\r\na\r\n"))
        assert wire.read().status == 408


def test_a_slow_application_is_not_the_clients_fault() -> None:
    """Time in which the server itself did not read counts against nobody."""
    size = 2_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.0)
        got = await read_all(receive)
        cycle_of(scope).respond(200, [], b"%d" % len(got or b""))

    given = settings(body_idle_timeout=0.5, body_grace=0.5, body_min_rate=1000.0)
    with serving(app, given) as address, Target(address, []).connect() as wire:
        wire.send(request(b"POST", b"/", b"Content-Length: %d" % size, body=b"x" * size))
        assert wire.read().body == b"%d" % size


def test_a_client_that_does_not_read_its_answer_is_cut() -> None:
    """A stalled answer ends, and its application with it; memory is not held for ever."""
    left = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).on_disconnect = left.note
        await start(send)
        while not left.values:
            await body(send, b"x" * 65536, more=True)

    with serving(app, settings(body_idle_timeout=0.3)) as address:
        wire = Target(address, []).connect()
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with wire:
            wire.send(get())
            left.wait()
    assert len(left.values) == 1


def test_a_whole_answer_that_is_not_read_is_cut() -> None:
    """The same for an answer that the application has long finished with."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(200, [(b"connection", b"close")], b"x" * 20_000_000)

    with running(app, settings(body_idle_timeout=0.3)) as served:
        with Target(served.address, []).connect() as wire:
            wire.send(get())
            deadline = time.monotonic() + 10
            opened = False
            while time.monotonic() < deadline:
                count = served.http.open_connections
                opened = opened or count == 1
                if opened and count == 0:
                    break
                time.sleep(0.02)
            assert served.http.open_connections == 0
        assert opened


def test_a_slow_reader_gets_its_answer() -> None:
    """Reading slowly is allowed, as long as something is read."""
    size = 8_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, (b"content-length", b"%d" % size))
        for number in range(8):
            await body(send, b"x" * 1_000_000, more=number < 7)

    with (
        serving(app, settings(body_idle_timeout=1.0)) as address,
        Target(address, []).connect() as wire,
    ):
        wire.send(get())
        got = 0
        while got < size:
            data = wire.sock.recv(1_000_000)
            assert data
            got += len(data)
            time.sleep(0.05)


def test_new_settings_hold_for_open_connections() -> None:
    """A reload changes one object, and connections follow without being opened anew."""
    given = settings()
    with serving(recording_app([]), given) as address, Target(address, []).connect() as wire:
        wire.send(get())
        assert wire.read().status == 200
        given.keep_alive_timeout = 0.2
        given.target_bytes = 10
        wire.send(get(b"/ok"))
        assert wire.read().status == 200
        assert wire.ended()
        with Target(address, []).connect() as other:
            other.send(get(b"/longer-than-ten"))
            assert other.read().status == 414
