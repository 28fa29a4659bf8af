"""A store for all tests of a module, which each of them finds empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.store.servers import BINARIES, Server


@pytest.fixture(scope="module", params=BINARIES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each kind."""
    found = Server(request.param, tmp_path_factory.mktemp("store"))
    found.start()
    try:
        asyncio.run(found.ready())
        yield found
    finally:
        found.kill()
