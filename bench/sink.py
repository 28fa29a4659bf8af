"""An upstream that swallows uploads: `python bench/sink.py PORT`. Standard library alone.

Reads each request to its end, then answers with the number of body bytes that came. It exists
because nginx answers before it has read the body, which is not what is to be measured.
"""

from __future__ import annotations

import socket
import sys
import threading

PIECE = 1 << 18


def serve(connection: socket.socket) -> None:
    """One request after another, until the peer closes or sends what this does not understand."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(PIECE)
    pending = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in pending:
                more = connection.recv(PIECE)
                if not more:
                    return
                pending += more
            head, _, pending = pending.partition(b"\r\n\r\n")
            length = content_length(head)
            received = len(pending)
            pending = b""
            while received < length:
                count = connection.recv_into(buffer)
                if not count:
                    return
                received += count
            body = b'{"received": %d}' % received
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )


def content_length(head: bytes) -> int:
    """The length of the body that follows; 0 for a request without one. ValueError if chunked."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        if name.lower() == b"transfer-encoding":
            raise ValueError("this sink wants a Content-Length")
    return 0


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
