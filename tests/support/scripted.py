"""Upstream servers that do exactly what a test says, byte by byte, over real sockets.

    async with ScriptedUpstream(answer(OK)) as upstream:
        ...                       # upstream.url goes into the configuration
        upstream.peers[0].received

A script is an async function that is given the `Peer`, one call a connection. The helpers below
make the usual ones. Errors in a script are raised when the server is closed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, cast

Script = Callable[["Peer"], Awaitable[None]]


def respond(
    body: bytes = b"ok", status: str = "200 OK", *fields: bytes, length: bool = True
) -> bytes:
    """A whole answer; `fields` are header lines without their line end."""
    lines = [b"HTTP/1.1 " + status.encode(), *fields]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OK = respond()


class Peer:
    """One connection, as its server sees it. `received` holds every byte that was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()
        self.requests: list[Received] = []
        self.gone = asyncio.Event()

    async def read(self, size: int = 65536) -> bytes:
        """Some bytes, or b"" once the other side has closed or reset."""
        try:
            data = await self.reader.read(size)
        except ConnectionError:
            data = b""
        self.received += data
        return data

    async def _exactly(self, size: int) -> bytes:
        data = await self.reader.readexactly(size)
        self.received += data
        return data

    async def _line(self) -> bytes:
        line = await self.reader.readuntil(b"\r\n")
        self.received += line
        return line

    async def head(self) -> Received:
        """The next request's head. Raises EOFError (IncompleteReadError) at the end."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        self.received += raw
        request = Received(raw)
        self.requests.append(request)
        return request

    async def request(self) -> Received:
        """The next request with its whole body."""
        request = await self.head()
        if request.get("transfer-encoding") == "chunked":
            while size := int(await self._line(), 16):
                request.body += await self._exactly(size)
                await self._line()
            await self._line()
        else:
            request.body = await self._exactly(int(request.get("content-length") or 0))
        return request

    async def send(self, data: bytes) -> None:
        """Write, and wait until it is taken. Raises ConnectionError if the other side left."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    def pause_reading(self) -> None:
        """Take nothing more off the wire."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Close with FIN."""
        self.writer.close()

    async def until_gone(self) -> None:
        """Read until the other side closes or resets."""
        while await self.read():
            pass
        self.gone.set()


class Received:
    """A request as it stood on the wire. `lines` are the header lines."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.line, *self.lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.method, self.target, _ = self.line.decode("latin-1").split(" ")
        self.fields = [
            (name.decode("latin-1").lower(), value.strip().decode("latin-1"))
            for name, _, value in (line.partition(b":") for line in self.lines)
        ]
        self.body = b""

    def get(self, name: str) -> str | None:
        """The field's values joined, or None."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class ScriptedUpstream:
    """A server that runs `script` on each connection, on loopback or on a unix socket.

    With several scripts, the n-th connection gets the n-th, and the last serves the rest.
    """

    def __init__(
        self, *scripts: Script, path: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.scripts = scripts
        self.peers: list[Peer] = []
        self.connected = asyncio.Event()
        self._path = path
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
        if error is None and self._failure is not None:
            raise self._failure

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """What stands under `targets:`."""
        if self._path is not None:
            return f"unix:{self._path}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Received]:
        """Every request of every connection, in the order of the connections."""
        return [request for peer in self.peers for request in peer.requests]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.connected.set()
        script = self.scripts[min(len(self.peers), len(self.scripts)) - 1]
        self._tasks.append(asyncio.ensure_future(self._serve(peer, script)))

    async def _serve(self, peer: Peer, script: Script) -> None:
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The other side left, which ends most scripts.
            peer.gone.set()
        except Exception as error:  # noqa: BLE001 - raised again when the server is closed
            self._failure = self._failure or error
        finally:
            peer.writer.close()


def answer(*replies: bytes) -> Script:
    """Answer each request of a connection with the next reply, the last one again and again."""

    async def script(peer: Peer) -> None:
        count = 0
        while True:
            await peer.request()
            await peer.send(replies[min(count, len(replies) - 1)])
            count += 1

    return script


def answer_then_close(*parts: bytes) -> Script:
    """Answer one request, in these writes, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0)
        peer.close()

    return script


def answer_then_reset(data: bytes = b"") -> Script:
    """Answer one request with these bytes, if any, and reset the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if data:
            await peer.send(data)
            # RST overtakes what the other side has not read yet; loopback needs a moment.
            await asyncio.sleep(0.05)
        peer.reset()

    return script


def answer_then_wait(data: bytes = b"") -> Script:
    """Answer one request with these bytes and say no more, until the other side leaves."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if data:
            await peer.send(data)
        await peer.until_gone()

    return script


async def close_at_once(peer: Peer) -> None:
    """Close the connection as soon as it is there."""
    peer.close()


async def echo(peer: Peer) -> None:
    """Answer every request with JSON that tells what arrived: method, target, fields, body."""
    while True:
        request = await peer.request()
        await peer.send(respond(echo_body(request), "200 OK", b"Content-Type: application/json"))


def echo_body(request: Received) -> bytes:
    """A request as JSON; the body as latin-1 text."""
    seen: dict[str, Any] = {
        "method": request.method,
        "target": request.target,
        "headers": request.fields,
        "body": request.body.decode("latin-1"),
    }
    return json.dumps(seen).encode()
