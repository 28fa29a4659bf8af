"""What the supervising process and its workers say to each other, and how a configuration travels.

A configuration is read and checked once, by the supervisor, and sent as it is: every worker builds
from the same data, whatever happens to the files meanwhile.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec

from gateway.admin.control import Purge
from gateway.errors import ConfigError
from gateway.policies.catalog import PolicyCatalog
from gateway.runtime import Loaded


class Build(msgspec.Struct):
    """Build generation `generation` of the configuration. Sent with `start` and `prepare`."""

    generation: int
    plugins: list[str]
    base_dir: str
    configuration: bytes


class Launch(msgspec.Struct):
    """What a worker needs before it can build anything. Sent once, with `start`."""

    build: Build
    instance: str
    log_level: str
    heartbeat: float
    stock: bool


class Explain(msgspec.Struct):
    """The arguments of `explain`."""

    method: str
    url: str


class PurgeOrder(msgspec.Struct):
    """The arguments of `purge`: one worker tells the store, all forget what they have."""

    what: Purge
    tell: bool


def pack(loaded: Loaded, generation: int) -> Build:
    """A configuration on its way to a worker."""
    configuration = loaded.configuration
    return Build(
        generation=generation,
        plugins=list(configuration.gateway.plugins),
        base_dir=str(configuration.base_dir),
        # Only ever read by a child of this process, over a socket pair made for it.
        configuration=pickle.dumps(configuration, pickle.HIGHEST_PROTOCOL),
    )


def unpack(build: Build) -> Loaded:
    """The configuration as the worker uses it. Raises ConfigError if a plugin can't be loaded."""
    catalog = PolicyCatalog()
    # The plugins' modules must be there before the models of their policies can be.
    catalog(build.plugins, Path(build.base_dir))
    try:
        configuration = pickle.loads(build.configuration)  # noqa: S301 - from our own parent
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"a plugin changed while it was loaded ({error})", "plugins") from error
    return Loaded(configuration, catalog)
