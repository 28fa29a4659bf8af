"""From a route's configuration to the chains that serve it, for its upstream and further ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from pydantic import BaseModel

from gateway.config.model import GatewayConfig, RewriteConfig, RouteConfig
from gateway.config.suggest import did_you_mean
from gateway.errors import ConfigError
from gateway.message import Handler
from gateway.observability.metrics import UNMATCHED, Metrics
from gateway.policies.base import BuildContext, ForwardTo, Policy
from gateway.policies.catalog import PolicyCatalog
from gateway.policies.compile import NO_SWITCHES, IsOn, compile_chain
from gateway.policies.terminal import Forward, refuse_unmatched, respond
from gateway.snapshot import CompiledRoute, Way
from gateway.upstream.client import Upstream

# The policies that a request without a route goes through, so that it too is logged and counted.
_UNMATCHED_POLICIES: Final = ("correlation", "observe")


class MakeContext(Protocol):
    """Makes what policies are built with."""

    def __call__(self, route: str, upstream: str, forward_to: ForwardTo) -> BuildContext:
        """For the policies of `route` with this upstream, empty if it has none."""
        ...


class Chains:
    """Builds policies and folds them. `policies` are all that were built so far."""

    def __init__(
        self,
        catalog: PolicyCatalog,
        upstreams: Mapping[str, Upstream],
        metrics: Metrics,
        make_context: MakeContext,
    ) -> None:
        self.policies: list[Policy] = []
        self._catalog = catalog
        self._upstreams = upstreams
        self._metrics = metrics
        self._make_context = make_context
        # Those of the route that is being built.
        self._ways: list[Way] = []

    def route(self, config: RouteConfig) -> CompiledRoute:
        """The route ready to serve. Raises ConfigError, whose path begins within the route."""
        whole = _configs(config, config.policies)
        configs = self._up_to_the_end(whole)
        context = self._context(config, config.upstream)
        self._ways = []
        policies = self._built(self._catalog.build, configs, context)
        forward = None
        if config.respond is not None:
            terminal = respond(config.respond)
        elif config.upstream is None or configs is not whole:
            terminal = refuse_unmatched
        else:
            forward = Forward(self._upstreams[config.upstream or ""], config)
            terminal = forward.handle
        handler = self._compile(policies, terminal, configs, context)
        return CompiledRoute(
            config.name, config, policies, configs, handler, forward, "cors" in configs,
            tuple(self._ways),
        )  # fmt: skip

    def unmatched(self, gateway: GatewayConfig) -> Handler:
        """The chain of requests that no route takes."""
        configs: dict[str, Any] = {}
        for name in _UNMATCHED_POLICIES:
            standard = self._catalog.policy(name).Config()
            configs[name] = gateway.defaults.get(name, standard)
        context = self._make_context(UNMATCHED, "", _nowhere)
        policies = self._built(self._catalog.build, configs, context)
        return self._compile(policies, refuse_unmatched, configs, context)

    def _up_to_the_end(self, configs: dict[str, Any]) -> dict[str, Any]:
        """Without the policies behind one that answers by itself."""
        for name in configs:
            if self._catalog.policy(name).ends:
                inner = self._catalog.behind(name)
                return {key: each for key, each in configs.items() if key not in inner}
        return configs

    def _context(self, route: RouteConfig, upstream: str | None) -> BuildContext:
        made = self._make_context(route.name, upstream or "", partial(self._forward_to, route))
        return replace(made, only=partial(self._only, route))

    def _only(self, route: RouteConfig, policies: Collection[str], terminal: Handler) -> Handler:
        """A chain of those of the route's policies that are named."""
        given = _configs(route, route.policies)
        configs = {name: each for name, each in given.items() if name in policies}
        context = self._context(route, route.upstream)
        built = self._built(self._catalog.build_named, configs, context)
        return self._compile(built, terminal, configs, context)

    def _forward_to(
        self,
        route: RouteConfig,
        policy: str,
        field: str,
        upstream: str,
        without: Collection[str] = (),
        *,
        path: str | None = None,
    ) -> Handler:
        """What stands further in than `policy`, as if the route had this upstream."""
        if upstream not in self._upstreams:
            hint = did_you_mean(upstream, self._upstreams)
            raise ConfigError(f'there is no upstream "{upstream}"{hint and f": {hint}"}', field)
        if upstream not in route.elsewhere:
            # The route's own policies would have its upstream's credentials among them.
            raise ConfigError(f"{policy} does not have this among its further_upstreams", field)
        inner = self._catalog.behind(policy)
        given = _configs(route, route.elsewhere[upstream])
        configs = {
            name: each for name, each in given.items() if name in inner and name not in without
        }
        context = self._context(route, upstream)
        policies = self._built(self._catalog.build_named, configs, context)
        if path is not None:
            rewrite = (route.rewrite or RewriteConfig()).model_copy(update={"path": path or None})
            route = route.model_copy(update={"rewrite": rewrite})
        forward = Forward(self._upstreams[upstream], route)
        shown = None if path == "" else forward
        self._ways.append(Way(upstream, policies, configs, shown))
        return self._compile(policies, forward.handle, configs, context)

    def _built(
        self,
        build: Callable[[Mapping[str, Any], BuildContext], tuple[Policy, ...]],
        configs: Mapping[str, Any],
        context: BuildContext,
    ) -> tuple[Policy, ...]:
        built = build(configs, context)
        self.policies.extend(built)
        return built

    def _compile(
        self,
        policies: tuple[Policy, ...],
        terminal: Handler,
        configs: Mapping[str, Any],
        context: BuildContext,
    ) -> Handler:
        # Not getattr: for a field that is not there, pydantic's takes microseconds.
        modes = ((name, vars(config).get("mode")) for name, config in configs.items())
        reporting = frozenset(name for name, mode in modes if mode == "report")
        flags = {
            name: flag for name, config in configs.items() if (flag := vars(config).get("flag"))
        }
        switches = self._switches(flags, context) if flags else NO_SWITCHES
        return compile_chain(policies, terminal, reporting, self._report, switches)

    def _switches(self, flags: Mapping[str, str], context: BuildContext) -> dict[str, IsOn]:
        """What switches policies, by their names. Raises ConfigError."""
        switches: dict[str, IsOn] = {}
        for name, flag in flags.items():
            if not self._catalog.policy(name).switchable:
                raise ConfigError("what keeps callers out is not switched by flags", f"{name}.flag")
            try:
                switches[name] = context.flag(flag).is_on
            except ConfigError as error:
                raise ConfigError(error.message, f"{name}.flag") from error
        return switches

    def _report(self, route: str, policy: str, code: str) -> None:
        self._metrics.route(route).report(policy, code)


def _configs(route: RouteConfig, policies: Mapping[str, BaseModel]) -> dict[str, Any]:
    """These policies of the route by name, and its plugins."""
    configs: dict[str, Any] = dict(policies)
    for plugin in route.plugins:
        configs[plugin.use] = plugin.config
    return configs


def _nowhere(
    policy: str,
    field: str,
    upstream: str,
    without: Collection[str] = (),
    *,
    path: str | None = None,
) -> Handler:
    del policy, upstream, without, path
    raise ConfigError("only a route has upstreams", field)
