"""An upstream in trouble: `python bench/failing.py PORT fail|stall`.

`/ok` is answered with 200 and `/count` with the number of requests for anything else, which is
answered with 503 after ten milliseconds, or never.
"""

from __future__ import annotations

import asyncio
import sys

DELAY_S = 0.01


def reply(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Trouble:
    """Serves connections. `count` is what was asked for."""

    def __init__(self, mode: str) -> None:
        self.stalls = mode == "stall"
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.split(b" ", 2)[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, path: bytes) -> bytes:
        if path == b"/ok":
            return reply("200 OK", b"ok")
        if path == b"/count":
            return reply("200 OK", str(self.count).encode())
        self.count += 1
        await asyncio.sleep(3600 if self.stalls else DELAY_S)
        return reply("503 Service Unavailable", b"")


async def main() -> None:
    trouble = Trouble(sys.argv[2])
    server = await asyncio.start_server(trouble.serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
