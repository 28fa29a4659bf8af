"""A blocking HTTP client that reads answers as bytes, and keeps nothing hidden."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self


class Ended(Exception):
    """The connection ended where an answer was expected; `partial` is what came of it."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(partial[:200])
        self.partial = partial


@dataclass
class Answer:
    """One answer as it was on the wire; names in lower case. `interim` holds the 1xx before it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    raw: bytes
    interim: list[int]
    trailers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes | None:
        """The field's value, all of them joined if there are several, or None."""
        values = [value for key, value in self.headers if key == name]
        return b", ".join(values) if values else None


class Wire:
    """A connection to the server under test."""

    def __init__(self, sock: socket.socket, timeout: float = 15.0) -> None:
        self.sock = sock
        self.sock.settimeout(timeout)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """Write; a server that has closed already is fine."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Ended(self.buffer)
        self.buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read(self, method: str = "GET") -> Answer:
        """The next final answer, with the interim ones before it. Raises Ended."""
        interim: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n")
            line, *fields = head[:-4].split(b"\r\n")
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
            answer = Answer(status, headers, b"", head, interim, [])
            self._read_body(answer, method)
            return answer

    def _read_body(self, answer: Answer, method: str) -> None:
        index = dict(answer.headers)
        if method == "HEAD" or answer.status in (101, 204, 304):
            return
        if index.get(b"transfer-encoding") == b"chunked":
            while size := int(self._until(b"\r\n")[:-2], 16):
                answer.body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            while (line := self._until(b"\r\n")) != b"\r\n":
                name, _, value = line[:-2].partition(b":")
                answer.trailers.append((name.lower(), value.strip()))
        elif b"content-length" in index:
            answer.body = self._exactly(int(index[b"content-length"]))
        else:
            answer.body = self.rest()

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        try:
            while True:
                self._more()
        except Ended:
            data, self.buffer = self.buffer, b""
            return data

    def ended(self) -> bool:
        """Whether the server ends the connection, with nothing more on it. Waits for it."""
        return self.rest() == b""

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
