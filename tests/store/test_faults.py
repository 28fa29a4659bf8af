"""The store killed, stalled, restarted, silent and hostile, with callers that wait or leave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import ReplyError, Store
from gateway.store.link import MAX_IN_FLIGHT
from gateway.store.script import Script
from gateway.store.shared import SharedStore
from tests.store.servers import BINARIES, VALKEY, WAIT_S, answering, opened, serving, stopped
from tests.support.gateway import eventually

TIMEOUT_S = 0.1
# Other work on the machine makes a timer late; the store's own part is a millisecond or two.
GRACE_S = 0.4


async def timed(call: Any) -> tuple[object, float]:
    """How a call ended, and after how many seconds."""
    began = monotonic()
    try:
        result: object = await call
    except StoreError as error:
        result = error
    return result, monotonic() - began


@asynccontextmanager
async def load(store: Store, callers: int = 20) -> AsyncIterator[list[tuple[object, float]]]:
    """Callers without pause, for the length of the block."""
    seen: list[tuple[object, float]] = []

    async def caller(number: int) -> None:
        while True:
            seen.append(await timed(store.call("INCR", f"n{number}")))
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def works(store: Store) -> None:
    """Wait until calls succeed again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(StoreError):
                await store.call("PING")
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("binary", BINARIES)
async def test_stall_under_load(binary: str, tmp_path: Path) -> None:
    """While the server hangs, every call fails within the time limit, and most fail at once; it
    goes on by itself.
    """
    series = StoreSeries()
    async with serving(binary, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="100ms", series=series) as store:
            async with load(store) as seen:
                await eventually(lambda: len(seen) > 200)
                with stopped(server):
                    await eventually(lambda: store.status().state == "failing")
                    mark = len(seen)
                    await eventually(lambda: len(seen) > mark + 500)
                    assert series.up is False
                    failed = seen[mark:]
                await works(store)
                await eventually(lambda: not isinstance(seen[-1][0], StoreError))
            assert all(isinstance(result, StoreError) for result, _ in failed[20:])
            assert max(seconds for _, seconds in seen) < TIMEOUT_S + GRACE_S
            assert sorted(seconds for _, seconds in failed)[len(failed) // 2] < 0.01
            assert series.up is True
            assert series.timed_out >= 5


async def test_a_long_stall_costs_the_connection(tmp_path: Path) -> None:
    """A server that answers nothing for a second is connected anew, and then found well."""
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.url, tmp_path, timeout="50ms") as store:
            await store.call("PING")
            with stopped(server):
                for _ in range(6):
                    assert isinstance((await timed(store.call("PING")))[0], StoreError)
                await eventually(lambda: store.status().state == "down")
            await works(store)


@pytest.mark.parametrize("binary", BINARIES)
async def test_kill_and_restart_under_load(binary: str, tmp_path: Path) -> None:
    """Killed and started again, the store is used again, and no call took longer than it may."""
    async with serving(binary, tmp_path) as server:
        async with opened(server.url, tmp_path, timeout="100ms") as store:
            script = Script.of(b"return redis.call('INCR', KEYS[1])")
            assert await store.run(script, ("{a}",), ()) == 1
            async with load(store) as seen:
                await eventually(lambda: len(seen) > 100)
                server.kill()
                await eventually(lambda: store.status().state == "down")
                server.start()
                await works(store)
                mark = len(seen)
                await eventually(lambda: len(seen) > mark + 100)
            # The new server does not know the script.
            assert await store.run(script, ("{a}",), ()) == 1
            assert max(seconds for _, seconds in seen) < TIMEOUT_S + GRACE_S


async def test_failing_at_once_without_a_server(tmp_path: Path) -> None:
    """A store that is not there does not keep the gateway from starting, nor a call waiting."""
    async with opened(f"unix://{tmp_path}/none", tmp_path) as store:
        result, seconds = await timed(store.call("PING"))
        assert isinstance(result, StoreError)
        assert result.sent is False
        assert seconds < 0.1
        status = store.status()
        assert status.state == "down"
        assert "can't be reached" in status.last_error
        async with serving(VALKEY, tmp_path) as server:
            server.socket.rename(tmp_path / "none")
            await works(store)


async def test_time_limit_is_exact_and_other_replies_go_on(tmp_path: Path) -> None:
    """Two calls of different age each end when their own time is over."""
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="200ms") as store:
            with stopped(server):
                first = asyncio.create_task(timed(store.call("PING")))
                await asyncio.sleep(0.1)
                second = asyncio.create_task(timed(store.call("PING")))
                for result, seconds in (await first, await second):
                    assert isinstance(result, StoreError)
                    assert 0.19 < seconds < 0.2 + GRACE_S
            await eventually(lambda: store.status().in_flight == 0)
            assert await store.call("ECHO", "x") == b"x"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    plan=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=60
    )
)
def test_replies_reach_their_callers(plan: list[tuple[int, int, bool]]) -> None:
    """Whoever leaves, whenever, and however replies are cut: a reply is its own caller's."""
    asyncio.run(_cancelling(plan))


async def _cancelling(plan: list[tuple[int, int, bool]]) -> None:
    def answer(command: list[bytes]) -> bytes:
        return b"$%d\r\n%b\r\n" % (len(command[1]), command[1])

    async with answering(answer, cut=3) as url, opened(url, Path(), timeout="10s") as store:
        calls: list[tuple[int, asyncio.Task[Any]]] = []
        for number, (pause, wait, leaves) in enumerate(plan):
            task = asyncio.create_task(store.call("ECHO", number))
            calls.append((number, task))
            for _ in range(pause):
                await asyncio.sleep(0)
            if leaves:
                asyncio.get_running_loop().call_later(wait * 0.0003, task.cancel)
        for number, task in calls:
            with contextlib.suppress(asyncio.CancelledError):
                assert await task == b"%d" % number
        assert await store.call("ECHO", "last") == b"last"
        await eventually(lambda: store.status().in_flight == 0)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n", b"\0"])
async def test_bytes_that_are_no_reply(garbage: bytes, tmp_path: Path) -> None:
    """Bytes that break the protocol end the connection; nobody gets them as a reply later."""
    answers = iter([garbage])

    def answer(_: list[bytes]) -> bytes:
        return next(answers, b"+PONG\r\n")

    async with answering(answer) as url, opened(url, tmp_path, timeout="1s") as store:
        await eventually(lambda: store.status().in_flight == 0)
        with contextlib.suppress(StoreError):
            assert await store.call("PING") == b"OK"
        await eventually(lambda: store.status().last_error != "")
        await works(store)


async def test_lost_after_sending_is_told_and_not_sent_again(tmp_path: Path) -> None:
    """A command that may have been carried out fails, says so, and is not repeated."""
    got: list[list[bytes]] = []

    def answer(command: list[bytes]) -> bytes | None:
        got.append(command)
        return None

    async with answering(answer) as url, opened(url, tmp_path, timeout="1s") as store:
        await eventually(lambda: store.status().in_flight == 0)
        with pytest.raises(StoreError) as caught:
            await store.call("INCR", "once")
        assert caught.value.sent is True
        await eventually(lambda: store.status().state == "up")
        await eventually(lambda: store.status().in_flight == 0)
        assert sum(command[0] == b"INCR" for command in got) == 1


@pytest.mark.parametrize("reply", [b"-READONLY You can't write\r\n", b"-NOAUTH required\r\n"])
async def test_a_server_that_was_demoted_is_connected_anew(reply: bytes, tmp_path: Path) -> None:
    """A reply that says that this is not the server to write to ends the connection."""
    series = StoreSeries()
    answers = iter([reply])
    async with answering(lambda _: next(answers, b"+OK\r\n")) as url:
        async with opened(url, tmp_path, timeout="1s", series=series) as store:
            await eventually(lambda: store.status().in_flight == 0)
            with pytest.raises(ReplyError):
                await store.call("SET", "a", 1)
            await eventually(lambda: series.connects == 2)
            await works(store)


async def test_refusals_open_the_breaker(tmp_path: Path) -> None:
    """A server that refuses everything is left alone, then probed: while it loads, say."""
    full = True
    asked: list[list[bytes]] = []

    def answer(command: list[bytes]) -> bytes:
        asked.append(command)
        return b"-OOM command not allowed\r\n" if full else b"+OK\r\n"

    async with answering(answer) as url, opened(url, tmp_path, timeout="1s") as store:
        await eventually(lambda: store.status().in_flight == 0)
        for _ in range(5):
            with pytest.raises(ReplyError):
                await store.call("SET", "a", 1)
        assert store.status().state == "failing"
        with pytest.raises(StoreError, match="unavailable") as caught:
            await store.call("SET", "mine", 1)
        assert caught.value.sent is False
        assert "OOM" not in caught.value.detail
        await eventually(lambda: any(b"lockgate:probe" in command for command in asked))
        full = False
        await works(store)
        assert not any(b"mine" in command for command in asked)


async def test_leaving_while_connecting(tmp_path: Path) -> None:
    """A caller that waits for a connection may leave, and others do not notice."""
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="2s") as store:
            assert isinstance(store, SharedStore)
            await eventually(lambda: store.status().in_flight == 0)
            store._made_at = 0.0  # as if it had lived for long
            server.signal(signal.SIGSTOP)
            link = store._link
            assert link is not None
            link.close("cut by the test")
            await asyncio.sleep(0)
            waiting = [asyncio.create_task(store.call("ECHO", n)) for n in range(3)]
            await asyncio.sleep(0.02)
            waiting[1].cancel()
            server.signal(signal.SIGCONT)
            assert await waiting[0] == b"0"
            assert await waiting[2] == b"2"
            with pytest.raises(asyncio.CancelledError):
                await waiting[1]


async def test_too_many_in_flight(tmp_path: Path) -> None:
    """What waits for a hanging store is bounded; beyond that calls fail at once."""
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="10s") as store:
            await eventually(lambda: store.status().in_flight == 0)
            with stopped(server):
                tasks = [asyncio.create_task(store.call("PING")) for _ in range(MAX_IN_FLIGHT)]
                for _ in range(3):
                    await asyncio.sleep(0)
                result, seconds = await timed(store.call("PING"))
                assert isinstance(result, StoreError)
                assert result.sent is False
                assert seconds < 0.5
            assert await asyncio.gather(*tasks) == [b"PONG"] * MAX_IN_FLIGHT


async def test_large_values_pass_both_ways(tmp_path: Path) -> None:
    """A value far larger than socket buffers comes back whole, with small calls around it."""
    value = bytes(range(256)) * 40_000
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="10s") as store:
            replies = await asyncio.gather(
                *(store.call("ECHO", n) for n in range(50)),
                store.call("SET", "large", value),
                store.call("GET", "large"),
                *(store.call("ECHO", n) for n in range(50)),
            )
            assert replies[51] == value
            assert replies[-1] == b"49"


async def test_closing_ends_calls_that_wait(tmp_path: Path) -> None:
    """Nobody waits for a store that was closed."""
    async with serving(VALKEY, tmp_path) as server:
        async with opened(server.unix, tmp_path, timeout="10s") as store:
            await eventually(lambda: store.status().in_flight == 0)
            with stopped(server):
                task = asyncio.create_task(store.call("PING"))
                await asyncio.sleep(0)
                await store.aclose()
                with pytest.raises(StoreError, match="closed"):
                    await task
                with pytest.raises(StoreError):
                    await store.call("PING")
                await store.aclose()
                assert store.status().state == "closed"
