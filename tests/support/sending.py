"""Exchanges and upstreams for tests, as the gateway would make them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from gateway.clock import Clock, SystemClock
from gateway.config.model import UpstreamConfig
from gateway.message import Exchange, Headers, Request, Response
from gateway.upstream import Upstream

PSEUDONYM = "lockgate-test"


def make_exchange(
    method: str = "GET",
    path: str = "/",
    headers: Iterable[tuple[bytes, bytes]] = ((b"host", b"api.test"),),
    body: bytes | None = b"",
    stream: AsyncIterator[bytes] | None = None,
    **request: Any,
) -> Exchange:
    """An exchange; `stream` stands for a body that still arrives."""
    if stream is not None:
        body = None
    request = {"host": "api.test", "client": "192.0.2.7", "peer": "192.0.2.7", **request}
    made = Request(method, path, b"", Headers(list(headers)), body=body, stream=stream, **request)
    return Exchange(made, 0.0)


@asynccontextmanager
async def running(
    *urls: str | dict[str, Any],
    clock: Clock | None = None,
    make: Callable[..., Upstream] = Upstream,
    options: dict[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[Upstream]:
    """An upstream with these targets; `config` as under `upstreams:`, `options` for `Upstream`.

    After the test nothing may be left: no active exchange, no slot in use, no waiter.
    """
    model = UpstreamConfig.model_validate({"targets": list(urls), **config})
    upstream = make(
        "orders",
        model,
        clock=clock or SystemClock(),
        random=random.Random(1),
        pseudonym=PSEUDONYM,
        **(options or {}),
    )
    await upstream.start()
    try:
        yield upstream
        assert_quiet(upstream)
    finally:
        await upstream.aclose()
    assert [target["open"] for target in upstream.status()["targets"]] == [0] * len(model.targets)


def assert_quiet(upstream: Upstream) -> None:
    """No exchange is active, nobody waits, and every slot belongs to a live connection."""
    for target in upstream.status()["targets"]:
        assert target["active"] == 0, upstream
        assert target["waiting"] == 0, upstream
    assert " 0 opening" in repr(upstream), upstream


async def send(
    upstream: Upstream, method: str = "GET", target: bytes = b"/", **exchange: Any
) -> Response:
    """Send one new exchange."""
    return await upstream.send(make_exchange(method, **exchange), method, target)


async def read(response: Response) -> bytes:
    """The whole body, and the response closed."""
    try:
        if response.stream is None:
            return response.body or b""
        return b"".join([piece async for piece in response.stream])
    finally:
        response.close()


async def fetch(upstream: Upstream, method: str = "GET", **exchange: Any) -> bytes:
    """Send one new exchange and read its answer's body."""
    return await read(await send(upstream, method, **exchange))


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds; for what happens soon, but tells nobody."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
