"""What conformance cases are run against: an address, and a record of what got through to the end.

The record is kept by the last one in the line: the application here, the upstream for the gateway.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.server.factory import HttpFactory
from gateway.server.settings import ServerSettings
from tests.conformance.wire import Wire


@dataclass
class Seen:
    """A request that arrived whole."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """The field's value, all of them joined if there are several, or None."""
        values = [value for key, value in self.headers if key.lower() == name]
        return b", ".join(values) if values else None


@dataclass
class Target:
    """A server to be tested. `seen` is emptied before each case."""

    address: tuple[str, int]
    seen: list[Seen]

    def connect(self, timeout: float = 15.0) -> Wire:
        """A new connection to it."""
        return Wire(socket.create_connection(self.address, timeout), timeout)


def recording_app(seen: list[Seen]) -> Callable[..., Any]:
    """An application that reads each request to its end, notes it, and answers with its body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        target = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        trailers = scope["extensions"]["lockgate"].trailers
        seen.append(Seen(scope["method"], target, scope["headers"], body, trailers))
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


class Serving:
    """The lean protocol in a thread of its own, wired as uvicorn wires it, on a port of its own.

    uvicorn's own Server sleeps a fifth of a second when it stops, which every test would pay.
    """

    def __init__(self, app: Any, settings: ServerSettings, tls: ssl.SSLContext | None) -> None:
        self.http = HttpFactory(settings)
        self.state = ServerState()
        self.loop = uvloop.new_event_loop()
        self._config = uvicorn.Config(
            app,
            http=self.http,  # type: ignore[arg-type]
            ws="websockets-sansio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._tls = tls
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(128)
        self.address: tuple[str, int] = self._listening.getsockname()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._config.load()
        server = await self.loop.create_server(self._protocol, sock=self._listening, ssl=self._tls)
        await self._stop.wait()
        server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def _protocol(self) -> Any:
        return self.http(config=self._config, server_state=self.state, app_state={})

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the server's thread, and return what it returns."""

        async def wrapped() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(wrapped(), self.loop).result(10)

    def stop(self) -> None:
        """End, and wait for the end."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def running(
    app: Any, settings: ServerSettings | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Serving]:
    """A server that runs until the block ends."""
    served = Serving(app, settings or ServerSettings(), tls)
    try:
        yield served
    finally:
        served.stop()


@contextmanager
def serving(app: Any, settings: ServerSettings | None = None) -> Iterator[tuple[str, int]]:
    """Like `running`, for those who only want to know where."""
    with running(app, settings) as served:
        yield served.address
