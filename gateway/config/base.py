"""The base of every configuration model: frozen, and an unknown key is an error.

What a policy brings to the configuration is described here too, so that nothing in this package
needs to know a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A part of the configuration. Every field needs a description: it feeds schema and docs.

    Validators raise `types.refuse`, whose message names no value; a ValueError's text is shown
    too, unless the value came from a reference.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=False,
    )


class PolicyConfig(Model):
    """Base of the configuration of a policy."""

    flag: str | None = Field(
        default=None,
        exclude=True,
        description="The flag, by its name under flags, that must be on for this policy to do "
        "anything.",
    )


class RefusingPolicyConfig(PolicyConfig):
    """Base of the configuration of a policy that can refuse a request."""

    mode: Literal["enforce", "report"] = Field(
        default="enforce",
        description="enforce refuses; report lets the request pass, and counts and logs what "
        "would have been refused.",
    )


Companion = Callable[[Any, Any], Any]
"""Gives a RouteConfig, or None, for a RouteConfig and the policy's configuration on it."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What the configuration must know of one policy.

    `model` gives its model (a RootModel if its value is a scalar). It is asked only when the model
    is needed: the policy's module may have to be imported for it. `default` is the configuration,
    as YAML data, of routes that do not mention it; None leaves it out. A `builtin` policy is a key
    of the route; any other is a plugin, named under `plugins:`. One with an `upstream_key` may also
    stand under that key of an upstream, for all its routes; a route's own then replaces it field by
    field. `on_routes` is False if it stands nowhere else. `further_upstreams` are the fields of the
    model that name upstreams beside the route's own. `companion` gives the route that stands beside
    one which uses the policy, if there is to be one. Only routes with a policy that `takes_events`
    may be named by schedules and streams.
    """

    model: Callable[[], type[BaseModel]]
    default: Any = None
    builtin: bool = True
    upstream_key: str = ""
    on_routes: bool = True
    further_upstreams: tuple[str, ...] = ()
    companion: Companion | None = None
    takes_events: bool = False

    @property
    def config(self) -> type[BaseModel]:
        """The model of its configuration."""
        return self.model()


Catalog = Callable[[Sequence[str], Path], Mapping[str, PolicySpec]]
"""Gives every policy by key, for the `plugins:` of a configuration and its base directory.

Raises `ConfigError`, with a path such as `plugins[0]`, if a plugin can't be loaded.
"""
