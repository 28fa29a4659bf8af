"""An HTTP client that writes a test's own bytes, and reads answers with nothing hidden.

The counterpart for the test's own loop of `tests/conformance/wire.py`, which blocks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from types import TracebackType
from typing import Any, Self

from tests.conformance.wire import Answer, Ended

WAIT_S = 20.0


class RawClient:
    """One connection. Every wait is bounded."""

    def __init__(self, **where: Any) -> None:
        self._where = where
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        opening = (
            asyncio.open_unix_connection(**self._where)
            if "path" in self._where
            else asyncio.open_connection(**self._where)
        )
        self.reader, self.writer = await asyncio.wait_for(opening, WAIT_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Write, and wait until it is taken; a server that has closed already is fine."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), WAIT_S)
        except ConnectionError:
            pass

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """The next final answer, with the interim ones before it. Raises Ended."""
        answer = await self.head()
        await self._read_body(answer, method)
        return answer

    async def head(self) -> Answer:
        """The next final answer's head alone."""
        interim: list[int] = []
        while True:
            raw = await self._until(b"\r\n\r\n")
            line, *fields = raw[:-4].split(b"\r\n")
            version, code, *_ = line.split(b" ")
            assert version == b"HTTP/1.1", line
            status = int(code)
            if 100 <= status < 200 and status != 101:
                interim.append(status)
                continue
            headers = []
            for each in fields:
                name, colon, value = each.partition(b":")
                assert colon, each
                headers.append((name.lower(), value.strip()))
            return Answer(status, headers, b"", raw, interim, [])

    async def _read_body(self, answer: Answer, method: str) -> None:
        index = dict(answer.headers)
        if method == "HEAD" or answer.status in (101, 204, 304):
            return
        if index.get(b"transfer-encoding") == b"chunked":
            try:
                while piece := await self.chunk():
                    answer.body += piece
                while (line := await self._until(b"\r\n")) != b"\r\n":
                    name, _, value = line[:-2].partition(b":")
                    answer.trailers.append((name.lower(), value.strip()))
            except Ended:
                raise Ended(answer.body) from None
        elif b"content-length" in index:
            answer.body = await self.exactly(int(index[b"content-length"]))
        else:
            answer.body = await self.rest()

    async def chunk(self) -> bytes:
        """The next chunk's data; empty for the last one, whose trailers are left unread."""
        size = int((await self._until(b"\r\n"))[:-2], 16)
        if not size:
            return b""
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data

    async def exactly(self, size: int) -> bytes:
        """This many bytes. Raises Ended with what came, if the server ends before."""
        try:
            return await asyncio.wait_for(self.reader.readexactly(size), WAIT_S)
        except asyncio.IncompleteReadError as error:
            raise Ended(error.partial) from None
        except ConnectionError:
            raise Ended(b"") from None

    async def _until(self, mark: bytes) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readuntil(mark), WAIT_S)
        except asyncio.IncompleteReadError as error:
            raise Ended(error.partial) from None
        except ConnectionError:
            raise Ended(b"") from None

    async def rest(self) -> bytes:
        """Everything until the server ends the connection, with a reset or without."""
        try:
            return await asyncio.wait_for(self.reader.read(), WAIT_S)
        except ConnectionError:
            return b""

    async def ended(self) -> bool:
        """Whether the server ends the connection, with nothing more on it. Waits for it."""
        return await self.rest() == b""

    def leave(self) -> None:
        """Close with FIN, as clients do that stop waiting."""
        self.writer.close()

    def reset(self) -> None:
        """Close with RST, as clients do that die."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def raw_client(port: int, tls: ssl.SSLContext | None = None) -> RawClient:
    """A client for a port on loopback; enter it with `async with`."""
    if tls is None:
        return RawClient(host="127.0.0.1", port=port)
    return RawClient(host="127.0.0.1", port=port, ssl=tls, server_hostname="localhost")


def raw_unix(path: str) -> RawClient:
    """A client for a unix socket."""
    return RawClient(path=path)
