"""Bytes and ends that come on a pooled connection in the moment in which it is used again.

The upstream here is a plain socket, so that what it does is on its way before the gateway's loop
has had a chance to see it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import INVALID_RESPONSE, UpstreamError
from tests.support.scripted import OK, respond
from tests.support.sending import fetch, running

EVIL = respond(b"evil")


class Bare:
    """A listening socket, and the connections that were accepted from it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self.accepted: list[socket.socket] = []

    @property
    def url(self) -> str:
        """What stands under `targets:`."""
        return f"http://127.0.0.1:{self.port}"

    async def accept(self) -> socket.socket:
        """The next connection."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        self.accepted.append(connection)
        return connection

    def close(self) -> None:
        """Everything."""
        for each in (self._socket, *self.accepted):
            each.close()


async def answer_one(connection: socket.socket, end: bytes = b"\r\n\r\n") -> bytes:
    """Read a request up to its `end`, and answer it."""
    loop = asyncio.get_running_loop()
    request = b""
    while not request.endswith(end):
        request += await loop.sock_recv(connection, 65536)
    await loop.sock_sendall(connection, OK)
    return request


@asynccontextmanager
async def bare() -> AsyncIterator[Bare]:
    """A bare upstream for the length of a block."""
    made = Bare()
    try:
        yield made
    finally:
        made.close()


async def after_one(server: Bare) -> socket.socket:
    """The server's side of a connection that has carried one exchange."""
    connection = await server.accept()
    await answer_one(connection)
    return connection


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("size", [5, 200_000])
async def test_an_end_that_is_on_its_way_costs_nobody_a_request(method: str, size: int) -> None:
    """Nothing was sent yet, so even what may not be done twice goes over a fresh connection."""
    async with bare() as server, running(server.url) as upstream:
        first, connection = await asyncio.gather(fetch(upstream), after_one(server))
        assert first == b"ok"
        connection.close()
        again = asyncio.create_task(fetch(upstream, method, body=b"x" * size))
        fresh = await asyncio.wait_for(server.accept(), 5)
        await answer_one(fresh, b"\r\n\r\n" + b"x" * size)
        assert await again == b"ok"


@pytest.mark.parametrize("size", [0, 200_000])
async def test_an_answer_that_nobody_asked_for_is_nobodys(size: int) -> None:
    """It is thrown away with its connection, and not taken for the answer to the next request."""
    async with bare() as server, running(server.url) as upstream:
        _, connection = await asyncio.gather(fetch(upstream), after_one(server))
        connection.send(EVIL)
        again = asyncio.create_task(fetch(upstream, "POST", body=b"x" * size))
        fresh = await asyncio.wait_for(server.accept(), 5)
        await answer_one(fresh, b"\r\n\r\n" + b"x" * size)
        assert await again == b"ok"
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == b""


async def test_a_streamed_body_is_not_given_to_a_connection_that_has_ended() -> None:
    """It can't be sent twice, so the connection is looked at before."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"hello"

    async with bare() as server, running(server.url) as upstream:
        _, connection = await asyncio.gather(fetch(upstream), after_one(server))
        connection.close()
        again = asyncio.create_task(fetch(upstream, "POST", stream=stream()))
        fresh = await asyncio.wait_for(server.accept(), 5)
        assert b"hello" in await answer_one(fresh, b"0\r\n\r\n")
        assert await again == b"ok"


async def test_who_speaks_first_speaks_no_http() -> None:
    """A server that greets is told from one that resets: the answer was not valid."""
    async with bare() as server, running(server.url) as upstream:
        asking = asyncio.create_task(fetch(upstream))
        for _ in range(2):
            connection = await asyncio.wait_for(server.accept(), 5)
            connection.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            if asking.done():
                break
            await asyncio.wait({asking}, timeout=0.2)
            if asking.done():
                break
        with pytest.raises(UpstreamError) as caught:
            await asking
        assert caught.value.kind is INVALID_RESPONSE
