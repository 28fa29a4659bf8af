"""The one door between the admin application and the data path, and the data that goes through it.

Everything here is plain data that `msgspec` can encode and decode, because with several workers it
crosses process borders. Nothing here may import the runtime: the in-process implementation and the
one of the supervising process both fit `Control`. Values must already be free of secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateway.observability.snapshot import Snapshot


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `/healthz?verbose`, such as `listener` or `workers`."""

    name: str
    ok: bool
    detail: str = ""


class Health(msgspec.Struct, frozen=True):
    """`live` is False if only a restart can help; `ready` is False first thing on a drain."""

    live: bool
    ready: bool
    checks: Sequence[Check] = ()


class PolicyInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One policy of a compiled chain. `stage` is admission or delivery, `shape` guard or around.

    `flag` is the flag that switches it, if one does.
    """

    name: str
    stage: str
    shape: str
    mode: str = ""
    plugin: bool = False
    flag: str = ""
    config: dict[str, Any] = {}


class WayInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The way to an upstream that a policy names: what stands on it, and the URL it leads to."""

    upstream: str
    chain: Sequence[PolicyInfo] = ()
    target: str = ""


class RouteInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A compiled route: what it matches, what its chain is in order, and where it leads.

    `ways` are those to further upstreams: where an asynchronous route delivers to, and where a
    canary or a mirror may lead. `beside` is the route that this one came with.
    """

    name: str
    match: dict[str, Any]
    enabled: bool = True
    upstream: str = ""
    respond: dict[str, Any] | None = None
    rewrite: dict[str, Any] | None = None
    chain: Sequence[PolicyInfo] = ()
    declared: str = ""  # file:line:column
    beside: str = ""
    ways: Sequence[WayInfo] = ()


class IssueInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One error or warning of the configuration, where it stands and what may help."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""


class WorkerInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker process serves now. `error` says why it is not the newest generation."""

    pid: int
    generation: int
    ready: bool
    fingerprint: str = ""
    error: str = ""


class ReloadInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a reload ended. `at` is Unix seconds; `cause` is signal, file, admin or start.

    If not `ok`, `generation` is the old one, which keeps serving. `changed` is False if the files
    say what already runs.
    """

    ok: bool
    generation: int
    at: float
    fingerprint: str = ""
    cause: str = ""
    changed: bool = True
    errors: Sequence[IssueInfo] = ()
    warnings: Sequence[IssueInfo] = ()


class ConfigInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is served now. `loaded_at` is Unix seconds; `last_reload` is None before the first."""

    generation: int
    fingerprint: str
    loaded_at: float
    files: Sequence[str]
    last_reload: ReloadInfo | None = None
    warnings: Sequence[IssueInfo] = ()
    workers: Sequence[WorkerInfo] = ()


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What would happen to a request: its route and chain, or the problem it would get.

    `path` is the normal form that was matched; `target` is what the upstream would be sent.
    `status` and `code` are set if it would be refused before a chain runs (400, 404, 405), and
    `allow` lists the methods of a 405.
    """

    method: str
    url: str
    host: str = ""
    path: str = ""
    route: RouteInfo | None = None
    params: dict[str, str] = {}
    target: str = ""
    status: int = 0
    code: str = ""
    detail: str = ""
    allow: Sequence[str] = ()


class Purge(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which cached answers are to be forgotten; exactly one of the four is given.

    `prefix` is the beginning of a path, or of host and path. `all` takes every answer.
    """

    route: str = ""
    prefix: str = ""
    tag: str = ""
    all: bool = False

    @property
    def usable(self) -> bool:
        """Whether exactly one is given."""
        return sum((bool(self.route), bool(self.prefix), bool(self.tag), self.all)) == 1


class PurgeInfo(msgspec.Struct, frozen=True):
    """How a purge ended. `removed` counts the answers in the memory of this gateway's workers.

    `shared` says whether the other gateways were told: `none` if no route shares its answers,
    `told`, or `failed` if the store could not be reached.
    """

    removed: int
    shared: str = "none"


class BreakerOrder(msgspec.Struct, frozen=True):
    """What somebody wants of a circuit breaker: open or closed until further notice, or auto.

    `route` names the route's own breaker; empty for the one that all routes to `upstream` share.
    """

    upstream: str
    state: Literal["open", "closed", "auto"]
    route: str = ""


class FlagOrder(msgspec.Struct, frozen=True):
    """What somebody wants of a flag: `value` as it is written in the configuration, read already.

    `reset` has it be as configured again.
    """

    name: str
    value: Any = None
    reset: bool = False


class FlagOutcome(msgspec.Struct, frozen=True):
    """How an order to a flag ended: `done`, `unknown`, `invalid`, or `unavailable` (the store).

    `before` and `after` are the flag's values.
    """

    state: Literal["done", "unknown", "invalid", "unavailable"]
    detail: str = ""
    before: Any = None
    after: Any = None


class DeliveryCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question or an order about asynchronous routes: an operation, and what it takes.

    `gateway/delivery/operations.py` lists the operations. `by` says who asks, for the audit.
    """

    name: str
    params: dict[str, Any] = {}
    by: str = ""


class DeliveryAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a `DeliveryCall`; `data` is that of the operation if it is `done`.

    Otherwise `detail` says why: `unused` (no route is asynchronous), `unknown` (no such operation),
    `invalid` (what was given), `missing` (what was asked for), `conflict` (what it is now does not
    allow it), `unavailable` (the store).
    """

    state: Literal["done", "unused", "unknown", "invalid", "missing", "conflict", "unavailable"]
    data: Any = None
    detail: str = ""


class Control(Protocol):
    """What the admin application may ask of the data path and tell it to do.

    A method that can't answer at this moment (a worker is gone, say) raises `ControlUnavailable`.
    """

    async def health(self) -> Health:
        """Answer at once, whatever the state; never wait for a worker or an upstream."""
        ...

    async def routes(self) -> Sequence[RouteInfo]:
        """Every route, in the order of the configuration."""
        ...

    async def upstreams(self) -> Sequence[dict[str, Any]]:
        """`Upstream.status()` of every upstream; every mapping has a `name`."""
        ...

    async def mirrors(self) -> Sequence[dict[str, Any]]:
        """The mirrors' last differences, by route, as each process saw them."""
        ...

    async def store(self) -> Sequence[dict[str, Any]]:
        """How the store is, as each process sees it; empty if nothing needs one."""
        ...

    async def config(self) -> ConfigInfo:
        """The configuration that is served, the last reload, and every worker's generation."""
        ...

    async def reload(self) -> ReloadInfo:
        """Load the files again and swap if they are good. Two calls at once run one by one."""
        ...

    async def purge(self, what: Purge) -> PurgeInfo:
        """Forget cached answers, in every worker and in the store."""
        ...

    async def order_breaker(self, order: BreakerOrder) -> bool:
        """Open or close a circuit breaker, in every process; False if there is no such one."""
        ...

    async def flags(self) -> Sequence[dict[str, Any]]:
        """Every flag: its value, what the configuration says, and whether an order holds."""
        ...

    async def order_flag(self, order: FlagOrder) -> FlagOutcome:
        """Change a flag, in every process and, with a store, in every gateway."""
        ...

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer:
        """Have one process look into the queues, or do something with what stands in them."""
        ...

    async def explain(self, method: str, url: str) -> Explanation:
        """Trace a request without sending it. `url` may be absolute or start with a slash."""
        ...

    async def metrics_snapshot(self) -> Snapshot:
        """Every process's metrics, merged."""
        ...


class ControlUnavailable(Exception):
    """The data path can't answer the admin application now; trying again may help."""
