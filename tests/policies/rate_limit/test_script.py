"""The script in the store: the same decisions as its pure twin, on both servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policies.rate_limit.decide import Bucket, Limit, Quota, State, decide
from gateway.policies.rate_limit.policy import SCRIPT
from gateway.store.script import Script
from tests.store.servers import BINARIES, Server, opened

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_700_000_000 * SECOND


def with_injected_time() -> str:
    """The script with the time as its last argument, and without real expiry."""
    source = SCRIPT.source.decode()
    for real, injected in (
        ("redis.call('TIME')", "{ ARGV[#ARGV - 1], ARGV[#ARGV] }"),
        ("'PX', string.format(FORMAT, floor(us / 1000) + 1)", "'PX', 600000"),
    ):
        assert source.count(real) == 1
        source = source.replace(real, injected)
    return source


INJECTED = with_injected_time()


@pytest.fixture(scope="module", params=BINARIES)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """A real server, for all tests of this file."""
    running = Server(request.param, tmp_path_factory.mktemp("store"))
    running.start()
    try:
        asyncio.run(running.ready())
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[redis.Redis]:
    """A plain client, to look and to reach the script past the gateway's own connection."""
    with redis.Redis(unix_socket_path=str(server.socket)) as plain:
        yield plain


def argument(limits: list[Limit], enforced: list[bool]) -> bytes:
    """What the script gets for these limits."""
    return msgspec.msgpack.encode(
        [(limit.kind, must, *limit.args) for limit, must in zip(limits, enforced, strict=True)]
    )


LIMITS = st.builds(
    lambda count, period, burst, cost: Bucket(count, period, max(burst, cost), cost),
    st.integers(1, 2000) | st.sampled_from([999_983, 7_000_001, 10**12]),
    st.sampled_from([1000, SECOND, 7 * SECOND, 60 * SECOND, DAY, 30 * DAY]),
    st.integers(1, 30),
    st.integers(1, 3),
) | st.builds(
    lambda count, calendar, cost: Quota(max(count, cost), calendar, cost),
    st.integers(1, 30),
    st.sampled_from(["day", "month"]),
    st.integers(1, 3),
)
STEPS = st.lists(
    st.integers(0, 5) | st.integers(0, SECOND) | st.integers(-DAY, 40 * DAY),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    limits=st.lists(LIMITS, min_size=1, max_size=4),
    enforced=st.lists(st.booleans(), min_size=4, max_size=4),
    start=st.integers(0, 4 * 10**15),
    steps=STEPS,
)
def test_twins(
    client: redis.Redis, limits: list[Limit], enforced: list[bool], start: int, steps: list[int]
) -> None:
    """On any timeline, clocks that go back included, script and twin reply the same."""
    client.flushall()
    must = enforced[: len(limits)]
    keys = [f"{{x}}{place}" for place in range(len(limits))]
    states: list[State | None] = [None] * len(limits)
    now = start + DAY
    for step in steps:
        now = max(DAY, now + step)
        given_time = divmod(now, SECOND)
        replied = client.eval(INJECTED, len(keys), *keys, argument(limits, must), *given_time)
        reply, changed = decide(limits, must, states, now)
        assert replied == reply
        states = [new or old for new, old in zip(changed, states, strict=True)]


def run(client: redis.Redis, limits: list[Limit], *keys: str) -> list[int]:
    """The script as it is, with the server's own time."""
    source = SCRIPT.source.decode()
    return client.eval(source, len(keys), *keys, argument(limits, [True] * len(limits)))


def test_real_time(client: redis.Redis) -> None:
    """The clock is the store's: burst at once, then one for each interval."""
    client.flushall()
    bucket = Bucket(20, SECOND, 3)

    began = time.monotonic()
    passed = 0
    while time.monotonic() - began < 0.5:
        passed += run(client, [bucket], "{a}")[0]
    lasted = time.monotonic() - began
    assert 3 + 9 <= passed <= 3 + 20 * lasted + 1


def test_idle_buckets_vanish(client: redis.Redis) -> None:
    """A bucket is gone when it is full again, a quota when its day is over."""
    client.flushall()
    run(client, [Bucket(10, SECOND, 5), Quota(10, "day")], "{a}b", "{a}d")

    assert 1 <= client.pttl("{a}b") <= 101
    left_ms = 86_400_000 - int(client.time()[0]) % 86_400 * 1000
    assert left_ms - 3000 <= client.pttl("{a}d") <= left_ms + 1001


def test_values_that_are_no_state(client: redis.Redis) -> None:
    """A text that something else left there is a full bucket, not an error."""
    for text in ("", ":", "x", "1:2:3", "nan", "-5", "1e400"):
        client.flushall()
        client.set("{a}", text)
        assert run(client, [Bucket(10, SECOND, 5)], "{a}")[0] in (0, 1)


def test_memory_of_a_bucket(client: redis.Redis) -> None:
    """A bucket of a consumer costs little in the store, however long its name was."""
    client.flushall()
    key = "lockgate:limit:{orders.read:cconsumer-123456}b:consumer-s:"
    run(client, [Bucket(10, SECOND, 1000)], key)

    assert (client.memory_usage(key) or 0) < 300


async def test_through_the_store(server: Server, tmp_path: Path) -> None:
    """Through the gateway's own connection, many at once: exactly the burst passes."""
    bucket = Bucket(1, DAY, 50)
    args = (argument([bucket], [True]),)
    async with opened(server.unix, tmp_path, timeout="5s") as store:
        await store.call("DEL", "{many}")
        replies = await asyncio.gather(*(store.run(SCRIPT, (b"{many}",), args) for _ in range(200)))
        assert sum(reply[0] for reply in replies) == 50
        assert [bucket.remaining(r[1], r[2]) for r in replies[:50]] == list(range(49, -1, -1))


async def test_two_connections(server: Server, tmp_path: Path) -> None:
    """Two stores that race admit together what one would."""
    bucket = Bucket(1, DAY, 70)
    args = (argument([bucket], [True]),)
    async with (
        opened(server.unix, tmp_path, timeout="5s") as one,
        opened(server.unix, tmp_path, timeout="5s") as other,
    ):
        await one.call("DEL", "{race}")
        replies = await asyncio.gather(
            *(store.run(SCRIPT, (b"{race}",), args) for _ in range(100) for store in (one, other))
        )
    assert sum(reply[0] for reply in replies) == 70


def test_only_old_commands() -> None:
    """The script uses nothing that Redis 6.2 does not have."""
    commands = {
        line.split("redis.call('")[1].split("'")[0]
        for line in SCRIPT.source.decode().splitlines()
        if "redis.call('" in line
    }
    assert commands <= {"TIME", "GET", "MGET", "SET"}
    assert Script.of(SCRIPT.source).sha == SCRIPT.sha
