"""A real store for a test, and gateways on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.store.servers import VALKEY, Server, serving
from tests.support.gateway import RunningGateway, run_gateway

Serve = Callable[..., AbstractAsyncContextManager[RunningGateway]]


@pytest.fixture
def store_server(tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Server]]:
    """Runs a store for the length of a block."""
    return lambda: serving(VALKEY, tmp_path / "store")


@pytest.fixture
def gateway_on(tmp_path: Path) -> Serve:
    """Runs a gateway on a store, with one route that has these limits and answers 204."""

    @asynccontextmanager
    async def run(
        server: Server,
        limits: str,
        extra: str = "",
        *,
        instance: str = "one",
        timeout: str = "100ms",
    ) -> AsyncIterator[RunningGateway]:
        folder = tmp_path / instance
        folder.mkdir(exist_ok=True)
        text = f"""\
store: {{url: "{server.unix}", timeout: {timeout}}}
{extra}
routes:
  - name: limited
    match: {{path: /limited}}
    respond: {{status: 204}}
    rate_limit: {limits}
  - name: free
    match: {{path: /free}}
    respond: {{status: 204}}
"""
        async with run_gateway(folder, text, instance=instance) as gateway:
            yield gateway

    return run
