"""The store killed, stopped, restarted under load: what the configuration says, and never a 5xx."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from gateway.clock import ManualClock
from gateway.errors import STORE_UNAVAILABLE, StoreError
from gateway.policies.rate_limit.decide import Bucket
from gateway.policies.rate_limit.local import STEADY_S, Fallback
from gateway.server.sources import load_configuration
from gateway.settings import load_settings
from tests.policies.rate_limit.conftest import Serve
from tests.store.servers import Server, stopped
from tests.support.gateway import RunningGateway, eventually, load, run_gateway

StoreServer = Callable[[], AbstractAsyncContextManager[Server]]
DECISIONS = "gateway_rate_limit_decisions_total"


async def statuses(gateway: RunningGateway, count: int) -> list[int]:
    """The statuses of so many requests, eight at a time."""
    found: list[int] = []

    async def press() -> None:
        while len(found) < count:
            found.append((await client.get("/limited")).status_code)

    async with gateway.client() as client:
        await asyncio.gather(*(press() for _ in range(8)))
    return found


async def back(gateway: RunningGateway) -> None:
    """Wait until the store decides again."""
    async with gateway.client() as client, asyncio.timeout(20):
        while "x-lockgate-ratelimit" in (await client.get("/limited")).headers:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", ["killed", "stopped"])
async def test_local(store_server: StoreServer, gateway_on: Serve, way: str) -> None:
    """Without the store a bucket in the process decides, and says so; until the store is back."""
    limits = "{rate: 20/h, per: route}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        assert set(await statuses(gateway, 30)) == {204, 429}

        with stopped(server):
            if way == "killed":
                server.kill()
            async with gateway.client() as client:
                answer = await client.get("/limited")
            assert answer.status_code == 204
            assert answer.headers["x-lockgate-ratelimit"] == "local"
            assert answer.headers["ratelimit"].startswith('"route-h";r=19;')
            # The bucket of the process was full: it admits its burst, no more.
            found = await statuses(gateway, 40)
            assert found.count(204) == 19
            assert set(found) == {204, 429}
            assert gateway.metric("gateway_rate_limit_store_errors_total") >= 41
            assert gateway.metric(DECISIONS, by="local", decision="passed") == 20
            if way == "killed":
                server.start()
                await server.ready()
        await back(gateway)
        if way == "stopped":
            assert set(await statuses(gateway, 10)) == {429}


async def test_restarted_under_load(store_server: StoreServer, gateway_on: Serve) -> None:
    """The store dies and comes back in the middle of load: every answer is a 204 or a 429."""
    async with store_server() as server, gateway_on(server, "{rate: 100000/s}") as gateway:

        def decided(by: str) -> float:
            return gateway.metric(DECISIONS, by=by)

        pressing = asyncio.create_task(statuses(gateway, 600))
        await eventually(lambda: decided("store") > 100)
        server.kill()
        await eventually(lambda: decided("local") > 100)
        before = decided("store")
        server.start()
        await eventually(lambda: pressing.done() or decided("store") > before)
        assert set(await pressing) <= {204, 429}
        await back(gateway)


@pytest.mark.parametrize(("mode", "status"), [("open", 204), ("closed", 503)])
async def test_open_and_closed(
    store_server: StoreServer, gateway_on: Serve, mode: str, status: int
) -> None:
    """open lets everything pass, closed refuses with 503: a lost store is never a 429."""
    limits = f"{{rate: 1/h, on_store_error: {mode}}}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        assert await statuses(gateway, 1) != []
        server.kill()
        async with gateway.client() as client:
            answers = [await client.get("/limited") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [status] * 5
        if mode == "open":
            assert answers[0].headers["x-lockgate-ratelimit"] == "open"
            assert gateway.metric(DECISIONS, by="none", decision="passed") == 5
        else:
            assert answers[0].json()["code"] == "store_unavailable"
            assert answers[0].headers["retry-after"] == "1"
            assert gateway.metric(DECISIONS, by="none", decision="refused") == 5
        server.start()
        await server.ready()
        async with asyncio.timeout(20):
            while set(await statuses(gateway, 8)) != {429}:
                await asyncio.sleep(0.05)


async def test_each_limit_has_its_way(store_server: StoreServer, gateway_on: Serve) -> None:
    """Of several limits some may count locally and others be left out."""
    limits = """[{rate: 1/h, name: a, on_store_error: open}, {rate: 5/h, name: b},
      {rate: 9/h, name: c, on_store_error: closed, mode: report}]"""
    async with store_server() as server, gateway_on(server, limits) as gateway:
        await statuses(gateway, 1)
        server.kill()
        found = await statuses(gateway, 20)
        assert found.count(204) == 5
        assert set(found) == {204, 429}
        assert gateway.metric(DECISIONS, limit="b", by="local", decision="passed") == 5
        assert gateway.metric(DECISIONS, limit="a", by="none") == len(found)


async def test_slow_store_is_not_waited_for(store_server: StoreServer, gateway_on: Serve) -> None:
    """Each request waits for a store that hangs at most the store's time limit."""
    async with store_server() as server, gateway_on(server, "{rate: 100/s}") as gateway:
        await statuses(gateway, 1)
        loop = asyncio.get_running_loop()
        waits: list[float] = []
        with stopped(server):
            async with gateway.client() as client:
                for _ in range(8):
                    began = loop.time()
                    answer = await client.get("/limited")
                    assert answer.status_code == 204
                    waits.append(loop.time() - began)
        # 100 ms for the first ones, nothing once the store is left alone; a busy machine on top.
        assert max(waits) < 1.0


async def test_client_leaves_while_the_store_hangs(
    store_server: StoreServer, gateway_on: Serve
) -> None:
    """Nothing is held for it, and the reply that comes late reaches nobody else."""
    limits = "{rate: 20/h, per: route}"
    async with store_server() as server, gateway_on(server, limits, timeout="10s") as gateway:
        await statuses(gateway, 1)
        with stopped(server):
            async with gateway.client(timeout=0.1) as client:
                for _ in range(3):
                    with pytest.raises(httpx.ReadTimeout):
                        await client.get("/limited")
            await gateway.quiet()
        found = await statuses(gateway, 30)
        # Eight at a time asked first; the three that left were counted, or are lost with them.
        assert found.count(204) in range(20 - 8 - 3, 20)
        assert set(found) == {204, 429}


async def test_without_a_store_from_the_start(tmp_path: Path) -> None:
    """A store that is not there yet keeps no gateway from starting."""
    text = f"""\
store: {{url: "unix://{tmp_path}/nothing.sock"}}
routes:
  - name: limited
    match: {{path: /limited}}
    respond: {{status: 204}}
    rate_limit: {{rate: 3/h}}
"""
    async with run_gateway(tmp_path, text) as gateway:
        found = await statuses(gateway, 10)
        assert found.count(204) == 3
        assert set(found) == {204, 429}


async def test_share(store_server: StoreServer, gateway_on: Serve) -> None:
    """A process counts by its share: the rate by workers and replicas."""
    limits = "{rate: 40/h, replicas: 2}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        await statuses(gateway, 1)
        server.kill()
        async with gateway.client() as client:
            answer = await client.get("/limited")
        assert answer.headers["ratelimit-policy"] == '"consumer-h";q=20;w=3600'


def test_one_line_a_change(caplog: pytest.LogCaptureFixture) -> None:
    """One line when decisions begin to be made without the store, one when that is over."""
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    fallback = Fallback(clock)
    error = StoreError(STORE_UNAVAILABLE, "the store did not answer in time")

    for _ in range(3):
        fallback.failed(error)
        clock.advance(STEADY_S / 2)
        # While a store is slow, some calls succeed: that is not the end of it.
        fallback.succeeded()
    assert fallback.away
    assert len(caplog.messages) == 1
    clock.advance(STEADY_S)
    fallback.succeeded()
    assert not fallback.away
    assert len(caplog.messages) == 2


def test_local_buckets_are_bounded() -> None:
    """A process that counts by itself keeps the buckets used last, and no more than its bound."""
    fallback = Fallback(ManualClock(), most=100)
    bucket = Bucket(1, 1_000_000, 1)

    for number in range(1000):
        assert fallback.decide([bucket], [True], [b"%d" % number])[0] == 1
    assert len(fallback) == 100
    assert fallback.decide([bucket], [True], [b"999"])[0] == 0


def test_workers_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of workers is the one that is really run, wherever it was set."""
    load(tmp_path, "routes: []\n")
    monkeypatch.setenv("GATEWAY_WORKERS", "3")
    settings = load_settings(config=tmp_path / "gateway.yaml")
    assert load_configuration(settings, {}).configuration.gateway.server.workers == 3
