"""A configuration's file in, what a gateway is built from out: read, checked, compiled."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config.issues import Issue, located, position_of
from gateway.config.loader import Configuration, load
from gateway.policies.auth import kinds
from gateway.policies.catalog import PolicyCatalog

if TYPE_CHECKING:
    from gateway.contracts.library import Library


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read and checked, with the policies it may use.

    `library` are its models and contracts, if it has any and they were compiled here; they go to no
    other process.
    """

    configuration: Configuration
    catalog: PolicyCatalog
    library: Library | None = None


def load_configuration(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the configuration at `path`, plugins included. Raises ConfigErrors with every error."""
    catalog = PolicyCatalog()
    configuration = load(path, catalog, environ)
    # Here, because this runs beside the event loop: it takes a fifth of a second the first time.
    kinds.load_modules(configuration.gateway)
    if not _has_content(configuration):
        return Loaded(configuration, catalog)
    library = make_library(configuration)
    if library.errors:
        raise located(library.errors, configuration)
    return Loaded(_complete(configuration, library), catalog, library)


def make_library(configuration: Configuration) -> Library:
    """The compiled models and contracts of a configuration, from `content` or from their files."""
    # Here, because it takes memory that a gateway without contracts should not pay for.
    from gateway.contracts.library import Library  # noqa: PLC0415

    gateway = configuration.gateway
    return Library(gateway.models, gateway.contracts, configuration.base_dir, configuration.content)


async def open_library(
    loaded: Loaded,
    known: Container[tuple[object, ...]],
    shared: Callable[[tuple[object, ...], Callable[[], Any]], Any],
) -> Library | None:
    """The library of what was loaded; the one that is shared already if nothing of it changed.

    None if it has neither models nor contracts. `known` holds the keys of what is shared. What
    another process validated is compiled here.
    """
    if not _has_content(loaded.configuration):
        return None
    key = ("library", library_key(loaded.configuration))
    made = loaded.library
    if made is None and key not in known:
        made = await asyncio.to_thread(make_library, loaded.configuration)
    library: Library = shared(key, lambda: made)
    return library


def library_key(configuration: Configuration) -> str:
    """A text that changes with what `make_library` gives."""
    from gateway.contracts.library import digest  # noqa: PLC0415 - see make_library

    gateway = configuration.gateway
    return digest(gateway.models, gateway.contracts, configuration.base_dir, configuration.content)


def _has_content(configuration: Configuration) -> bool:
    return bool(configuration.gateway.models or configuration.gateway.contracts)


def _complete(configuration: Configuration, library: Library) -> Configuration:
    """The configuration with the files and the warnings of its models and contracts."""
    if not library.contents:
        return configuration
    warnings = list(configuration.warnings)
    for path, message in library.warnings:
        warnings.append(Issue(*position_of(configuration.locate(path)), path, message))
    stamp = hashlib.sha256(configuration.fingerprint.encode())
    for name, data in sorted(library.contents.items()):
        stamp.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(data).digest())
    return replace(
        configuration,
        warnings=warnings,
        content=library.contents,
        files=list(dict.fromkeys([*configuration.files, *library.files])),
        fingerprint=stamp.hexdigest(),
    )
