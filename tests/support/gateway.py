"""The whole gateway in the test's own loop: runtime, listener and all, on a port of its own.

    async with run_gateway(tmp_path, routes(upstream.url)) as gateway:
        async with gateway.client() as client:
            ...

Nothing is replaced: configuration, plane and listener are those of `lockgate run`. In the test's
loop, a test can also look inside: at pools, counters, the access log.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.config.types import Address
from gateway.runtime import Loaded, Runtime, Snapshot, load_configuration
from gateway.server.bind import bind
from gateway.server.local import LocalPlane
from tests.support.raw import RawClient, raw_client

WAIT_S = 20.0
_SERVER = 'server: {listen: "127.0.0.1:0", admin: null}\n'


def routes(upstream: str, extra: str = "", *, options: str = "") -> str:
    """One upstream `api` and a route `any` that takes every path to it.

    `options` are further keys of the route, `extra` further lines of the file.
    """
    more = f", {options}" if options else ""
    return f"""\
upstreams:
  api: {{targets: ["{upstream}"], connect_timeout: 2s}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api{more}}}
{extra}"""


class RunningGateway:
    """A gateway that serves. `url` and `port` are where; both are empty on a unix socket."""

    def __init__(self, plane: LocalPlane, folder: Path) -> None:
        self.plane = plane
        self.runtime = plane.runtime
        self._folder = folder

    @property
    def url(self) -> str:
        return self.plane.addresses()[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def snapshot(self) -> Snapshot:
        return self.runtime.snapshot

    async def reload(self, text: str) -> None:
        """Serve another configuration. Raises ConfigError, and then the old one goes on."""
        await self.plane.apply(load(self._folder, text))

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client of its own, without the environment's proxies."""
        # Reading the authorities for a client without TLS would take longer than most tests.
        given = {"timeout": WAIT_S, "trust_env": False, "base_url": self.url, "verify": False}
        options = {**given, **options}
        return httpx.AsyncClient(**options)

    def raw(self, tls: ssl.SSLContext | None = None) -> RawClient:
        """A connection on which a test writes its own bytes; to be entered with `async with`."""
        return raw_client(self.port, tls)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; a histogram's counts of events."""
        found = 0.0
        for family in self.runtime.metrics.snapshot().families:
            names = family.declaration.labels
            if family.declaration.name != name:
                continue
            for sample in family.samples:
                given = dict(zip(names, sample.labels, strict=True))
                if labels.items() <= given.items():
                    found += sum(sample.counts) if sample.counts else sample.value
        return found

    def targets(self) -> list[dict[str, Any]]:
        """What the admin API shows of every target of every upstream."""
        return [
            target
            for upstream in self.snapshot.upstreams.values()
            for target in upstream.status()["targets"]
        ]

    async def lines(self, count: int) -> list[dict[str, Any]]:
        """The access log, once it has this many lines."""
        file = self._folder / "access.log"
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [json.loads(line) for line in file.read_text().splitlines()]
            return len(found) >= count

        await eventually(look)
        assert len(found) == count, found
        return found

    async def line(self) -> dict[str, Any]:
        """The only line of the access log."""
        return (await self.lines(1))[0]

    def is_quiet(self) -> bool:
        """Whether nothing is under way anywhere, and no slot or permit is held."""
        return not any(self._held().values())

    async def quiet(self) -> None:
        """Wait until nothing is under way; says what is still held if that never comes."""
        try:
            await eventually(self.is_quiet)
        except TimeoutError:
            held = {name: count for name, count in self._held().items() if count}
            raise AssertionError(f"still held: {held}") from None

    def _held(self) -> dict[str, int]:
        held: dict[str, int] = {
            "snapshot.active": self.snapshot.active,
            "in-flight gauge": int(self.metric("gateway_requests_in_flight")),
            "in flight in the protocol": self.plane._http.in_flight,
        }
        for key, each in self.runtime.known("bulkhead"):
            held[f"permits of {key}"] = each.machine.active
            held[f"queue of {key}"] = each.machine.queued
        for key, each in self.runtime.known("circuit_breaker"):
            held[f"probes of {key}"] = each.machine._probing
        for key, each in self.runtime.known("retry_budget"):
            held[f"active of {key}"] = each.active
            held[f"retries of {key}"] = each.retries
        for upstream in self.snapshot.upstreams.values():
            for pool in upstream._pools.values():
                name = f"{upstream.name} {pool.target.label}"
                held[f"{name} active"] = pool.target.active
                held[f"{name} waiting"] = pool.waiting
                held[f"{name} slots without a connection"] = pool.open - len(pool.connections)
                held[f"{name} connections in use"] = len(pool.connections) - len(pool.idle)
        return held


def load(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    """The configuration of this text, which may leave out version, server and access log."""
    file = folder / "gateway.yaml"
    given = f"\n{text}"
    head = "version: 1\n"
    if "\nserver:" not in given:
        head += _SERVER
    if "\ntelemetry:" not in given:
        head += f"telemetry: {{access_log: {{to: {json.dumps(str(folder / 'access.log'))}}}}}\n"
    file.write_text(head + text)
    return load_configuration(file, environ or {})


@asynccontextmanager
async def run_gateway(
    folder: Path,
    text: str,
    *,
    stock: bool = False,
    instance: str = "test",
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningGateway]:
    """Serve this configuration until the block ends; files go to `folder`.

    `stock` puts uvicorn's own HTTP implementation in front instead of the lean protocol.
    """
    loaded = load(folder, text, environ)
    listen: Address = loaded.configuration.gateway.server.listen
    # The collector is this process's own, which has seen to it (conftest.py): a walk over all that
    # the tests are would take longer than most of them.
    plane = LocalPlane(
        Runtime(instance=instance), bind(listen, "test")[0], stock=stock, settle=lambda _: None
    )
    try:
        await plane.apply(loaded)
        yield RunningGateway(plane, folder)
    finally:
        await plane.aclose()


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds; for what happens soon, but tells nobody."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)


async def within(waiting: Awaitable[Any]) -> Any:
    """The result of what must come soon."""
    return await asyncio.wait_for(waiting, WAIT_S)
