"""What a configuration becomes: the routes compiled, the snapshot that serves, what both came from.

Only data; `runtime.py` builds, starts, swaps and drains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.loader import Configuration, load
from gateway.config.model import RouteConfig
from gateway.forwarded import TrustedProxies
from gateway.message import Handler
from gateway.observability.access_log import AccessLog
from gateway.policies.auth import kinds
from gateway.policies.base import Policy
from gateway.policies.catalog import PolicyCatalog
from gateway.policies.terminal import Forward
from gateway.routing.table import RouteTable
from gateway.upstream.client import Upstream


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read and checked, with the policies it may use."""

    configuration: Configuration
    catalog: PolicyCatalog


def load_configuration(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the configuration at `path`, plugins included. Raises ConfigErrors with every error."""
    catalog = PolicyCatalog()
    configuration = load(path, catalog, environ)
    # Here, because this runs beside the event loop: it takes a fifth of a second the first time.
    kinds.load_modules(configuration.gateway)
    return Loaded(configuration, catalog)


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route ready to serve: its chain folded into `handler`, its policies in order.

    `configs` holds the configuration of each policy by name.
    """

    name: str
    config: RouteConfig
    policies: tuple[Policy, ...]
    configs: Mapping[str, Any]
    handler: Handler
    forward: Forward | None = None
    answers_preflight: bool = False


@dataclass(slots=True)
class Snapshot:
    """All that serves one generation of the configuration.

    `active` counts the exchanges that began on it; once it is retired and they ended, `drained` is
    set, and its policies are closed.
    """

    generation: int
    loaded: Loaded
    table: RouteTable[CompiledRoute]
    routes: list[CompiledRoute]
    unmatched: Handler
    trusted_proxies: TrustedProxies | None
    upstreams: dict[str, Upstream]
    policies: list[Policy]
    keys: set[tuple[object, ...]]
    access_log: AccessLog | None = None
    active: int = 0
    retired: bool = False
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def configuration(self) -> Configuration:
        """The configuration that this snapshot was built from."""
        return self.loaded.configuration
