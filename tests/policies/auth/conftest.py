"""Keys that are made once, and a gateway on each server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.support.gateway import RunningGateway, run_gateway
from tests.support.idp import SigningKey

Serve = Callable[..., AbstractAsyncContextManager[RunningGateway]]


@pytest.fixture(scope="session")
def key() -> SigningKey:
    """The provider's key; a good RSA key takes a tenth of a second to make."""
    return SigningKey("k1")


@pytest.fixture(scope="session")
def strange() -> SigningKey:
    """A key of nobody's, that calls itself like the provider's."""
    return SigningKey("k1")


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """A gateway on the lean protocol."""
    return partial(run_gateway, tmp_path)


@pytest.fixture(params=["lean", "stock"])
def serve_both(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """A gateway on each of the two servers."""
    return partial(run_gateway, tmp_path, stock=request.param == "stock")
