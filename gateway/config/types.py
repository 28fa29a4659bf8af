"""The small types that configuration is made of: durations, sizes, shares, networks, addresses.

Each reads what people write, knows its pattern for editors, and prints itself the way it was
written. Messages here never contain the value that was refused: the loader adds it where that
is safe, because it alone knows whether the value came from a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from gateway.config.address import (
    LISTEN_PATTERN,
    TARGET_PATTERN,
    Address,
    TargetAddress,
    parse_listen,
    parse_target,
    refuse,
    resolve_path,
)

__all__ = [
    "Address",
    "Cidr",
    "ConfigPath",
    "Count",
    "Duration",
    "Listen",
    "LogTarget",
    "Name",
    "Network",
    "Percent",
    "Ratio",
    "Secret",
    "Size",
    "TargetAddress",
    "TargetUrl",
    "Timeout",
    "Whole",
    "parse_cidr",
    "parse_duration",
    "parse_size",
    "refuse",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
DURATION_PATTERN: Final = rf"^{_NUMBER}(?:ms|s|m|h|d)$"
SIZE_PATTERN: Final = rf"^{_NUMBER}(?:B|KB|MB|GB|KiB|MiB|GiB)$"
PERCENT_PATTERN: Final = rf"^{_NUMBER}%$"
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
_MEANT: Final = {unit.lower(): unit for unit in _BYTES} | {
    "k": "KiB",
    "m": "MiB",
    "g": "GiB",
    "ki": "KiB",
    "mi": "MiB",
    "gi": "GiB",
}
_QUANTITY: Final = re.compile(rf"({_NUMBER})([A-Za-z%]+)", re.ASCII)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_duration(value: object) -> float:
    """Seconds from `250ms`, `3s`, `5m`, `2h` or `30d`. A bare number has no unit and is refused."""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[2] in _SECONDS:
        return round(float(match[1]) * _SECONDS[match[2]], 6)
    hint = ""
    if _is_number(value) or (isinstance(value, str) and re.fullmatch(_NUMBER, value)):
        hint = f"write the unit, as in {value}s or {value}ms"
    raise refuse("duration", "expected a duration such as 250ms, 3s, 5m, 2h or 30d", hint)


def format_duration(seconds: float) -> str:
    """The shortest way to write it: 0.25 is `250ms`, 120 is `2m`."""
    milliseconds = round(seconds * 1000, 3)
    for unit in ("d", "h", "m", "s"):
        scale = _SECONDS[unit] * 1000
        if milliseconds and milliseconds % scale == 0:
            return f"{int(milliseconds // scale)}{unit}"
    return "0s" if not milliseconds else f"{milliseconds:.15g}ms"


def parse_size(value: object) -> int:
    """Bytes from `64KiB`, `10MiB`, `5MB` or a plain whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
        match = _QUANTITY.fullmatch(value)
        if match is not None and match[2] in _BYTES:
            return round(float(match[1]) * _BYTES[match[2]])
        if match is not None:
            unit = _MEANT.get(match[2].lower())
            hint = f"did you mean {match[1]}{unit}?" if unit else ""
            raise refuse("size", "expected a size such as 64KiB, 10MiB or 5MB", hint)
    raise refuse("size", "expected a size such as 64KiB, 10MiB or 5MB")


def format_size(size: int) -> str | int:
    """The shortest exact way to write it: 65536 is `64KiB`; what no unit divides stays a number."""
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "KB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return size


def parse_percent(value: object) -> float:
    """A share from 0 to 1, written `5%`. A bare number could mean two things and is refused."""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[2] == "%" and float(match[1]) <= 100:
        return round(float(match[1]) / 100, 9)
    hint = f"write {value}%" if _is_number(value) else ""
    raise refuse("percent", "expected a percentage from 0% to 100%", hint)


def parse_ratio(value: object) -> float:
    """A share from 0 to 1, written as such a number or as a percentage."""
    if isinstance(value, str) and not value.endswith("%") and re.fullmatch(_NUMBER, value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 <= value <= 1:
            return float(value)
        raise refuse("ratio", "expected a number from 0 to 1, or a percentage such as 5%")
    return parse_percent(value)


def format_percent(share: float) -> str:
    """0.05 is `5%`."""
    return f"{share * 100:.12g}%"


def parse_cidr(value: object) -> Network:
    """A network such as `10.0.0.0/8`; a lone address is the network of that one address."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            pass
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            # 10.0.0.1/8 is as likely a wrong mask as a wrong address: say so instead of guessing.
            raise refuse(
                "cidr", "the address has bits outside its network mask", f"did you mean {network}?"
            )
    raise refuse("cidr", "expected an IP address or a network such as 10.0.0.0/8 or fd00::/8")


def _parse_log_target(value: object, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value:
        raise refuse("log_target", "expected stdout, stderr or the path of a file")
    if value in ("stdout", "stderr"):
        return value
    return str(resolve_path(Path(value), info))


def _no_boolean(value: object) -> object:
    # Without this, pydantic reads true as 1.
    if isinstance(value, bool):
        raise refuse("int_type", "expected a whole number")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "a name holds letters, digits, dots, underscores and hyphens, at most 128"
        raise refuse("name", message)
    return value


def _schema(
    kind: str | list[str], description: str, pattern: str = "", **extra: Any
) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": kind, "description": description}
    if pattern:
        schema["pattern"] = pattern
    return WithJsonSchema(schema | extra, mode="validation")


def _text(format_value: Callable[[Any], object]) -> PlainSerializer:
    return PlainSerializer(format_value, when_used="json")


def _positive(value: float) -> float:
    if value <= 0:
        raise refuse("positive", "must be more than zero")
    return value


_DURATION_SCHEMA: Final = _schema(
    "string",
    "A duration: a number and its unit, ms, s, m, h or d.",
    DURATION_PATTERN,
    examples=["250ms", "3s", "5m", "2h", "30d"],
)

Duration = Annotated[
    float, BeforeValidator(parse_duration), _text(format_duration), _DURATION_SCHEMA
]
"""Seconds, zero included. Use it where zero means "at once" or "not at all"."""

Timeout = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_positive),
    _text(format_duration),
    _DURATION_SCHEMA,
]
"""Seconds, more than zero."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    _text(format_size),
    _schema(
        ["string", "integer"],
        "A size: bytes, or a number with KiB, MiB, GiB (1024) or KB, MB, GB (1000).",
        SIZE_PATTERN,
        minimum=0,
        examples=["64KiB", "10MiB", 4096],
    ),
]
"""Bytes."""

Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    _text(format_percent),
    _schema("string", "A percentage from 0% to 100%.", PERCENT_PATTERN, examples=["5%"]),
]
"""A share from 0 to 1, written with a percent sign."""

Ratio = Annotated[
    float,
    BeforeValidator(parse_ratio),
    _schema(
        ["number", "string"],
        "A share: a number from 0 to 1, or a percentage.",
        PERCENT_PATTERN,
        minimum=0,
        maximum=1,
        examples=[0.05, "5%"],
    ),
]
"""A share from 0 to 1, written as a number or with a percent sign."""

Cidr = Annotated[
    Network,
    BeforeValidator(parse_cidr),
    _text(str),
    _schema(
        "string",
        "An IP address or a network in CIDR notation.",
        r"^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$",
        examples=["10.0.0.0/8", "fd00::/8"],
    ),
]
"""An `ipaddress` network."""

Listen = Annotated[
    Address,
    BeforeValidator(parse_listen),
    _text(str),
    _schema(
        "string",
        "Where to listen: host:port, :port for every interface, or unix:/path.",
        LISTEN_PATTERN,
        examples=["127.0.0.1:8080", ":8080", "[::1]:8080", "unix:/run/lockgate.sock"],
    ),
]
"""An `Address`."""

TargetUrl = Annotated[
    TargetAddress,
    BeforeValidator(parse_target),
    _text(str),
    _schema(
        "string",
        "http://host:port, https://host:port or unix:/path; ports default to 80 and 443.",
        TARGET_PATTERN,
        examples=["http://10.0.0.1:8080", "unix:/run/orders.sock"],
    ),
]
"""A `TargetAddress`."""

ConfigPath = Annotated[
    Path,
    Field(strict=False),
    AfterValidator(resolve_path),
    _schema("string", "A file; relative paths start at the main configuration file's directory."),
]
"""An absolute `Path` once loaded. Whether the file is there shows when it is opened."""

LogTarget = Annotated[
    str,
    BeforeValidator(_parse_log_target),
    _schema("string", "stdout, stderr, or the path of a file."),
]
"""`stdout`, `stderr` or the absolute path of a file."""

Whole = Annotated[int, BeforeValidator(_no_boolean)]
"""A whole number; true and false are none."""

Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
"""A whole number, at least one."""

Secret = Annotated[
    SecretStr,
    Field(min_length=1),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "description": "A secret. Give it by reference: ${env:NAME} or ${file:/path}.",
            "writeOnly": True,
            "examples": ["${env:NAME}", "${file:/run/secrets/name}"],
        },
        mode="validation",
    ),
]
"""A secret that never prints itself; `.get_secret_value()` is the text."""

Name = Annotated[
    str,
    AfterValidator(_name),
    _schema("string", "Letters, digits, dots, underscores and hyphens.", NAME_PATTERN),
]
"""A name that is safe in metrics, logs and URLs."""
