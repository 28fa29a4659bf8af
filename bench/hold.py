"""A client with many idle connections: `python bench/hold.py PORT COUNT`.

Opens them, sends one request over each, prints `held COUNT`, and keeps them open until its
standard input ends.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.processes import raise_open_files

REQUEST = b"GET /item HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
# One source address has about 28,000 ports to give (ip(7): ip_local_port_range).
FOR_EACH_ADDRESS = 20_000


def open_one(port: int, number: int) -> socket.socket:
    """A connection that has had its first answer."""
    source = (f"127.0.0.{1 + number // FOR_EACH_ADDRESS}", 0)
    connection = socket.create_connection(("127.0.0.1", port), 30, source_address=source)
    connection.sendall(REQUEST)
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += connection.recv(65536)
    head, _, body = seen.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"connection {number}: {head[:60]!r}")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(missing))
    return connection


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    raise_open_files()
    held = [open_one(port, number) for number in range(count)]
    print(f"held {len(held)}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
