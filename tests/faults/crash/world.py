"""The processes that are killed and started again: gateways, a worker, the store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.run.gateway_process import KILL, ROOT, TERM, clean_environ
from tests.store.servers import VALKEY, Server

READY_S = 60.0
ROUTE = "events"
TARGETS = ("first", "second")
_CONFIG = """\
version: 1
server:
  listen: "unix:{name}.sock"
  admin: "unix:{name}.admin"
  deliver: {deliver}
  timeouts: {{drain: 5s}}
telemetry: {{access_log: null}}
store: {{url: "{store}", data: data, timeout: 500ms}}
upstreams:
  sink: {{targets: ["{upstream}"], connect_timeout: 2s}}
routes:
  - name: events
    match: {{path: /events, methods: [POST]}}
    upstream: sink
    timeout: 1s
    idempotency: {{key: header, ttl: 1h, required: true}}
    delivery:
      to:
        - {{name: first, path: /first}}
        - {{name: second, path: /second}}
      attempts: 1000
      backoff: {{base: 50ms, factor: 1.5, max: 500ms}}
      max_total: 1h
      lease: 2s
      concurrency: 16
      ordered_by: body.key
      callback: {{url: "{upstream}/done"}}
"""


@dataclass(frozen=True, slots=True)
class Victim:
    """Something that can be killed or stopped, and starts again by itself or by `restart`."""

    name: str
    kill: Callable[[], None]
    stop: Callable[[], None]
    restart: Callable[[], Awaitable[None]]


class Program:
    """One `lockgate` process, and where it is reached."""

    def __init__(self, folder: Path, name: str, command: str = "run") -> None:
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self._admin = folder / f"{name}.admin"
        self._command = command
        self._config = folder / f"{name}.yaml"
        self._process: asyncio.subprocess.Process | None = None

    def configure(self, store: str, upstream: str, *, deliver: bool = True) -> None:
        """Write its configuration."""
        word = "true" if deliver else "false"
        text = _CONFIG.format(name=self.name, store=store, upstream=upstream, deliver=word)
        self._config.write_text(text)

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", self._command, "--config", str(self._config),
                "--no-watch",
                cwd=ROOT, env=clean_environ() | {"GATEWAY_COMPILED": _compiled()},
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(READY_S):
            while not await self._is_ready():
                if self._process.returncode is not None:
                    raise AssertionError(f"{self.name} ended: {self.log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._admin))
        except OSError:
            return False
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    def kill(self) -> None:
        """KILL."""
        self._signal(KILL)

    def stop(self) -> None:
        """TERM."""
        self._signal(TERM)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def restart(self) -> None:
        """Start another once the one that was there is gone."""
        if self._process is not None:
            async with asyncio.timeout(READY_S):
                await self._process.wait()
        await self.start()

    async def end(self) -> int | None:
        """End it in order, and give its exit code; KILL if that takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return None
        process.send_signal(TERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20.0):
                return await process.wait()
        process.send_signal(KILL)
        return await process.wait()


class World:
    """Two gateways, one of which delivers, a worker and a store; or, `embedded`, one gateway with a
    store of its own. Files go to `folder`, whose path must be short.
    """

    def __init__(self, folder: Path, *, embedded: bool) -> None:
        self._folder = folder
        self._embedded = embedded
        self._server = None if embedded else Server(
            VALKEY, folder / "store", "--appendonly", "yes", "--appendfsync", "always"
        )  # fmt: skip
        self.gateways = [Program(folder, "one")]
        self.programs = list(self.gateways)
        if not embedded:
            self.gateways.append(Program(folder, "two"))
            self.programs = [*self.gateways, Program(folder, "worker", "worker")]

    async def start(self, upstream: str) -> None:
        """Start everything."""
        store = "embedded"
        if self._server is not None:
            self._server.start()
            await self._server.ready()
            store = self._server.unix
        for program in self.programs:
            program.configure(store, upstream, deliver=program.name != "two")
        await asyncio.gather(*(program.start() for program in self.programs))

    @property
    def store_url(self) -> str:
        """How the store is reached from outside."""
        if self._server is not None:
            return self._server.unix
        return f"unix://{self._lock()[2]}/store.sock"

    def _lock(self) -> list[str]:
        return (self._folder / "data" / "lock").read_text().split("\n")[0].split(" ", 2)

    def victims(self) -> list[Victim]:
        """What can be killed."""
        found = [Victim(each.name, each.kill, each.stop, each.restart) for each in self.programs]
        # A store that is asked to stop does what one does that is killed: nothing is missing.
        return [*found, Victim("store", self._kill_store, self._kill_store, self._restart_store)]

    def _kill_store(self) -> None:
        if self._server is not None:
            self._server.kill()
            return
        with contextlib.suppress(OSError, IndexError, ValueError):
            os.kill(int(self._lock()[1]), KILL)

    async def _restart_store(self) -> None:
        if self._server is not None:
            self._server.start()
            await self._server.ready()

    async def end(self) -> list[int | None]:
        """End everything; the exit codes of the programs."""
        codes = await asyncio.gather(*(program.end() for program in self.programs))
        if self._server is not None:
            self._server.kill()
        return list(codes)

    def kill_all(self) -> None:
        """Whatever still runs."""
        for victim in self.victims():
            victim.kill()


def _compiled() -> str:
    return os.environ.get("GATEWAY_COMPILED", "on")
