"""Policies of no real behaviour, so that the configuration is tested without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, RootModel, ValidationInfo, field_validator

from gateway.config.base import PolicyConfig, PolicySpec, RefusingPolicyConfig
from gateway.config.types import Cidr, Secret, Size, Timeout
from gateway.errors import ConfigError


class Correlation(PolicyConfig):
    """Gives every exchange an ID."""

    header: str = Field(default="X-Correlation-ID", description="The field.")
    accept: bool = Field(default=True, description="Whether the caller's is taken.")


class Deadline(RootModel[Timeout]):
    """Limits the whole exchange."""


class Cors(RefusingPolicyConfig):
    """Answers browsers."""

    origins: list[str] = Field(min_length=1, description="Origins that may call.")


class Access(RefusingPolicyConfig):
    """Lets networks in."""

    allow: list[Cidr] = Field(default_factory=list, description="Networks that may call.")


class Body(PolicyConfig):
    """Bounds the body."""

    max: Size | None = Field(description="The largest body.")


class Signature(PolicyConfig):
    """A plugin with a secret."""

    key: Secret = Field(description="The key.")
    algorithm: str = Field(default="sha256", description="The hash.")

    @field_validator("algorithm")
    @classmethod
    def _is_known(cls, value: str, info: ValidationInfo) -> str:
        if value == "crash":
            raise KeyError(value)
        if value not in ("sha256", "sha512"):
            raise ValueError(f"there is no hash called {value}")
        return value


class Stamp(PolicyConfig):
    """A plugin that is on by default."""

    text: str = Field(default="seen", description="What is stamped.")


class Queue(PolicyConfig):
    """Takes events."""


BUILTIN = {
    "correlation": PolicySpec(lambda: Correlation, {}),
    "timeout": PolicySpec(lambda: Deadline, "15s", upstream_key="timeout"),
    "cors": PolicySpec(lambda: Cors),
    "access": PolicySpec(lambda: Access),
    "body": PolicySpec(lambda: Body),
    "queue": PolicySpec(lambda: Queue, takes_events=True),
}
EXTERNAL = {
    "signature.py": {"signature": PolicySpec(lambda: Signature, None, builtin=False)},
    "stamp.py": {"stamp": PolicySpec(lambda: Stamp, {}, builtin=False)},
}


def catalog(plugins: Sequence[str], base_dir: Path) -> Mapping[str, PolicySpec]:
    """The built-in policies, and those of the plugins named."""
    specs = dict(BUILTIN)
    for index, name in enumerate(plugins):
        if name not in EXTERNAL:
            raise ConfigError(f"there is no plugin {name}", f"plugins[{index}]")
        specs.update(EXTERNAL[name])
    return specs
