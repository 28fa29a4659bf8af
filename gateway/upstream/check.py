"""One active check: a GET on a connection of its own, and whether its answer passes.

A new connection each time, because that is what it must find out too: whether the target still
accepts any. It takes no slot of the pool, so that checks neither wait for traffic nor delay it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import UpstreamError
from gateway.http1.head import MalformedMessage, parse_response_head
from gateway.upstream.outcome import word_of

if TYPE_CHECKING:
    from gateway.config.model_balance import HealthConfig
    from gateway.upstream.connector import Connector
    from gateway.upstream.target import Target

_MAX_HEAD: Final = 64 * 1024


class Result(NamedTuple):
    """How a check ended: `passed`, `status`, or a word of `outcome`; passed, `reason` is empty."""

    word: str
    reason: str = ""


class _Probe:
    """The client's side of one check: it writes the request, and `status` is the final answer's."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        if self._closed:
            transport.abort()
        else:
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        try:
            while not self.status.done() and (stop := received.find(b"\r\n\r\n") + 4) > 3:
                head = parse_response_head(bytes(received[:stop]), "GET")
                if head.status >= 200:
                    self.status.set_result(head.status)
                del received[:stop]
        except MalformedMessage as error:
            self._fail("invalid", f"the answer is not HTTP: {error.reason}")
        if len(received) > _MAX_HEAD:
            self._fail("invalid", f"a header of more than {_MAX_HEAD} bytes")

    def eof_received(self) -> bool:
        self._fail("reset", "the connection was closed without an answer")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()

    def pause_writing(self) -> None:
        """Part of asyncio's protocol; one request fits every buffer."""

    resume_writing = pause_writing

    def _fail(self, word: str, reason: str) -> None:
        if not self.status.done():
            self.status.set_exception(_CheckError(word, reason))

    def close(self) -> None:
        """Cut the connection; its end is told to nobody any more."""
        self._closed = True
        if not self.status.done():
            self.status.cancel()
        elif not self.status.cancelled():
            self.status.exception()
        if self._transport is not None:
            self._transport.abort()


class _CheckError(Exception):
    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.result = Result(word, reason)


class Check:
    """What a target is asked, and which answers pass."""

    def __init__(self, config: HealthConfig, target: Target, connector: Connector) -> None:
        self._config = config
        self._target = target
        self._connector = connector
        host = config.host.encode("ascii") if config.host else target.authority
        self._request = (
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: lockgate-health\r\nAccept: */*\r\n"
            b"Connection: close\r\n\r\n" % (config.path.encode("ascii"), host)
        )

    async def run(self) -> Result:
        """Check once. Cancelled, it leaves nothing behind."""
        probes: list[_Probe] = []

        def factory() -> _Probe:
            probe = _Probe(self._request)
            probes.append(probe)
            return probe

        seconds = self._config.time
        try:
            async with asyncio.timeout(seconds):
                probe = await self._connector.connect(self._target, factory)
                return self._judge(await probe.status)
        except TimeoutError:
            return Result("timeout", f"no answer within {seconds:g} s")
        except _CheckError as error:
            return error.result
        except UpstreamError as error:
            return Result(word_of(error) or error.kind.code, error.detail or error.kind.title)
        finally:
            for each in probes:
                each.close()

    def _judge(self, status: int) -> Result:
        if any(first <= status <= last for first, last in self._config.status):
            return Result("passed")
        return Result("status", f"answered {status}")
