"""Which policies there are: the built-in ones, and the plugins that a configuration names.

A plugin is a file (`plugins/tenant_header.py`, relative to the configuration) or an installed
package's entry point of the group `lockgate.policies`. Each load of the configuration makes a new
catalog, so that a changed plugin file takes effect at the next reload.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from gateway.config.base import PolicySpec
from gateway.config.model import GatewayConfig, RouteConfig
from gateway.errors import ConfigError
from gateway.policies.auth.fields import identity_fields
from gateway.policies.base import Around, BuildContext, Guard, Policy
from gateway.policies.order import arrange


@dataclass(frozen=True, slots=True)
class Builtin:
    """A built-in policy, whose module is imported when a configuration first uses it.

    `where` is `module:class` within this package. The rest is what must be known of it before that,
    and stands here alone. `default` is its configuration, as YAML data, on routes that do not
    mention it; None leaves it out of their chains. With an `upstream_key` it is also configured
    under that key of `upstreams.<name>`, for all routes to it; `on_routes=False` keeps it off
    routes. `further_upstreams` is as in `Policy`. `config_of` names the policy whose configuration
    this one has too, for what must stand in two places. `has_companion` says that its class has a
    `companion` of its own. With one that `takes_events` a route
    may be named by schedules and streams.
    """

    where: str
    default: Any = None
    upstream_key: str = ""
    on_routes: bool = True
    further_upstreams: tuple[str, ...] = ()
    config_of: str = ""
    has_companion: bool = False
    takes_events: bool = False

    def load(self) -> type[Policy]:
        """The class; its module is imported now if it was not yet."""
        module, _, name = self.where.partition(":")
        policy: type[Policy] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return policy

    def spec(self) -> PolicySpec:
        """What the configuration must know of it."""

        def companion(route: RouteConfig, config: Any) -> RouteConfig | None:
            return self.load().companion(route, config)

        return PolicySpec(
            lambda: self.load().Config,
            default=self.default,
            upstream_key=self.upstream_key,
            on_routes=self.on_routes,
            further_upstreams=self.further_upstreams,
            companion=companion if self.has_companion else None,
            takes_events=self.takes_events,
        )


BUILTIN: Final[dict[str, Builtin]] = {
    "correlation": Builtin("correlation:CorrelationPolicy", default={}),
    "observe": Builtin("observe:ObservePolicy", default={}),
    "audit": Builtin("audit:AuditPolicy"),
    "flag": Builtin("flag:FlagPolicy"),
    "access": Builtin("access:AccessPolicy"),
    "cors": Builtin("cors:CorsPolicy"),
    "body": Builtin("body:BodyPolicy", default={}),
    "auth": Builtin("auth.policy:AuthPolicy"),
    "flag_group": Builtin("flag:FlagGroupPolicy", config_of="flag"),
    "rate_limit": Builtin("rate_limit.policy:RateLimitPolicy"),
    "validate": Builtin("validate.policy:ValidatePolicy"),
    "idempotency": Builtin("idempotency.policy:IdempotencyPolicy"),
    "cache": Builtin("cache.policy:CachePolicy"),
    "delivery_status": Builtin("delivery.policy:DeliveryStatusPolicy", on_routes=False),
    "delivery": Builtin(
        "delivery.policy:DeliveryPolicy",
        further_upstreams=("upstreams",),
        has_companion=True,
        takes_events=True,
    ),
    "headers": Builtin("headers:HeadersPolicy"),
    "fault": Builtin("fault.policy:FaultPolicy"),
    "mirror": Builtin("mirror.policy:MirrorPolicy", further_upstreams=("upstream",)),
    "canary": Builtin("canary.policy:CanaryPolicy", further_upstreams=("upstream",)),
    "timeout": Builtin("deadline:DeadlinePolicy", upstream_key="timeout"),
    "upstream_auth": Builtin(
        "upstream_auth.policy:UpstreamAuthPolicy", upstream_key="auth", on_routes=False
    ),
    "retry": Builtin("retry.policy:RetryPolicy", upstream_key="retry"),
    "hedge": Builtin("hedge.policy:HedgePolicy", upstream_key="hedge"),
    "circuit_breaker": Builtin(
        "circuit_breaker.policy:CircuitBreakerPolicy", upstream_key="circuit_breaker"
    ),
    "bulkhead": Builtin("bulkhead.policy:BulkheadPolicy", upstream_key="bulkhead"),
}
ENTRY_POINT_GROUP: Final = "lockgate.policies"


class PolicyCatalog:
    """All policies of one configuration. Called by the configuration loader with its `plugins:`.

    `order` lists the names of the policies as they run, and is complete once the catalog was
    called.
    """

    def __init__(self) -> None:
        self.order: list[str] = arrange([])
        self._plugins: dict[str, type[Policy]] = {}
        # Built-in ones as far as they were used.
        self._loaded: dict[str, type[Policy]] = {}

    def __call__(self, plugins: Sequence[str], base_dir: Path) -> Mapping[str, PolicySpec]:
        """Load the plugins and say, by policy name, which configuration each policy takes.

        Raises ConfigError for a plugin that can't be found, fails to import, holds no policy, or
        takes a name that is in use; its `path` is `plugins[i]`.
        """
        self._plugins = {}
        for position, reference in enumerate(plugins):
            try:
                for policy in load_plugin(reference, base_dir):
                    self._add(policy, reference)
            except ConfigError as error:
                raise ConfigError(error.message, f"plugins[{position}]") from error
        self.order = arrange(self._plugins.values())
        specs = {name: each.spec() for name, each in BUILTIN.items() if not each.config_of}
        return specs | {name: _plugin_spec(policy) for name, policy in self._plugins.items()}

    def policy(self, name: str) -> type[Policy]:
        """The class of a policy. Raises KeyError if there is none of that name."""
        found = self._plugins.get(name) or self._loaded.get(name)
        if found is None:
            found = self._loaded[name] = BUILTIN[name].load()
        return found

    def import_used(self, gateway: GatewayConfig) -> None:
        """Import the policies of a configuration that was validated elsewhere."""
        used = {name for route in gateway.routes for name in route.policies}
        for upstream in gateway.upstreams.values():
            used.update(upstream.policies)
        for name in used:
            self.policy(name)

    def build(self, configs: Mapping[str, Any], context: BuildContext) -> tuple[Policy, ...]:
        """The policies of one route, in the order in which they run; `configs` is by name.

        Raises ConfigError, whose `path` begins with the policy's name.
        """
        fields = identity_fields(context)
        built = self.build_named(configs, context)
        return built if fields is None else (fields, *built)

    def behind(self, policy: str) -> frozenset[str]:
        """The names of the policies that stand further in than this one."""
        return frozenset(self.order[self.order.index(policy) + 1 :])

    def build_named(self, configs: Mapping[str, Any], context: BuildContext) -> tuple[Policy, ...]:
        """The policies of `configs` and no others, in their order; raises as `build` does."""
        built: list[Policy] = []
        for name in self.order:
            config = configs.get(config_key(name))
            if config is None:
                continue
            try:
                built.append(self.policy(name).build(config, context))
            except ConfigError as error:
                if error.whole:
                    raise
                path = f"{name}.{error.path}" if error.path else name
                raise ConfigError(error.message, path) from error
            except Exception as error:
                # Without the exception's text, which may quote a secret of the configuration.
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(frame.filename).name}, line {frame.lineno}"
                message = f"{name} can't be built: {type(error).__name__} in {place}"
                raise ConfigError(message, name) from error
        return tuple(built)

    def _add(self, policy: type[Policy], reference: str) -> None:
        name = getattr(policy, "name", "")
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"{reference}: {policy.__name__} has no usable name")
        config = getattr(policy, "Config", None)
        if not (inspect.isclass(config) and issubclass(config, BaseModel)):
            raise ConfigError(f"{reference}: policy {name} has no Config model")
        if name in BUILTIN or name in self._plugins:
            raise ConfigError(f"{reference}: a policy named {name} exists already")
        self._plugins[name] = policy


def config_key(name: str) -> str:
    """Under which key the configuration of this policy stands."""
    builtin = BUILTIN.get(name)
    return name if builtin is None else builtin.config_of or name


def _plugin_spec(policy: type[Policy]) -> PolicySpec:
    return PolicySpec(
        lambda: policy.Config,
        default=policy.default,
        builtin=False,
        further_upstreams=policy.further_upstreams,
    )


def load_plugin(reference: str, base_dir: Path) -> list[type[Policy]]:
    """The policy classes of one plugin: those of a `.py` file, or one entry point's."""
    if reference.endswith(".py"):
        module = _import_file(base_dir / reference, reference)
        found = [
            member
            for member in vars(module).values()
            if _is_policy(member) and member.__module__ == module.__name__
        ]
    else:
        found = list(_from_entry_point(reference))
    if not found:
        raise ConfigError(f"{reference} holds no policy (a subclass of Guard or Around)")
    return found


def _import_file(path: Path, reference: str) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read the plugin {reference}: {error.strerror}") from error
    # A name of its own for each content: an edited plugin is a new module beside the old one, which
    # requests in flight still use.
    digest = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]
    name = f"lockgate_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{reference} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Annotations are resolved through sys.modules, so the module must stand there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{reference} fails: {type(error).__name__}: {error}") from error
    return module


def _from_entry_point(name: str) -> Iterable[type[Policy]]:
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if not points:
        raise ConfigError(
            f"{name} is neither a .py file nor an installed plugin ({ENTRY_POINT_GROUP})"
        )
    try:
        loaded = points[0].load()
    except Exception as error:
        raise ConfigError(f"{name} fails to load: {type(error).__name__}: {error}") from error
    if isinstance(loaded, ModuleType):
        return [member for member in vars(loaded).values() if _is_policy(member)]
    return [loaded] if _is_policy(loaded) else []


def _is_policy(member: object) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, (Guard, Around))
        and member not in (Guard, Around)
    )
