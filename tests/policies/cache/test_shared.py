"""Gateways that share answers in one real store: seen by all, purged for all, or done without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.errors import StoreError
from gateway.policies.cache.entry import Selector
from gateway.store.base import Store
from tests.policies.cache.desk import START, Desk, reply
from tests.store.servers import BINARIES, VALKEY, Server, opened, serving, stopped

FRESH = reply("Cache-Control: max-age=60", 'ETag: "a"', "Cache-Tag: t", body=b"one\0\xff")
OTHER = reply("Cache-Control: max-age=60", 'ETag: "b"', body=b"two")


@dataclass
class Pair:
    """Two gateways, each with memory of its own, on one store and one clock."""

    one: Desk
    two: Desk
    clock: ManualClock
    server: Server
    store: Store

    async def idle(self) -> None:
        await self.one.tier_idle()
        await self.two.tier_idle()


async def start(desk: Desk) -> None:
    tier = desk.policy._tier
    assert tier is not None
    await tier.start()
    await desk.policy.start()


@asynccontextmanager
async def pair(binary: str, folder: Path, **config: Any) -> AsyncIterator[Pair]:
    clock = ManualClock(START)
    async with serving(binary, folder / "server") as server:
        async with opened(server.url, folder, timeout="200ms") as first:
            async with opened(server.url, folder, timeout="200ms") as second:
                one = Desk(store=first, clock=clock, shared=True, **config)
                two = Desk(store=second, clock=clock, shared=True, **config)
                await start(one)
                await start(two)
                yield Pair(one, two, clock, server, second)
                for desk in (one, two):
                    await desk.policy.aclose()
                    assert desk.policy._tier is not None
                    await desk.policy._tier.aclose()


@pytest.mark.parametrize("binary", BINARIES)
async def test_what_one_fetched_the_other_has(binary: str, tmp_path: Path) -> None:
    """An answer fetched by one gateway is a hit on the other, as old as it is."""
    async with pair(binary, tmp_path) as both:
        first = await both.one.ask(reply=FRESH)
        await both.idle()
        both.clock.advance(10)
        got = await both.two.ask()
        assert (got.how, got.body) == ("stored", first.body)
        assert got.get("age") == "10"
        assert got.cache_status == "hit; ttl=50"
        assert got.get("etag") == '"a"'
        both.clock.advance(51)
        assert (await both.two.ask(reply=reply('ETag: "a"', status=304))).how == "validated"
        await both.idle()
        # What the other validated is here too, newer than what this one has.
        assert (await both.one.ask()).how == "stored"


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize(
    "selector",
    [Selector(route="test"), Selector(prefix="/a"), Selector(tag="t"), Selector(all=True)],
)
async def test_a_purge_reaches_every_gateway(
    binary: str, selector: Selector, tmp_path: Path
) -> None:
    """What is purged on one gateway is gone from the store, and from the other within a second."""
    async with pair(binary, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        assert (await both.two.ask()).how == "stored"
        both.one.memory.purge(selector)
        assert await both.one.policy._state.tell(selector) == "told"
        both.clock.advance(1)
        assert (await both.two.ask(reply=OTHER)).how == "fetched"
        await both.idle()
        assert (await both.one.ask()).body == b"two"


async def test_a_purge_that_means_others(tmp_path: Path) -> None:
    """A purge of something else leaves an answer where it is."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        await both.one.policy._state.tell(Selector(tag="other"))
        await both.one.policy._state.tell(Selector(prefix="/b"))
        both.clock.advance(2)
        assert (await both.two.ask()).how == "stored"
        assert (await both.one.ask()).how == "stored"


async def test_a_change_reaches_every_gateway(tmp_path: Path) -> None:
    """A successful PUT through one gateway makes the answer go everywhere within a second."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        assert (await both.two.ask()).how == "stored"
        await both.one.ask("PUT", reply=reply(status=204))
        assert (await both.one.ask(reply=OTHER)).how == "fetched"
        await both.idle()
        both.clock.advance(1)
        assert (await both.two.ask()).body == b"two"


@pytest.mark.parametrize("how", ["change", "purge"])
async def test_an_answer_under_way_elsewhere_is_dead(how: str, tmp_path: Path) -> None:
    """What the other gateway was fetching while it was changed or purged is not given later."""
    async with pair(VALKEY, tmp_path) as both:
        came, go = asyncio.Event(), asyncio.Event()

        async def origin(exchange: Any) -> Any:
            came.set()
            await go.wait()
            return both.two.respond(FRESH)

        waiting = asyncio.ensure_future(
            both.two.policy.handle(both.two.exchange("GET", "/a"), origin)
        )
        await came.wait()
        if how == "change":
            await both.one.ask("DELETE", reply=reply())
        else:
            await both.one.policy._state.tell(Selector(tag="t"))
        go.set()
        await waiting
        await both.idle()
        both.clock.advance(1)
        assert (await both.one.ask(reply=OTHER)).how == "fetched"
        await both.idle()
        both.clock.advance(1)
        assert (await both.two.ask(reply=OTHER)).body == b"two"


async def test_variants_and_callers(tmp_path: Path) -> None:
    """Vary and partitions hold in the store as they do in memory."""
    async with pair(VALKEY, tmp_path, vary_on=["header:X-Tenant"]) as both:
        said = ("Cache-Control: max-age=60", "Vary: Foo")
        for tenant in "ab":
            for foo in "12":
                body = (tenant + foo).encode()
                fields = f"X-Tenant: {tenant}", f"Foo: {foo}"
                await both.one.ask("GET", "/a", *fields, reply=reply(*said, body=body))
        await both.idle()
        for tenant in "ab":
            for foo in "12":
                got = await both.two.ask("GET", "/a", f"X-Tenant: {tenant}", f"Foo: {foo}")
                assert got.body == (tenant + foo).encode()
        assert (await both.two.ask("GET", "/a", "Foo: 1", reply=OTHER)).how == "fetched"


async def test_hits_do_not_ask_the_store(tmp_path: Path) -> None:
    """Within a second of the last question, a hit is a look into memory and nothing else."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        calls: list[Any] = []
        call = both.store.call

        async def counted(*parts: Any) -> Any:
            calls.append(parts[0])
            return await call(*parts)

        both.store.call = counted  # type: ignore[method-assign]
        await both.two.ask()
        assert sorted(calls) == ["GET", "GET", "XRANGE"]
        for _ in range(5):
            both.clock.advance(0.15)
            await both.two.ask()
        assert len(calls) == 3
        both.clock.advance(0.5)
        await both.two.ask()
        assert sorted(calls[3:]) == ["GET", "XRANGE"]


@pytest.mark.parametrize("how", ["killed", "stalled"])
async def test_without_the_store(how: str, tmp_path: Path) -> None:
    """A store that is gone or hangs is a miss, within its time-out; memory goes on."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        if how == "killed":
            both.server.kill()
        context = stopped(both.server) if how == "stalled" else None
        if context is not None:
            context.__enter__()
        try:
            both.clock.advance(5)
            began = monotonic()
            assert (await both.one.ask()).how == "stored"
            assert (await both.two.ask(reply=OTHER)).how == "fetched"
            assert (await both.two.ask()).how == "stored"
            assert monotonic() - began < 2
            selector = Selector(all=True)
            assert await both.one.policy._state.tell(selector) == "failed"
        finally:
            if context is not None:
                context.__exit__(None, None, None)


async def test_a_change_that_could_not_be_told(tmp_path: Path) -> None:
    """If the store was away during a PUT, what it still has is not read back by this gateway."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        with stopped(both.server):
            await both.one.ask("PUT", reply=reply())
            assert (await both.one.ask(reply=reply("Cache-Control: no-store"))).how == "fetched"
        async with asyncio.timeout(20):
            while True:
                try:
                    await both.store.call("PING")
                    break
                except StoreError:
                    await asyncio.sleep(0.01)
        assert (await both.one.ask(reply=OTHER)).how == "fetched"


async def test_what_others_wrote_is_a_miss(tmp_path: Path) -> None:
    """Bytes of another version, or of nobody, are not an answer."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.idle()
        keys = await both.store.call("KEYS", "lockgate:cache:e:*")
        for junk in (b"", b"junk", b"\x92\x07\xc0", b"\xc1" * 50):
            for key in keys:
                await both.store.call("SET", key, junk)
            both.two.memory.clear()
            assert (await both.two.ask(reply=reply("Cache-Control: no-store"))).how == "fetched"


async def test_everything_in_the_store_expires(tmp_path: Path) -> None:
    """No key outlives its use."""
    async with pair(VALKEY, tmp_path) as both:
        await both.one.ask(reply=FRESH)
        await both.one.ask("GET", "/v", "Foo: 1", reply=reply("Cache-Control: max-age=9",
                                                              "Vary: Foo"))  # fmt: skip
        await both.one.ask("PUT", "/b", reply=reply())
        await both.one.policy._state.tell(Selector(tag="t"))
        await both.idle()
        keys = await both.store.call("KEYS", "*")
        assert len(keys) == 5
        for key in keys:
            assert 0 < await both.store.call("PTTL", key) <= 3 * 86_400_000
