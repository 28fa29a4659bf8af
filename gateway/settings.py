"""What one process is told by its environment: where the configuration is, and how to run.

What traffic meets belongs in the YAML configuration; what differs from machine to machine, or must
be known before the configuration can be read, belongs here. Nothing else reads the environment,
but for references (`${env:}`) in the configuration itself.

Every name starts with `GATEWAY_`; parts of a group are joined by two underscores
(`GATEWAY_DRAIN__DELAY`); a secret may be given as a file (`GATEWAY_ADMIN_TOKEN_FILE`).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.config.types import Duration, Timeout
from gateway.errors import ConfigError

PREFIX: Final = "GATEWAY_"
# Kubernetes and Docker announce a service named "gateway" to its neighbours in variables of these
# names; they are addressed to nobody, so they can't be mistakes.
_ANNOUNCED: Final = ("GATEWAY_PORT", "GATEWAY_SERVICE_", "GATEWAY_NAME", "GATEWAY_ENV_")


class DrainSettings(BaseModel):
    """How the process goes down, as far as the platform around it decides that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay: Duration = Field(
        default=0.0,
        description="How long the listener stays open after readiness was withdrawn, so that load "
        "balancers notice first. In Kubernetes 5s is a good value. The time-out of the requests "
        "in flight, server.timeouts.drain, begins afterwards.",
    )


class WorkerSettings(BaseModel):
    """How the supervising process treats its workers. Of no effect with one worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat: Timeout = Field(
        default=15.0,
        description="A worker whose event loop has not run for this long is killed and replaced.",
    )
    start_timeout: Timeout = Field(
        default=60.0,
        description="A worker that is not ready this long after its start is killed and replaced.",
    )
    backoff_max: Timeout = Field(
        default=30.0,
        description="The longest pause before a worker that keeps failing is started again.",
    )


class Settings(BaseSettings):
    """The settings of one process. Built by `load_settings`, which also reads secret files."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    config: Path = Field(
        default=Path("config/gateway.yaml"), description="The configuration's main file."
    )
    instance: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="This instance's name, the end of its pseudonym in Via, by which a loop is "
        "noticed. Instances behind each other need different ones. Left out, it is derived from "
        "the host name and the listener's address.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe lines of the process log that are written."
    )
    watch: Literal["on", "off", "polling"] = Field(
        default="on",
        description="Whether the configuration's files are watched, and reloaded when they change. "
        "polling suits network file systems, which announce no changes.",
    )
    compiled: Literal["on", "off"] = Field(
        default="on",
        description="Whether the compiled modules are used where they were built. Read before "
        "anything else is, by gateway/compiled.py.",
    )
    workers: int | Literal["auto"] | None = Field(
        default=None, description="How many processes serve traffic; replaces server.workers."
    )
    admin: str = Field(
        default="",
        description="Where the commands reload and healthcheck find the admin listener; left out, "
        "it is server.admin of the configuration.",
    )
    admin_token: SecretStr | None = Field(
        default=None,
        description="What the command reload sends; left out, it is server.admin_token of the "
        "configuration.",
    )
    allow_faults: bool = Field(
        default=False,
        description="Whether routes may have the policy fault, which makes trouble on purpose. For "
        "rehearsals; a configuration with faults loads nowhere else.",
    )
    drain: DrainSettings = Field(default_factory=DrainSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)

    web_concurrency: int | None = Field(
        default=None,
        ge=1,
        validation_alias="WEB_CONCURRENCY",
        description="What platforms set; used if neither GATEWAY_WORKERS nor server.workers is.",
    )
    forwarded_allow_ips: str = Field(
        default="",
        validation_alias="FORWARDED_ALLOW_IPS",
        description="Comma-separated addresses or CIDRs; used as server.trusted_proxies if the "
        "configuration leaves that out. * trusts everybody.",
    )

    @field_validator("watch", "compiled", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        words = {"1": "on", "true": "on", "yes": "on", "0": "off", "false": "off", "no": "off"}
        return words.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("workers", mode="after")
    @classmethod
    def _at_least_one(cls, value: int | Literal["auto"] | None) -> int | Literal["auto"] | None:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or auto")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment. No `.env` file: what is in force must be visible."""
        return init_settings, env_settings

    def trusted_proxies(self) -> list[str]:
        """`FORWARDED_ALLOW_IPS` as CIDRs."""
        words = [word.strip() for word in self.forwarded_allow_ips.split(",")]
        if "*" in words:
            return ["0.0.0.0/0", "::/0"]
        return [word for word in words if word]

    def worker_count(self, configured: int | str | None) -> int:
        """How many processes to run; `configured` is server.workers if the file states it."""
        chosen = next(
            (x for x in (self.workers, configured, self.web_concurrency) if x is not None), 1
        )
        return len(os.sched_getaffinity(0)) if chosen == "auto" else int(chosen)


def load_settings(**given: Any) -> Settings:
    """The settings from the environment; `given` (command-line options) goes before it.

    Raises ConfigError with one line for every setting that can't be used.
    """
    given = {name: value for name, value in given.items() if value is not None}
    try:
        given = {**_secret_files(os.environ), **given}
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item) for item in error.errors())) from None


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """One line for each variable that looks like a setting and is none, such as GATEWAY_WACTH."""
    known = _names(Settings, PREFIX)
    lines = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or name.startswith(_ANNOUNCED):
            continue
        close = difflib.get_close_matches(name, known, 1, 0.8)
        hint = f"; did you mean {close[0]}?" if close else ""
        lines.append(f"the environment variable {name} is no setting of Lockgate{hint}")
    return lines


def derive_instance(listen: str) -> str:
    """A name that all workers of one listener share and other instances do not.

    `listen` is the address as it was bound, so that two instances on one host differ.
    """
    digest = hashlib.sha256(f"{socket.gethostname()} {listen}".encode())
    return digest.hexdigest()[:10]


def _names(model: type[BaseModel], prefix: str) -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        full = prefix + name.upper()
        names.append(full)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _names(field.annotation, full + "__")
        elif "SecretStr" in str(field.annotation):
            names.append(full + "_FILE")
    return names


def _secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets that the environment gives as `<NAME>_FILE`, read. Raises ConfigError."""
    found: dict[str, str] = {}
    for name in ("admin_token",):
        variable = PREFIX + name.upper()
        path = environ.get(variable + "_FILE")
        if path is None:
            continue
        if variable in environ:
            raise ConfigError(f"{variable} and {variable}_FILE are both set; give one of them")
        try:
            # A final newline is the editor's, not the secret's.
            found[name] = Path(path).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigError(f"can't read {variable}_FILE {path}: {reason}") from None
    return found


def _explain(error: Any) -> str:
    where = "__".join(str(part) for part in error["loc"] if part != "literal['auto']").upper()
    name = where if where in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS") else PREFIX + where
    name = name.removesuffix("__INT")
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"
