"""Small applications for the server's tests, and the server that runs them in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from gateway.server.cycle import Cycle

Handler = Callable[[Any, Any, Any], Any]


def cycle_of(scope: Any) -> Cycle:
    """The server's own interface to the exchange."""
    found: Cycle = scope["extensions"]["lockgate"]
    return found


async def start(send: Any, status: int = 200, *fields: tuple[bytes, bytes], **more: Any) -> None:
    """Send the head of an answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(fields), **more})


async def body(send: Any, data: bytes = b"", more: bool = False) -> None:
    """Send a piece of the body."""
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def read_all(receive: Any) -> bytes | None:
    """The whole request body, or None if the client left."""
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message["body"]
        if not message["more_body"]:
            return data


class Signal:
    """Something that happened in the server's thread, waited for in the test's."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.values: list[Any] = []

    def note(self, value: Any = None) -> None:
        """It happened."""
        self.values.append(value)
        self._event.set()

    def wait(self, seconds: float = 10.0) -> list[Any]:
        """What was noted, once something was."""
        assert self._event.wait(seconds), "it did not happen"
        return self.values


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
