"""Any bytes, in any pieces: the protocol never raises, and means the same however they are cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.server.factory import HttpFactory
from gateway.server.protocol import HttpProtocol
from gateway.server.settings import ServerSettings
from tests.conformance.table import SERVER_CASES
from tests.conformance.target import Seen, recording_app

# Bytes that mean something, so that random input gets further than the first line.
_WORDS = st.sampled_from(
    [b"GET ", b"POST ", b"HEAD ", b"/", b"*", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\r", b"\n", b"\0",
     b"3\r\nabc\r\n", b"0\r\n", b"0\r\n\r\n", b"abc", b": ", b" ", b"\t", b";", b"ffffffff\r\n",
     b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
     b"Expect: 100-continue\r\n", b"\x16\x03\x01", b"http://a/", b"#", b"\xff"]
)  # fmt: skip
_SOUP = st.lists(_WORDS | st.binary(max_size=6), max_size=25).map(b"".join)
_VALID = st.sampled_from([case for case in SERVER_CASES if case.statuses])


class Pipe(asyncio.Transport):
    """A transport that keeps what is written, and notes whether it was ended."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []
        self.ended = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written.extend(bytes(each) for each in list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0


async def feed(pieces: list[bytes]) -> tuple[list[bytes], list[Seen], bool]:
    """What a connection answers to these reads, what arrived at the application, and its end."""
    seen: list[Seen] = []
    factory = HttpFactory(ServerSettings())
    config = uvicorn.Config(
        recording_app(seen), http=factory, ws="none", lifespan="off", interface="asgi3",  # type: ignore[arg-type]
        log_config=None, proxy_headers=False,
    )  # fmt: skip
    protocol: HttpProtocol = factory(config, ServerState(), {})
    pipe = Pipe()
    protocol.connection_made(pipe)
    for piece in pieces:
        protocol.data_received(piece)
        # The application runs between reads or does not; both happen.
        if len(piece) % 2:
            await asyncio.sleep(0)
    for _ in range(250):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert factory.in_flight == 0
    assert factory.open_connections == 0
    assert not factory.state.tasks
    answers = b"".join(pipe.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    lines = [line for line in answers.split(b"\r\n") if not line.startswith(b"date: ")]
    return lines, seen, pipe.ended


def run(pieces: list[bytes]) -> tuple[list[bytes], list[Seen], bool]:
    """`feed`, in a loop of its own."""
    return asyncio.run(feed(pieces))


def outcome(pieces: list[bytes]) -> tuple[list[bool], list[Seen], bool]:
    """Which answers were good, what arrived, and whether the connection was ended."""
    lines, seen, ended = run(pieces)
    return [b" 200 " in line for line in lines if line.startswith(b"HTTP/1.1 ")], seen, ended


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` cut at some places."""
    edges = sorted({each % (len(data) + 1) for each in places} | {0, len(data)})
    return [data[one:two] for one, two in pairwise(edges)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=_SOUP, places=st.lists(st.integers(0, 500), max_size=5))
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    """No exception, nothing left behind, and the same outcome for every way of cutting.

    Which of several faults is named first may differ, so refusals are all alike here.
    """
    assert outcome(cut(data, places)) == outcome([data])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=_VALID, places=st.lists(st.integers(0, 10_000), max_size=6))
def test_known_requests_mean_the_same_however_they_are_cut(case: Any, places: list[int]) -> None:
    """Every conformance case, cut at random places, gives what it gives in one piece."""
    data = b"".join(case.send)
    assert run(cut(data, places)) == run([data])


def test_byte_by_byte() -> None:
    """One byte a read is the finest cut there is."""
    data = (
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    whole = run([data])
    assert run([data[each : each + 1] for each in range(len(data))]) == whole
    assert [each.target for each in whole[1]] == [b"/a", b"/b"]
