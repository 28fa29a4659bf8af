"""One large body up or down: `python bench/transfer.py up|down PORT PATH BYTES`.

Prints the seconds it took. Blocking sockets and large buffers, so that it costs little itself.
"""

from __future__ import annotations

import socket
import sys
import time

PIECE = 1 << 18
TIMEOUT_S = 120.0


def down(connection: socket.socket, path: str, size: int) -> None:
    """Fetch a body of that many bytes; RuntimeError if it is another."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    received = len(read_head(connection))
    buffer = bytearray(PIECE)
    while received < size:
        count = connection.recv_into(buffer)
        if not count:
            raise RuntimeError(f"the answer ended after {received} of {size} bytes")
        received += count
    if received > size:
        raise RuntimeError(f"{received - size} bytes too many")


def up(connection: socket.socket, path: str, size: int) -> None:
    """Send a body of that many bytes; RuntimeError if not all of them arrived."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode())
    piece = memoryview(bytes(PIECE))
    for sent in range(0, size, PIECE):
        connection.sendall(piece[: min(PIECE, size - sent)])
    answer = read_head(connection)
    if f'"received": {size}'.encode() not in answer:
        answer += connection.recv(PIECE)
    if f'"received": {size}'.encode() not in answer:
        raise RuntimeError(f"the upload did not arrive whole: {answer!r}")


def read_head(connection: socket.socket) -> bytes:
    """Read up to the end of a 200's head; what of the body came along."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        more = connection.recv(PIECE)
        if not more:
            raise RuntimeError(f"no answer: {seen!r}")
        seen += more
    head, _, rest = seen.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n")[0].decode(errors="replace"))
    return rest


def main() -> None:
    direction, port, path, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        began = time.perf_counter()
        (up if direction == "up" else down)(connection, path, size)
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
