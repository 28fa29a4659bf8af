"""A real gateway process for tests: started, read, asked, signalled, and always ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0

CONFIG = """\
version: 1
server:
  listen: 127.0.0.1:0
  admin: 127.0.0.1:0
  timeouts: {{drain: 10s}}
telemetry: {{access_log: null}}
{extra}
routes:
  - name: hello
    match: {{path: /hello}}
    respond: {{status: 200, json: {{say: {say}}}}}
"""


def config_text(say: str = "one", extra: str = "") -> str:
    """A configuration with one route that answers `say`."""
    return CONFIG.format(say=say, extra=extra)


class GatewayProcess:
    """The process and what it wrote to stderr, line by line."""

    def __init__(self, process: asyncio.subprocess.Process, config: Path) -> None:
        self.process = process
        self.config = config
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self.admin = ""
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"message": raw.decode()}
            async with self._grown:
                self.lines.append(line)
                self._grown.notify_all()

    async def line(self, text: str, after: int = 0) -> dict[str, Any]:
        """The first line, from number `after` on, whose message holds `text`; waits for it."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [each for each in self.lines[after:] if text in each["message"]]
            return bool(found)

        async with self._grown:
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._grown.wait_for(look)
            except TimeoutError:
                raise AssertionError(f"no line with {text!r} in {self.lines}") from None
        return found[0]

    async def ready(self, *, public: bool = True) -> None:
        """Wait for the listeners and note where they are."""
        admin = await self.line("admin listening on ")
        self.admin = admin["message"].rpartition(" ")[2]
        if public:
            self.url = (await self.line("listening on "))["message"].rpartition(" ")[2]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for the end of the process."""
        async with asyncio.timeout(WAIT_S):
            code = await self.process.wait()
            await self._reading
        return code

    async def end(self) -> None:
        """Kill what still runs."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def generation(self) -> int:
        """What the admin API says is served."""
        return int((await self.config_info())["generation"])

    async def config_info(self) -> dict[str, Any]:
        """`GET /api/v1/config`."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self.admin}/api/v1/config", timeout=WAIT_S)
        return dict(answer.json())

    async def say(self) -> str:
        """What the route answers on a connection of its own."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self.url}/hello", timeout=WAIT_S)
        return str(answer.json()["say"])


@asynccontextmanager
async def gateway(
    config: Path,
    *options: str,
    command: str = "run",
    wait: bool = True,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Run `lockgate run` on a configuration that exists; with `wait`, until it listens.

    The other `command` is worker.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", command, "--config", str(config), *options,
        cwd=ROOT,
        env={**clean_environ(), **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = GatewayProcess(process, config)
    try:
        if wait:
            await running.ready(public=command == "run")
        yield running
    finally:
        await running.end()


def clean_environ() -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    # Without bytecode files every start would compile all modules again.
    foreign = ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "NO_COLOR", "PYTHONDONTWRITEBYTECODE")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GATEWAY_") and name not in foreign
    }


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the (possibly async) condition holds; fails after a generous time."""
    async with asyncio.timeout(WAIT_S):
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            await asyncio.sleep(0.02)


def port_of(url: str) -> int:
    """The port of an URL."""
    match = re.search(r":(\d+)$", url)
    assert match is not None
    return int(match[1])


TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
