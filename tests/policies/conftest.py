"""What policies are built with and sent through: a context, exchanges."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.config.model import GatewayConfig, ServerConfig, TelemetryConfig
from gateway.message import Exchange, Headers, Request
from gateway.observability.metrics import Metrics
from gateway.policies.base import BuildContext


@pytest.fixture
def context() -> BuildContext:
    """A context with default settings, and random numbers that repeat."""
    clock = SystemClock()
    kept: dict[tuple[object, ...], Any] = {}
    return BuildContext(
        route="test",
        config=GatewayConfig(),
        server=ServerConfig(),
        telemetry=TelemetryConfig(),
        clock=clock,
        random=random.Random(7),
        metrics=Metrics(clock),
        access_log=None,
        base_dir=Path(),
        shared=lambda key, factory: kept.setdefault(key, factory()),
    )


@pytest.fixture
def make_exchange() -> Callable[..., Exchange]:
    """Makes an exchange: method, then header fields as pairs, then attributes of the request."""

    def make(method: str = "GET", *fields: tuple[str, str], **attributes: Any) -> Exchange:
        headers = Headers([(name.encode(), value.encode("latin-1")) for name, value in fields])
        request = Request(method, "/", b"", headers)
        for name, value in attributes.items():
            setattr(request, name, value)
        return Exchange(request, 0.0)

    return make
