"""The contract of a policy. Built-in policies and plugins use the same two shapes.

Lifecycle: `build` is pure and may raise ConfigError; `start` may do I/O; `aclose` works after a
failed start. One instance serves one route and many requests at once, so what belongs to a request
lives in the Exchange, and what must outlive a reload comes from `BuildContext.shared`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import BaseModel

from gateway.clock import Clock
from gateway.errors import Rejection
from gateway.message import Exchange, Handler, Response

if TYPE_CHECKING:
    from gateway.config.model import GatewayConfig, RouteConfig, ServerConfig, TelemetryConfig
    from gateway.contracts.library import Library
    from gateway.control.client import ControlClient
    from gateway.delivery.dispatcher import Dispatcher
    from gateway.flags.rules import Switch
    from gateway.observability.access_log import AccessLog
    from gateway.observability.metrics import Metrics
    from gateway.store.base import Store


class Stage(StrEnum):
    """Where a policy stands: once per client request, or once per upstream call."""

    ADMISSION = "admission"
    DELIVERY = "delivery"


class ForwardTo(Protocol):
    """Makes the way to another upstream of a route; see `BuildContext`."""

    def __call__(
        self,
        policy: str,
        field: str,
        upstream: str,
        without: Collection[str] = (),
        *,
        path: str | None = None,
    ) -> Handler:
        """Raises ConfigError, at `field` of the policy, if there is no such upstream."""
        ...


class OnlyThese(Protocol):
    """Makes a chain of a few of the route's policies; see `BuildContext`."""

    def __call__(self, policies: Collection[str], terminal: Handler) -> Handler:
        """Raises ConfigError."""
        ...


class OpenStore(Protocol):
    """Gives the store; see `BuildContext`."""

    def __call__(self, patience: float = 0.0) -> Store:
        """With `patience`, one whose calls may take so many seconds, if that is more."""
        ...


def _no_way(
    policy: str,
    field: str,
    upstream: str,
    without: Collection[str] = (),
    *,
    path: str | None = None,
) -> Handler:
    del policy, field, upstream, without, path
    raise RuntimeError("this context was made without upstreams")


def _no_policies(policies: Collection[str], terminal: Handler) -> Handler:
    del policies
    return terminal


def _no_store(patience: float = 0.0) -> Store:
    del patience
    raise RuntimeError("this context was made without a store")


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a policy may use when it is built.

    `shared(key, factory)` returns the long-lived object of that key, made by `factory` the first
    time; it survives reloads as long as some route still asks for it. Has it a `start`, that is
    awaited before the policies' own, once for each configuration that uses it; has it an `aclose`,
    that is awaited when nobody asks for it any more; has it a `halt`, that is awaited when the
    process begins to end, with the seconds that what it does may still take. `config` is the whole
    configuration, `library` its models and contracts, compiled, None if it has neither. `upstream`
    is the name of the route's upstream, empty if it has none. `store()` is the store; asking for
    it when a policy is built is what has it started.
    `forward_to(policy, field, upstream)` is what stands further in than `policy`, made once more
    for another upstream, which the policy's field names: as if the route had that upstream, so with
    its timeouts, breaker and credentials. Policies named in `without` are left out of it; `path`
    stands in place of the route's rewrite.path, an empty one if the policy makes the path.
    `only(policies, terminal)` is a chain of those of the route's policies that are named, as it has
    them, for what comes in without a client.
    """

    route: str
    config: GatewayConfig
    server: ServerConfig
    telemetry: TelemetryConfig
    clock: Clock
    random: random.Random
    metrics: Metrics
    access_log: AccessLog | None
    base_dir: Path
    shared: Callable[[tuple[object, ...], Callable[[], Any]], Any]
    library: Library | None = None
    store: OpenStore = _no_store
    upstream: str = ""
    forward_to: ForwardTo = _no_way
    only: OnlyThese = _no_policies

    def scope(self, policy: str, config: BaseModel) -> tuple[str, str]:
        """What a policy that may stand under `upstreams:` shares its state with.

        (upstream, "") for all routes that use what the upstream says, or, where the upstream says
        nothing, the same as this one; (upstream, route) for a route that says otherwise.
        """
        upstream = self.config.upstreams.get(self.upstream)
        common = upstream.policies.get(policy) if upstream is not None else None
        own = common is not None and common != config
        return self.upstream, self.route if own else ""

    def flag(self, name: str) -> Switch:
        """The switch of a flag. Raises ConfigError if the configuration has no such flag."""
        from gateway.flags.board import open_board  # noqa: PLC0415 - few configurations have flags

        return open_board(self.config, self.shared, self.store, self.metrics).switch(
            name, self.config
        )

    def dispatcher(self) -> Dispatcher:
        """The queues of asynchronous routes, and the audit beside them: one for everybody."""
        # Here, because few configurations have either.
        from gateway.delivery.dispatcher import dispatcher_of  # noqa: PLC0415
        from gateway.delivery.queue import PATIENCE_S  # noqa: PLC0415

        return dispatcher_of(
            self.config,
            self.store(PATIENCE_S),
            self.shared,
            self.clock,
            self.random,
            self.metrics,
        )

    def http(self) -> ControlClient:
        """The client for calls to the control plane, the same one for everybody."""
        # Here, because it takes memory that a gateway which makes no such calls should not pay for.
        from gateway.control.client import ControlClient  # noqa: PLC0415

        client: ControlClient = self.shared(("control client",), ControlClient)
        return client


class Judge(Protocol):
    """What a policy knows of a route's requests that others want to ask about an event again."""

    async def review(self, exchange: Exchange) -> Rejection | None:
        """What is wrong with the request; None if nothing is."""
        ...


def judge_key(context: BuildContext) -> tuple[object, ...]:
    """The key among the shared objects of the route's `Judge`, of this configuration and no other.

    A policy that judges puts itself there when it is built, so whoever asks must stand further in.
    """
    return ("judge", context.route, id(context.config))


class Policy:
    """What both shapes have in common.

    `name` is the key in YAML. `switchable = False` keeps flags from switching it off. A policy that
    `ends` a chain answers by itself: what stands further in is no part of the chain, but of
    `forward_to`.

    The rest is for plugins; of a built-in policy the table in `catalog.py` says it. `default` is
    the configuration, as YAML data, for routes that do not mention the policy; None leaves it out
    of their chains. A plugin anchors itself with `before` or `after`, naming a built-in policy;
    without either it stands last in its stage. `further_upstreams` are the fields of its
    configuration that name upstreams beside the route's own (`BuildContext.forward_to`).
    """

    name: ClassVar[str]
    stage: ClassVar[Stage] = Stage.ADMISSION
    Config: ClassVar[type[BaseModel]]
    switchable: ClassVar[bool] = True
    default: ClassVar[Any] = None
    before: ClassVar[str] = ""
    after: ClassVar[str] = ""
    further_upstreams: ClassVar[tuple[str, ...]] = ()
    ends: ClassVar[bool] = False

    @classmethod
    def companion(cls, route: RouteConfig, config: Any) -> RouteConfig | None:
        """The route that stands beside one which uses this policy; None for no such route."""
        del route, config
        return None

    @classmethod
    def build(cls, config: Any, context: BuildContext) -> Self:
        """Make the policy of one route. Pure; raises ConfigError if `config` can't work."""
        raise NotImplementedError

    async def start(self) -> None:
        """Do the I/O that must have happened before the first request."""

    async def aclose(self) -> None:
        """Let go of everything; also called after a `start` that failed half-way."""


def has_lifecycle(policy: Policy) -> bool:
    """Whether `start` or `aclose` does anything."""
    kind = type(policy)
    return kind.start is not Policy.start or kind.aclose is not Policy.aclose


class Guard(Policy):
    """Looks at the request and may refuse it. It cannot see the response."""

    def check(self, exchange: Exchange) -> Rejection | Awaitable[Rejection | None] | None:
        """Return None to let the request pass, or why not.

        `async def` for a guard that waits for something; a plain `def` for one that does not, or
        only now and then (it returns an awaitable then), which saves a coroutine for each request.

        To speak on the answer, append to `exchange.reply_headers`. To see the end of the exchange,
        append to `exchange.on_finish`.
        """
        raise NotImplementedError


class Around(Policy):
    """Holds something across the rest of the chain."""

    def handle(self, exchange: Exchange, forward: Handler) -> Awaitable[Response]:
        """Answer the exchange, as a rule an `async def` with one `await forward(exchange)`; where
        nothing is left to do, `forward(exchange)` itself may be given back.

        What is acquired is released with `Response.on_close`, in `finally` if `forward` raises.
        Raise `Refused` to refuse before `forward` was called.
        """
        raise NotImplementedError
