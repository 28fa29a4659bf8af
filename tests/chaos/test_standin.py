"""Stand-ins over real sockets: each kind of trouble is what it says, and ends when it should."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from gateway.chaos.scenario import Trouble
from gateway.chaos.standin import Answer, Ledger, StandIn

BODY = b'{"stand_in": true}'


@asynccontextmanager
async def stand_in(ledger: Ledger | None = None) -> AsyncIterator[StandIn]:
    made = StandIn("u", ledger or Ledger(), Random(1), time.monotonic)
    try:
        await made.start()
        yield made
    finally:
        await made.aclose()


def trouble(value: Any) -> Trouble:
    return Trouble.model_validate(value)


async def ask(
    server: StandIn, number: int = 7, *, head: str = "GET / HTTP/1.1", more: bytes = b""
) -> bytes:
    """Everything that comes back on a connection of its own, up to a whole body or the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        if not more:
            more = b"\r\n"
        writer.write(f"{head}\r\nhost: a\r\nx-lockgate-chaos: {number};r\r\n".encode() + more)
        found = await reader.readuntil(b"\r\n\r\n")
        for line in found.split(b"\r\n"):
            if line.startswith(b"content-length: ") and not head.startswith("HEAD"):
                left = int(line.split()[1])
                while left and (data := await reader.read(left)):
                    found += data
                    left -= len(data)
        return found
    finally:
        writer.close()


async def test_healthy() -> None:
    """A whole answer, and the request is counted under its number."""
    ledger = Ledger()
    async with stand_in(ledger) as server:
        got = await ask(server)
        chunked = b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        await ask(server, 8, head="POST / HTTP/1.1", more=chunked)
        await ask(server, 8, head="HEAD / HTTP/1.1")

    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(BODY)
    assert ledger.calls == {"u": {7: 1, 8: 2}}


async def test_a_route_has_its_own_answer() -> None:
    """Status, fields and body are the scenario's."""
    ledger = Ledger()
    ledger.answers = {"r": Answer.json({"id": 1}, 201, {"X-Version": "2"})}
    async with stand_in(ledger) as server:
        got = await ask(server)

    assert got.startswith(b"HTTP/1.1 201")
    assert b"X-Version: 2\r\n" in got
    assert got.endswith(b'{"id": 1}')


async def test_down_refuses_and_cuts() -> None:
    """New connections are refused, open ones are cut; up again, it has the same port."""
    async with stand_in() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(0)
        await server.settle(trouble("down"))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await ask(server)
        await server.settle(trouble("healthy"))
        assert (await ask(server)).endswith(BODY)


async def test_status_and_retry_after() -> None:
    """What it says instead."""
    async with stand_in() as server:
        await server.settle(trouble({"status": 503, "retry_after": 3}))
        got = await ask(server)

    assert got.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 3\r\n" in got


async def test_reset() -> None:
    """The connection is reset without a byte."""
    async with stand_in() as server:
        await server.settle(trouble("reset"))
        with pytest.raises(ConnectionResetError):
            await ask(server)


async def test_truncate() -> None:
    """Half of the body, then the end."""
    async with stand_in() as server:
        await server.settle(trouble("truncate"))
        got = await ask(server)

    assert got.endswith(BODY[: len(BODY) // 2])


async def test_stall_answers_nobody() -> None:
    """The request is taken; only the client's patience ends it."""
    ledger = Ledger()
    async with stand_in(ledger) as server:
        await server.settle(trouble("stall"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(server), 0.5)

    assert ledger.calls == {"u": {7: 1}}


async def test_latency_and_jitter() -> None:
    """An answer takes so long, and up to so much longer."""
    async with stand_in() as server:
        await server.settle(trouble({"latency": "50ms", "jitter": "20ms"}))
        began = time.monotonic()
        await ask(server)

    assert time.monotonic() - began >= 0.05


async def test_a_share_meets_it() -> None:
    """About half of two hundred, and the same ones with the same seed."""
    seen = []
    for _ in range(2):
        async with stand_in() as server:
            await server.settle(trouble({"status": 500, "share": "50%"}))
            seen.append([(await ask(server))[9:12] for _ in range(60)])

    assert seen[0] == seen[1]
    assert 15 <= seen[0].count(b"500") <= 45


async def test_flapping_goes_and_comes() -> None:
    """In trouble first, then healthy; the same for what does not listen."""
    async with stand_in() as server:
        await server.settle(trouble({"status": 500, "flap": "500ms"}))
        assert b"500" in await ask(server)
        await asyncio.sleep(0.55)
        assert b"200" in await ask(server)
        await server.settle(trouble({"down": True, "flap": "500ms"}))
        with pytest.raises(ConnectionRefusedError):
            await ask(server)
        await asyncio.sleep(0.55)
        assert b"200" in await ask(server)
