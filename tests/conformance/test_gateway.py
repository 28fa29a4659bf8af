"""The same raw requests against the whole gateway, with a recording upstream behind it.

What is refused must not reach the upstream, and what is served must reach it as one request with
the same meaning. The upstream reads with a parser of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.conformance.case import Case
from tests.conformance.runner import run
from tests.conformance.table import CASES, name_of
from tests.conformance.target import Seen, Target
from tests.support.gateway import routes, run_gateway
from tests.support.scripted import Peer, ScriptedUpstream, respond


class Serving:
    """A gateway and its upstream in a thread of their own."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[Seen] = []
        self.port = 0
        self._folder = folder
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with ScriptedUpstream(self._record) as upstream:
            async with run_gateway(self._folder, routes(upstream.url)) as gateway:
                self.port = gateway.port
                self._ready.set()
                await self._stop.wait()

    async def _record(self, peer: Peer) -> None:
        """Note each request that came whole, and answer it with its body."""
        while True:
            request = await peer.request()
            fields = [(name.encode(), value.encode("latin-1")) for name, value in request.fields]
            target = request.target.encode("latin-1")
            self.seen.append(Seen(request.method, target, fields, request.body))
            body = b"" if request.method == "HEAD" else request.body
            await peer.send(respond(body, "200 OK", b"Content-Type: text/plain"))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The whole gateway on the lean protocol, and what its upstream has seen."""
    serving = Serving(tmp_path_factory.mktemp("gateway"))
    try:
        yield Target(("127.0.0.1", serving.port), serving.seen)
    finally:
        serving.stop()


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_request(case: Case, target: Target) -> None:
    """The request reaches the upstream as the RFC says, or is refused with nothing let through."""
    run(case, target, exact_targets=False)
