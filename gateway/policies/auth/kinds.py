"""Which kinds of identity there are, and the identities of one configuration.

The module of a kind is imported when a configuration first uses it: libraries for signatures and
for HTTP take memory that a gateway without tokens should not pay for.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, SecretStr

from gateway.config.model import GatewayConfig
from gateway.config.suggest import did_you_mean
from gateway.errors import ConfigError
from gateway.policies.auth.identity import Identity
from gateway.policies.base import BuildContext

Build = Callable[[str, Any, BuildContext], Identity]
I = TypeVar("I", bound=Identity)  # noqa: E741

# By `type` of the configuration; each module has a function `build(name, config, context)`.
KINDS: Final[dict[str, str]] = {
    "jwt": "gateway.policies.auth.signed",
    "introspection": "gateway.policies.auth.introspection",
    "api_key": "gateway.policies.auth.api_key",
    "mtls": "gateway.policies.auth.certificates",
    "webhook": "gateway.policies.auth.webhook",
}


class Directory:
    """The identities and consumers of one configuration. Get it with `directory(context)`."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._built: dict[str, Identity] = {}

    def find(self, name: str, context: BuildContext) -> Identity:
        """The identity of that name, built if it was not yet. Raises ConfigError."""
        identity = self._built.get(name)
        if identity is None:
            configs = self._config.identities
            if name not in configs:
                hint = did_you_mean(name, configs) or "name it under identities"
                raise ConfigError(f'there is no identity "{name}"; {hint}')
            identity = self._built[name] = _build(name, configs[name], context)
        return identity

    @cached_property
    def tiers(self) -> Mapping[str, str]:
        """The tier of each consumer that has one."""
        consumers = self._config.consumers.items()
        return {name: each.tier for name, each in consumers if each.tier is not None}

    @cached_property
    def tiers_digest(self) -> str:
        """Changes when `tiers` does."""
        return hashlib.sha256(repr(sorted(self.tiers.items())).encode()).hexdigest()


def directory(context: BuildContext) -> Directory:
    """The directory of the configuration that is being built."""
    # The directory holds the configuration, so its address is not used again while the key lives.
    key = ("identities", id(context.config))
    return cast("Directory", context.shared(key, lambda: Directory(context.config)))


def keep(name: str, config: BaseModel, context: BuildContext, make: Callable[[], I]) -> I:
    """The identity made by `make`, or the one that was made before from the same settings.

    The settings are its name, its configuration (secrets included), and what is known of
    consumers. Ask `context` for other shared things it uses before this, every time: what a
    configuration does not ask for is closed.
    """
    known = directory(context).tiers_digest
    return cast("I", context.shared(("identity", name, fingerprint(config), known), make))


def fingerprint(config: BaseModel) -> str:
    """Changes when the configuration does; unlike its JSON, also with a secret."""
    return hashlib.sha256(repr(_plain(config)).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(each) for name, each in value}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def load_modules(config: GatewayConfig) -> None:
    """Import what the identities of this configuration need, so that building them is quick."""
    for kind in {identity.type for identity in config.identities.values()}:
        if kind in KINDS:
            importlib.import_module(KINDS[kind])


def _build(name: str, config: Any, context: BuildContext) -> Identity:
    module = KINDS.get(config.type)
    if module is None:
        raise ConfigError(f'the identity "{name}" is of the type {config.type}: not available yet')
    build: Build = importlib.import_module(module).build
    try:
        return build(name, config, context)
    except ConfigError as error:
        # What is wrong with an identity stands there, not at the route that names it.
        raise ConfigError(f'the identity "{name}": {error.message}') from error
