"""What every way to a store owes: one suite, for Valkey and Redis, over both sorts of socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import STORE_UNAVAILABLE, StoreError
from gateway.store.base import ReplyError, Store
from gateway.store.script import Script
from tests.store.servers import BINARIES, opened, serving

ADD = Script.of(b"return redis.call('INCRBY', KEYS[1], ARGV[1])", "add")


@asynccontextmanager
async def stored(binary: str, way: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with serving(binary, folder) as server:
            url = {"tcp": server.url, "unix": server.unix}[way]
            async with opened(url, folder, timeout="2s") as store:
                yield store


@pytest.mark.parametrize("way", ["unix", "tcp"])
@pytest.mark.parametrize("binary", BINARIES)
async def test_contract(binary: str, way: str) -> None:
    """Commands, scripts and errors give what the interface says."""
    async with stored(binary, way) as store:
        assert await store.call("SET", "k", b"\x00\xff", "PX", 60_000) == b"OK"
        assert await store.call(b"GET", b"k") == b"\x00\xff"
        assert await store.call("GET", "none") is None
        assert await store.call("RPUSH", "list", 1, 2.5, "x") == 3
        assert await store.call("LRANGE", "list", 0, -1) == [b"1", b"2.5", b"x"]
        assert await store.run(ADD, ("{a}",), (2,)) == 2
        assert await store.run(ADD, ("{a}",), (3,)) == 5
        await store.call("SCRIPT", "FLUSH")
        assert await store.run(ADD, ("{a}",), (1,)) == 6
        with pytest.raises(ReplyError) as caught:
            await store.call("INCR", "list")
        assert caught.value.code == "WRONGTYPE"
        assert caught.value.kind is STORE_UNAVAILABLE
        with pytest.raises(StoreError):
            await store.run(Script.of(b"return redis.call('NONE')"), (), ())
        status = store.status()
        assert status.state == "up"
        assert status.server.startswith(("valkey ", "redis "))


@pytest.mark.parametrize("binary", BINARIES)
async def test_many_at_once_get_their_own_replies(binary: str) -> None:
    """A thousand callers share the connection, and each gets its own reply."""
    async with stored(binary, "unix") as store:
        replies = await asyncio.gather(*(store.call("ECHO", n) for n in range(1000)))
        assert replies == [b"%d" % n for n in range(1000)]
