"""Which policies there are: the built-in ones, and the plugins that a configuration names.

A plugin is a file (`plugins/tenant_header.py`, relative to the configuration) or an installed
package's entry point of the group `lockgate.policies`. Each load of the configuration makes a new
catalog, so that a changed plugin file takes effect at the next reload.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from gateway.config.base import Companion, PolicySpec
from gateway.errors import ConfigError
from gateway.policies.access import AccessPolicy
from gateway.policies.audit import AuditPolicy
from gateway.policies.auth.fields import identity_fields
from gateway.policies.auth.policy import AuthPolicy
from gateway.policies.base import Around, BuildContext, Guard, Policy
from gateway.policies.body import BodyPolicy
from gateway.policies.bulkhead import BulkheadPolicy
from gateway.policies.cache.policy import CachePolicy
from gateway.policies.canary.policy import CanaryPolicy
from gateway.policies.circuit_breaker import CircuitBreakerPolicy
from gateway.policies.correlation import CorrelationPolicy
from gateway.policies.cors import CorsPolicy
from gateway.policies.deadline import DeadlinePolicy
from gateway.policies.delivery.policy import DeliveryPolicy, DeliveryStatusPolicy
from gateway.policies.fault.policy import FaultPolicy
from gateway.policies.flag import FlagGroupPolicy, FlagPolicy
from gateway.policies.headers import HeadersPolicy
from gateway.policies.hedge import HedgePolicy
from gateway.policies.idempotency.policy import IdempotencyPolicy
from gateway.policies.mirror.policy import MirrorPolicy
from gateway.policies.observe import ObservePolicy
from gateway.policies.order import arrange
from gateway.policies.rate_limit.policy import RateLimitPolicy
from gateway.policies.retry import RetryPolicy
from gateway.policies.upstream_auth.policy import UpstreamAuthPolicy
from gateway.policies.validate.policy import ValidatePolicy

BUILTIN: Final[tuple[type[Policy], ...]] = (
    CorrelationPolicy,
    ObservePolicy,
    AuditPolicy,
    FlagPolicy,
    AccessPolicy,
    CorsPolicy,
    BodyPolicy,
    AuthPolicy,
    FlagGroupPolicy,
    RateLimitPolicy,
    ValidatePolicy,
    IdempotencyPolicy,
    CachePolicy,
    DeliveryStatusPolicy,
    DeliveryPolicy,
    HeadersPolicy,
    FaultPolicy,
    MirrorPolicy,
    CanaryPolicy,
    DeadlinePolicy,
    UpstreamAuthPolicy,
    RetryPolicy,
    HedgePolicy,
    CircuitBreakerPolicy,
    BulkheadPolicy,
)
ENTRY_POINT_GROUP: Final = "lockgate.policies"


class PolicyCatalog:
    """All policies of one configuration. Called by the configuration loader with its `plugins:`.

    `policies` maps a name to its class, `order` lists the names as they run; both are complete once
    the catalog was called.
    """

    def __init__(self) -> None:
        self.policies: dict[str, type[Policy]] = {policy.name: policy for policy in BUILTIN}
        self.order: list[str] = arrange(BUILTIN)

    def __call__(self, plugins: Sequence[str], base_dir: Path) -> Mapping[str, PolicySpec]:
        """Load the plugins and say, by policy name, which configuration each policy takes.

        Raises ConfigError for a plugin that can't be found, fails to import, holds no policy, or
        takes a name that is in use; its `path` is `plugins[i]`.
        """
        self.policies = {policy.name: policy for policy in BUILTIN}
        for position, reference in enumerate(plugins):
            try:
                for policy in load_plugin(reference, base_dir):
                    self._add(policy, reference)
            except ConfigError as error:
                raise ConfigError(error.message, f"plugins[{position}]") from error
        self.order = arrange(self.policies.values())
        builtin = {policy.name for policy in BUILTIN}
        return {
            name: PolicySpec(
                config=policy.Config,
                default=policy.default,
                builtin=name in builtin,
                upstream_key=policy.upstream_key,
                on_routes=policy.on_routes,
                further_upstreams=policy.further_upstreams,
                companion=_companion(policy),
                takes_events=policy.takes_events,
            )
            for name, policy in self.policies.items()
            if not policy.config_of
        }

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
            config = configs.get(self.policies[name].config_of or name)
            if config is None:
                continue
            try:
                built.append(self.policies[name].build(config, context))
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
        if name in self.policies:
            raise ConfigError(f"{reference}: a policy named {name} exists already")
        self.policies[name] = policy


def _companion(policy: type[Policy]) -> Companion | None:
    own = policy.companion.__func__ is not Policy.companion.__func__  # type: ignore[attr-defined]
    return policy.companion if own else None


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
