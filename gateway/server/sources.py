"""Where the configuration comes from: loads it as this process's settings say.

Adds to the file what the environment gives by default, says which files to watch, and which keys
can't change while the process runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config import issues
from gateway.config.issues import ConfigErrors, Issue
from gateway.config.loader import Configuration
from gateway.config.types import parse_cidr
from gateway.errors import ConfigError
from gateway.runtime import Loaded
from gateway.runtime import load_configuration as load_file
from gateway.server.role import GATEWAY, Role
from gateway.server.watch import Watched
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.config.model import ServerConfig


def load_configuration(
    settings: Settings, environ: Mapping[str, str], role: Role = GATEWAY
) -> Loaded:
    """Load the configuration that the settings name, as a process of this role uses it. Blocks;
    raises ConfigErrors or ConfigError.

    `FORWARDED_ALLOW_IPS` stands in for server.trusted_proxies where the file leaves that out;
    server.workers is the number that is really run.
    """
    loaded = load_file(settings.config, environ)
    try:
        loaded = role.applied(loaded)
    except ConfigError as error:
        raise located(error, loaded.configuration) from None
    gateway = loaded.configuration.gateway
    changes: dict[str, object] = {"workers": worker_count(settings, gateway.server)}
    given = settings.trusted_proxies()
    if given and "trusted_proxies" not in gateway.server.model_fields_set:
        try:
            changes["trusted_proxies"] = [parse_cidr(text) for text in given]
        except ValueError as error:
            raise ConfigError(f"FORWARDED_ALLOW_IPS: {error}") from None
    server = gateway.server.model_copy(update=changes)
    gateway = gateway.model_copy(update={"server": server})
    return replace(loaded, configuration=replace(loaded.configuration, gateway=gateway))


def worker_count(settings: Settings, server: ServerConfig) -> int:
    """How many processes serve traffic: GATEWAY_WORKERS, server.workers, WEB_CONCURRENCY, or 1."""
    return settings.worker_count(server.workers if "workers" in server.model_fields_set else None)


def watched_files(settings: Settings, configuration: Configuration) -> Watched:
    """Everything on disk that the configuration was made of, certificates and plugins included."""
    gateway = configuration.gateway
    base = configuration.base_dir
    files = [settings.config, *configuration.files]
    files += [base / name for name in gateway.plugins if name.endswith(".py")]
    if gateway.server.tls is not None:
        tls = gateway.server.tls
        files += [path for path in (tls.cert, tls.key, tls.client_ca) if path is not None]
    for upstream in gateway.upstreams.values():
        if upstream.tls is not None:
            own = (upstream.tls.ca, upstream.tls.cert, upstream.tls.key)
            files += [path for path in own if path is not None]
    globs = {base / glob for glob in gateway.include}
    globs.update(path / "*.y*ml" for path in configuration.directories)
    return Watched(
        tuple(sorted({path.absolute() for path in files})),
        tuple(sorted(path.absolute() for path in globs)),
    )


def needs_restart(
    settings: Settings, old: Configuration, new: Configuration, role: Role = GATEWAY
) -> list[Issue]:
    """What differs between two configurations and is fixed while the process runs."""
    before, after = old.gateway.server, new.gateway.server
    changed = [key for key in role.fixed if str(getattr(before, key)) != str(getattr(after, key))]
    if worker_count(settings, before) != worker_count(settings, after):
        changed.append("workers")
    if (before.tls is None) != (after.tls is None):
        changed.append("tls")
    return [_restart_issue(new, f"server.{key}") for key in changed]


def located(error: ConfigError, configuration: Configuration) -> ConfigErrors:
    """An error that was found while building, with the place in the file where its key stands."""
    return error if isinstance(error, ConfigErrors) else issues.located([error], configuration)


def _restart_issue(configuration: Configuration, path: str) -> Issue:
    file, line, column = issues.position_of(configuration.locate(path))
    return Issue(
        file=file,
        line=line,
        column=column,
        path=path,
        message=f"{path} can't change while the gateway runs",
        hint="restart the gateway, or take the change back",
    )
