"""Builds what a gateway would serve, looks at it, and takes it down; no listener, no log file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gateway.errors import ConfigError
from gateway.runtime import Loaded, Runtime, Snapshot
from gateway.server.sources import load_configuration, located
from gateway.settings import load_settings

T = TypeVar("T")


def load(config: Path | None) -> Loaded:
    """Load the configuration of the option, or of the environment. Raises ConfigErrors."""
    return load_configuration(load_settings(config=config), os.environ)


def inspect(loaded: Loaded, look: Callable[[Snapshot], T]) -> T:
    """What `look` says of the snapshot that the configuration makes.

    Raises ConfigErrors, with positions, if it can't be built.
    """
    return asyncio.run(_inspect(_without_log(loaded), look))


async def _inspect(loaded: Loaded, look: Callable[[Snapshot], T]) -> T:
    runtime = Runtime()
    try:
        tls = loaded.configuration.gateway.server.tls
        if tls is not None:
            from gateway.server.tls import server_context

            server_context(tls)
        # Nothing is started: no store, no fetching of keys.
        snapshot = await runtime.prepare(loaded, start=False)
        return look(snapshot)
    except ConfigError as error:
        raise located(error, loaded.configuration) from None
    finally:
        await runtime.aclose()


def _without_log(loaded: Loaded) -> Loaded:
    """The same without an access log: looking at a configuration must not create files."""
    gateway = loaded.configuration.gateway
    telemetry = gateway.telemetry.model_copy(update={"access_log": None})
    gateway = gateway.model_copy(update={"telemetry": telemetry})
    return replace(loaded, configuration=replace(loaded.configuration, gateway=gateway))
