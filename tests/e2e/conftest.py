"""A gateway on each of the two servers it runs on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.support.gateway import RunningGateway, run_gateway

Serve = Callable[..., AbstractAsyncContextManager[RunningGateway]]


@pytest.fixture(params=["lean", "stock"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """A gateway on our own protocol, and one on uvicorn's."""
    return partial(run_gateway, tmp_path, stock=request.param == "stock")


@pytest.fixture
def serve_lean(tmp_path: Path) -> Serve:
    """The same, for what only our own protocol promises."""
    return partial(run_gateway, tmp_path)
