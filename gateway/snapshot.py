"""What a configuration becomes: the routes compiled, and the snapshot that serves.

Only data; `runtime.py` builds, starts, swaps and drains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config.loader import Configuration
from gateway.config.model import RouteConfig
from gateway.forwarded import TrustedProxies
from gateway.loading import Loaded
from gateway.message import Handler
from gateway.observability.access_log import AccessLog
from gateway.policies.base import Policy
from gateway.policies.terminal import Forward
from gateway.routing.table import RouteTable
from gateway.upstream.client import Upstream


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a further upstream of a route: the policies on it, and what forwards; None for
    that if the policy makes the path by itself, for each request.
    """

    upstream: str
    policies: tuple[Policy, ...]
    configs: Mapping[str, Any]
    forward: Forward | None


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route ready to serve: its chain folded into `handler`, its policies in order.

    `configs` holds the configuration of each policy by name. `ways` are those to upstreams that
    policies name; where a policy ends the chain, there is no `forward` but these.
    """

    name: str
    config: RouteConfig
    policies: tuple[Policy, ...]
    configs: Mapping[str, Any]
    handler: Handler
    forward: Forward | None = None
    answers_preflight: bool = False
    ways: tuple[Way, ...] = ()


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
