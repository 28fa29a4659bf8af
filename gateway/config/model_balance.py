"""How an upstream's targets share its traffic, and when one of them gets none."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from gateway.config.base import Model
from gateway.config.failures import Failure
from gateway.config.suggest import did_you_mean
from gateway.config.types import Count, Percent, Timeout, refuse

# Names of fields, parameters and cookies: the token of RFC 9110, without what ends the expression.
BALANCE_PATTERN: Final = (
    r"^(?:round_robin|least_requests|p2c"
    r"|hash\((?:ip|path|consumer|(?:header|query|cookie):[A-Za-z0-9!#$%&'*+.^_`|~\[\]-]+)\))$"
)
_NAMES: Final = ("round_robin", "least_requests", "p2c", "hash(ip)", "hash(path)", "hash(consumer)")
_BALANCE: Final = re.compile(BALANCE_PATTERN, re.ASCII)
_PATH: Final = re.compile(r"/[!-~]*", re.ASCII)
_SHORTEST_INTERVAL: Final = 0.05
_HOST: Final = re.compile(r"[A-Za-z0-9._~\[\]:-]+", re.ASCII)


def _balance(value: object) -> str:
    if isinstance(value, str) and _BALANCE.fullmatch(value):
        return value
    raise refuse(
        "balance",
        "expected round_robin, least_requests, p2c, or hash(...) of ip, path, consumer, "
        "header:NAME, query:NAME or cookie:NAME",
        did_you_mean(value, _NAMES) if isinstance(value, str) else "",
    )


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or "#" in value:
        raise refuse("check_path", "expected a path that begins with a slash, such as /healthz")
    return value


def _interval(value: float) -> float:
    if value < _SHORTEST_INTERVAL:
        raise refuse("interval", "must be at least 50ms")
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise refuse("check_host", "expected a host name, with a port if need be")
    return value


def _statuses(value: object) -> tuple[int, int]:
    """The first and the last status of `200`, `2xx` or `200-399`."""
    if isinstance(value, tuple):
        return value
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str):
        if match := re.fullmatch(r"([1-5])xx", text, re.ASCII):
            return int(match[1]) * 100, int(match[1]) * 100 + 99
        if match := re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", text, re.ASCII):
            first, last = int(match[1]), int(match[2] or match[1])
            if first <= last:
                return first, last
    raise refuse("statuses", "expected a status such as 200, a class such as 2xx, or 200-399")


def _written(value: tuple[int, int]) -> str:
    first, last = value
    if first == last:
        return str(first)
    return f"{first // 100}xx" if (first % 100, last - first) == (0, 99) else f"{first}-{last}"


Balance = Annotated[
    str,
    BeforeValidator(_balance),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": BALANCE_PATTERN,
            "examples": ["round_robin", "least_requests", "p2c", "hash(header:X-Tenant)"],
            "description": "How a target is chosen.",
        },
        mode="validation",
    ),
]
"""The name of a balancer, or `hash(...)` of a part of the request."""

Statuses = Annotated[
    tuple[int, int],
    BeforeValidator(_statuses),
    PlainSerializer(_written, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^[1-5](?:xx|[0-9]{2}(?:-[1-5][0-9]{2})?)$",
            "description": "A status code, a class of them such as 2xx, or a range: 200-399.",
        },
        mode="validation",
    ),
]
"""The first and the last of a range of status codes."""


class HealthConfig(Model):
    """Active checks: a GET to each target, on a connection of its own, by each worker."""

    path: Annotated[str, AfterValidator(_path)] = Field(
        description="The path that is asked for, with its query if need be."
    )
    every: Annotated[Timeout, AfterValidator(_interval)] = Field(
        default=5.0, description="The time from one check of a target to the next, give or take."
    )
    timeout: Timeout | None = Field(
        default=None,
        description="How long a check may take, connecting included; 1s, or `every` if that is "
        "less, if left out.",
    )
    unhealthy_after: Count = Field(
        default=3, description="Checks that must fail in a row before a target gets no requests."
    )
    healthy_after: Count = Field(
        default=2, description="Checks that must pass in a row before it gets requests again."
    )
    status: list[Statuses] = Field(
        default=[(200, 299)], min_length=1, description="The answers that pass."
    )
    host: Annotated[str, AfterValidator(_host)] | None = Field(
        default=None, description="The Host field of a check; that of the target if left out."
    )

    @model_validator(mode="after")
    def _in_time(self) -> HealthConfig:
        if self.timeout is not None and self.timeout > self.every:
            raise refuse("health", "timeout must not be longer than every")
        return self

    @property
    def time(self) -> float:
        """How long a check may take, in seconds."""
        return min(1.0, self.every) if self.timeout is None else self.timeout


class OutliersConfig(Model):
    """Passive checks: a target whose requests fail in a row gets none for a while."""

    consecutive_failures: Count = Field(
        default=5, description="Failures in a row at which a target is ejected."
    )
    failures: list[Failure] = Field(
        default=["connect", "tls", "reset", "timeout", "invalid", 500, 502, 503, 504],
        description="What counts as a failure. What the client does never counts.",
    )
    eject_for: Timeout = Field(
        default=30.0, description="How long the first ejection lasts; each further one twice that."
    )
    max_eject_for: Timeout | None = Field(
        default=None,
        description="How long an ejection lasts at most; ten times `eject_for` if left out.",
    )
    max_ejected: Percent = Field(
        default=0.5,
        description="The share of the targets that may be out when one is to be ejected, that one "
        "included. At least one may be, of two or more; 0% ejects nobody and only counts.",
    )

    @model_validator(mode="after")
    def _times(self) -> OutliersConfig:
        if self.longest < self.eject_for:
            raise refuse("outliers", "max_eject_for must not be shorter than eject_for")
        return self

    @property
    def longest(self) -> float:
        """How long an ejection lasts at most, in seconds."""
        return self.eject_for * 10 if self.max_eject_for is None else self.max_eject_for
