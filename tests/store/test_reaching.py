"""The ways to a store: logging in, TLS, Sentinel with a failover, Cluster, channels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
import trustme

from gateway.errors import ConfigError, StoreError
from gateway.observability.store_series import StoreSeries
from gateway.store.base import ReplyError, Store
from gateway.store.cluster import ClusterStore, first_key
from gateway.store.script import Script
from tests.store.servers import BINARIES, REDIS, VALKEY, Server, free_port, opened, serving
from tests.store.test_faults import works
from tests.support.gateway import eventually

ADD = Script.of(b"return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.mark.parametrize("binary", BINARIES)
async def test_password_user_and_database(binary: str, tmp_path: Path) -> None:
    """A password, a named user and a database are used; a wrong password is told, not printed."""
    async with serving(binary, tmp_path, "--requirepass", "let:me@in") as server:
        host = f"127.0.0.1:{server.port}"
        url = f"redis://:let%3Ame%40in@{host}/3"
        async with opened(url, tmp_path, timeout="2s") as store:
            await store.call("SET", "a", 1)
            rule = ("ACL", "SETUSER", "gw", "on", ">pw", "~lockgate*", "+@all")
            assert await store.call(*rule) == b"OK"
            assert "let" not in repr(store.status())
            async with opened(f"unix://gw:pw@{server.socket}", tmp_path, timeout="2s") as other:
                with pytest.raises(ReplyError) as caught:
                    await other.call("GET", "a")
                assert caught.value.code == "NOPERM"
                assert await other.call("GET", "lockgate:a") is None
        async with opened(f"redis://:wrong@{host}", tmp_path) as store:
            with pytest.raises(StoreError):
                await store.call("PING")
            assert "WRONGPASS" in store.status().last_error
            assert "wrong" not in store.status().last_error
        async with opened(f"redis://{host}", tmp_path) as store:
            assert "NOAUTH" in store.status().last_error


@pytest.mark.skipif(not REDIS, reason="there is no redis-server; the wheel's Valkey has no TLS")
async def test_tls(tmp_path: Path) -> None:
    """TLS with a client certificate; another authority, another name, none at all are refused."""
    ca, other = trustme.CA(), trustme.CA()
    files = {"ca": ca.cert_pem, "other": other.cert_pem}
    served, mine = ca.issue_cert("127.0.0.1"), ca.issue_cert("gateway")
    for name, blob in files.items():
        blob.write_to_path(str(tmp_path / name))
    for name, cert in (("served", served), ("mine", mine)):
        cert.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        cert.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    plain = Server(REDIS, tmp_path)
    port = Server(REDIS, tmp_path).port
    options = ("--tls-port", str(port), "--tls-cert-file", str(tmp_path / "served.pem"),
               "--tls-key-file", str(tmp_path / "served.key"),
               "--tls-ca-cert-file", str(tmp_path / "ca"))  # fmt: skip
    plain.options = options
    plain.start()
    try:
        await plain.ready()
        base = f"rediss://127.0.0.1:{port}"
        keys = f"cert={tmp_path}/mine.pem&key={tmp_path}/mine.key"
        async with opened(f"{base}?ca={tmp_path}/ca&{keys}", tmp_path, timeout="2s") as store:
            assert await store.call("PING") == b"PONG"
        for query, word in (
            (f"ca={tmp_path}/other&{keys}", "certificate verify failed"),
            (f"ca={tmp_path}/ca&{keys}&server_name=elsewhere", "certificate verify failed"),
            (f"ca={tmp_path}/ca", ""),
        ):
            async with opened(f"{base}?{query}", tmp_path) as store:
                with pytest.raises(StoreError):
                    await store.call("PING")
                assert word in store.status().last_error.lower()
    finally:
        plain.kill()


def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    """A file that can't be read is an error of the configuration, when the store is opened."""
    from tests.store.servers import make_store

    with pytest.raises(ConfigError, match=r"none\.pem can't be used: No such file"):
        make_store(f"rediss://h?ca={tmp_path}/none.pem", tmp_path)


async def test_a_replica_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that can't be written to is no store."""
    async with serving(VALKEY, tmp_path / "m") as master:
        replicaof = ("--replicaof", f"127.0.0.1 {master.port}")
        async with serving(VALKEY, tmp_path / "r", *replicaof) as replica:
            async with opened(replica.url, tmp_path) as store:
                assert "replica" in store.status().last_error
                with pytest.raises(StoreError):
                    await store.call("PING")


async def test_what_the_server_keeps_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The status says what survives; a store that keeps too little, or drops keys, is warned of."""
    options = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    async with serving(VALKEY, tmp_path, *options) as server:
        async with opened(server.unix, tmp_path, timeout="2s") as store:
            await eventually(lambda: store.status().persistence == "none")
            assert store.status().eviction == "allkeys-lru"
            await eventually(lambda: "may drop keys" in caplog.text)
            store.require_durability()
            await eventually(lambda: "must survive a power cut" in caplog.text)
            await store.call("CONFIG", "SET", "appendonly", "yes")
        async with opened(server.unix, tmp_path, timeout="2s") as store:
            await eventually(lambda: store.status().persistence == "everysec")


# Channels.


@pytest.mark.parametrize("binary", BINARIES)
async def test_channel(binary: str, tmp_path: Path) -> None:
    """A blocking read waits beside the shared connection, for longer than a call may take."""
    async with serving(binary, tmp_path) as server:
        async with opened(server.url, tmp_path, timeout="100ms") as store:
            channel = store.channel()
            waiting = asyncio.create_task(channel.call("BLPOP", "q", 0, timeout=10))
            await asyncio.sleep(0.2)
            with pytest.raises(StoreError, match="in use"):
                await channel.call("PING", timeout=1)
            await store.call("RPUSH", "q", "x")
            assert await waiting == [b"q", b"x"]
            with pytest.raises(ReplyError):
                await channel.call("INCR", "a", "b", timeout=1)
            assert await channel.call("PING", timeout=1) == b"PONG"
            await channel.aclose()
            with pytest.raises(StoreError, match="closed"):
                await channel.call("PING", timeout=1)


async def test_a_channel_given_up_takes_nothing(tmp_path: Path) -> None:
    """What comes after a blocking read was given up, or timed out, is not lost with it."""
    async with serving(VALKEY, tmp_path) as server, opened(server.url, tmp_path) as store:
        channel = store.channel()
        waiting = asyncio.create_task(channel.call("BLPOP", "q", 0, timeout=10))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(StoreError, match="in time"):
            await channel.call("BLPOP", "q", 0, timeout=0.05)
        await eventually(lambda: True)
        await asyncio.sleep(0.05)
        await store.call("RPUSH", "q", "x")
        assert await channel.call("BLPOP", "q", 1, timeout=10) == [b"q", b"x"]
        server.kill()
        with pytest.raises(StoreError):
            await channel.call("PING", timeout=1)
        server.start()
        await works(store)
        assert await channel.call("PING", timeout=1) == b"PONG"
        await channel.aclose()


# Sentinel.


@pytest.mark.skipif(not REDIS, reason="there is no redis-server to be a sentinel")
async def test_sentinel_failover(tmp_path: Path) -> None:
    """The master dies; the store is the promoted replica, found by itself."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(
            serving(REDIS, tmp_path / "m", "--repl-diskless-sync-delay", "0")
        )
        replicaof = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = await stack.enter_async_context(serving(REDIS, tmp_path / "r", *replicaof))
        sentinel = await stack.enter_async_context(_sentinel(tmp_path / "s", master.port))
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/mine"
        async with opened(url, tmp_path, timeout="3s") as store:
            await _sentinel_knows(sentinel.port)
            await store.call("SET", "a", 1)
            assert await store.call("WAIT", 1, 2500) == 1
            master.kill()
            await eventually(lambda: store.status().state == "down")
            await works(store)
            assert await store.call("SET", "b", 1) == b"OK"
            assert await store.call("GET", "a") == b"1"
            port = await store.call("CONFIG", "GET", "port")
            assert int(port[1]) == replica.port
            assert store.status().role == "master"


@asynccontextmanager
async def _sentinel(folder: Path, master: int) -> AsyncIterator[Server]:
    folder.mkdir()
    file = folder / "sentinel.conf"
    file.write_text(
        f"sentinel monitor mine 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds mine 300\n"
        "sentinel failover-timeout mine 1000\n"
    )
    server = Server(REDIS, folder)
    import subprocess

    arguments = [REDIS, str(file), "--sentinel", "--port", str(server.port), "--bind", "127.0.0.1",
                 "--dir", str(folder), "--logfile", str(folder / "log")]  # fmt: skip
    server.process = subprocess.Popen(arguments)
    try:
        await server.ready()
        yield server
    finally:
        server.kill()


async def _sentinel_knows(port: int) -> None:
    """Wait until the sentinel has found the replica."""
    from redis.asyncio import Redis

    async with Redis(port=port, protocol=2) as client, asyncio.timeout(15):
        while True:
            replicas = await client.execute_command("SENTINEL", "REPLICAS", "mine")
            if replicas and replicas[0][replicas[0].index(b"master-link-status") + 1] == b"ok":
                return
            await asyncio.sleep(0.05)


async def test_no_sentinel_answers(tmp_path: Path) -> None:
    """Without a sentinel the store is down and says why."""
    async with opened("redis+sentinel://127.0.0.1:1/mine", tmp_path) as store:
        assert "no sentinel names a master mine" in store.status().last_error
        with pytest.raises(StoreError):
            await store.call("PING")


# Cluster.


@asynccontextmanager
async def cluster(binary: str, folder: Path) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                serving(binary, folder / str(n), "--cluster-enabled", "yes",
                        "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000",
                        "--cluster-require-full-coverage", "no")
            )
            for n in range(3)
        ]  # fmt: skip
        channels = []
        for number, node in enumerate(nodes):
            store = await stack.enter_async_context(opened(node.url, folder, timeout="5s"))
            channels.append(store)
            first, last = number * 5461, 16383 if number == 2 else number * 5461 + 5460
            await store.call("CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                bus = int(nodes[0].options[3])
                await store.call("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
        for store in channels:
            async with asyncio.timeout(20):
                while not _is_whole(await store.call("CLUSTER", "INFO")):
                    await asyncio.sleep(0.05)
        yield nodes


def _is_whole(info: bytes) -> bool:
    return b"cluster_slots_ok:16384" in info and b"cluster_state:ok" in info


@asynccontextmanager
async def clustered(nodes: list[Server], folder: Path) -> AsyncIterator[ClusterStore]:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
    series = StoreSeries()
    async with opened(f"redis+cluster://{hosts}", folder, timeout="500ms", series=series) as store:
        assert isinstance(store, ClusterStore)
        assert series.up is True
        yield store


async def _slot_owner(store: Store, key: str) -> int:
    return int(await store.call("CLUSTER", "KEYSLOT", key))


async def test_cluster(tmp_path: Path) -> None:
    """Keys and scripts go to their nodes; a slot that moves is followed, during and after; a node
    that dies takes only its own keys with it.
    """
    async with cluster(VALKEY, tmp_path) as nodes, clustered(nodes, tmp_path) as store:
        keys = [f"{{{n}}}:key" for n in range(30)]
        assert await asyncio.gather(*(store.call("SET", key, 1) for key in keys)) == [b"OK"] * 30
        assert await asyncio.gather(*(store.run(ADD, (key,), (2,)) for key in keys)) == [3] * 30
        status = store.status()
        assert status.state == "up"
        assert len(status.nodes) == 3

        # Move slot 0 (the tag {06S}) from the first node to the second, with a key in it.
        key = "{06S}"
        assert await _slot_owner(store, key) == 0
        await store.call("SET", key, "here")
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(opened(node.url, tmp_path, timeout="5s"))
                for node in nodes[:2]
            ]
            ids = [await each.call("CLUSTER", "MYID") for each in (first, second)]
            await second.call("CLUSTER", "SETSLOT", 0, "IMPORTING", ids[0])
            await first.call("CLUSTER", "SETSLOT", 0, "MIGRATING", ids[1])
            # A key that is not there any more is asked for at the other node.
            assert await store.call("SET", "{06S}:new", 1) == b"OK"
            assert await store.call("GET", key) == b"here"
            await first.call("MIGRATE", "127.0.0.1", nodes[1].port, key, 0, 1000)
            assert await store.call("GET", key) == b"here"
            for each in (second, first):
                await each.call("CLUSTER", "SETSLOT", 0, "NODE", ids[1])
            assert await store.call("GET", key) == b"here"
            await eventually(lambda: str(store._slots[0]).endswith(str(nodes[1].port)))

        channel = store.channel()
        await store.call("RPUSH", "{06S}:q", "x")
        assert await channel.call("BLPOP", "{06S}:q", 1, timeout=5) == [b"{06S}:q", b"x"]
        await channel.aclose()

        nodes[2].kill()
        results = await asyncio.gather(
            *(store.call("GET", key) for key in keys), return_exceptions=True
        )
        failed = [each for each in results if isinstance(each, StoreError)]
        assert 0 < len(failed) < 30
        began = monotonic()
        with contextlib.suppress(StoreError):
            await store.call("GET", keys[results.index(failed[0])])
        assert monotonic() - began < 0.5
        assert store.status().state == "down"


def test_first_keys() -> None:
    """The key by which a command finds its node."""
    assert first_key(("GET", "a")) == b"a"
    assert first_key((b"evalsha", b"0" * 40, 1, b"{k}", b"v")) == b"{k}"
    assert first_key(("EVAL", "return 1", 0)) is None
    assert first_key(("PING",)) is None
    assert first_key(("XGROUP", "CREATE", "s", "g", "$")) == b"s"
    read = ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "BLOCK", 10, "STREAMS", "s", ">")
    assert first_key(read) == b"s"
    assert first_key(("DBSIZE",)) is None


async def test_cluster_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without any node calls fail at once."""
    caplog.set_level(logging.CRITICAL)
    async with opened("redis+cluster://127.0.0.1:1", tmp_path) as store:
        with pytest.raises(StoreError):
            await store.call("GET", "a")
        assert store.status().state == "down"
