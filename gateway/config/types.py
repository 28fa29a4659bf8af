"""The small types that configuration is made of: durations, sizes, shares, networks, addresses.

Each reads what people write, knows its pattern for editors, and prints itself the way it was
written. Messages here never contain the value that was refused: the loader adds it where that
is safe, because it alone knows whether the value came from a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
DURATION_PATTERN: Final = rf"^{_NUMBER}(?:ms|s|m|h|d)$"
SIZE_PATTERN: Final = rf"^{_NUMBER}(?:B|KB|MB|GB|KiB|MiB|GiB)$"
PERCENT_PATTERN: Final = rf"^{_NUMBER}%$"
LISTEN_PATTERN: Final = r"^(?:unix:.+|(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):[0-9]{1,5})$"
TARGET_PATTERN: Final = r"^(?:unix:.+|https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?)$"
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
_QUANTITY: Final = re.compile(rf"({_NUMBER})([A-Za-z%]+)", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)


def refuse(kind: str, message: str, hint: str = "") -> PydanticCustomError:
    """An error for a validator to raise. `message` must not contain the refused value.

    `hint` may: it is dropped when the value came from a reference.
    """
    # Passed as data: a brace in the text would otherwise be read as a placeholder.
    return PydanticCustomError(kind, "{text}", {"text": message, "hint": hint})  # type: ignore[arg-type]


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
            fixed = {unit.lower(): unit for unit in _BYTES}
            fixed.update({"k": "KiB", "m": "MiB", "g": "GiB", "ki": "KiB", "mi": "MiB", "gi": "GiB"})
            unit = fixed.get(match[2].lower())
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


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens: a host and a port, or the path of a unix socket.

    An empty `host` is every interface; port 0 lets the system choose; `path` is "" for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it: loopback or a unix socket."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host_and_port(text: str) -> tuple[str, int] | None:
    """Split `host:port`, `[v6]:port` or `:port`; None if it is none of them."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            return None
    if host and not _HOST.fullmatch(host):
        return None
    return host.lower(), int(port)


def parse_listen(value: object, info: ValidationInfo) -> Address:
    """An address to listen on: `host:port`, `:port` or `unix:/path`."""
    if isinstance(value, Address):
        return value
    if isinstance(value, str) and value.startswith("unix:") and len(value) > 5:
        return Address(path=str(resolve_path(Path(value[5:]), info)))
    parsed = _host_and_port(value) if isinstance(value, str) else None
    if parsed is not None:
        return Address(*parsed)
    hint = f"write :{value}" if isinstance(value, int) and not isinstance(value, bool) else ""
    message = "expected host:port, :port or unix:/path, with a port from 0 to 65535"
    raise refuse("listen", message, hint)


@dataclass(frozen=True, slots=True)
class TargetAddress:
    """Where a target is. `tls` tells https from http; `path` is the unix socket's, "" for TCP."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_target(value: object, info: ValidationInfo) -> TargetAddress:
    """A target: `http://host:port`, `https://host:port` or `unix:/path`; ports default to 80, 443."""
    if isinstance(value, TargetAddress):
        return value
    message = "expected http://host:port, https://host:port or unix:/path"
    if not isinstance(value, str):
        raise refuse("target", message)
    if value.startswith("unix:") and len(value) > 5:
        return TargetAddress(path=str(resolve_path(Path(value[5:]), info)))
    scheme, separator, rest = value.partition("://")
    if not separator:
        hint = f"write http://{value}" if _host_and_port(value) else ""
        raise refuse("target", message, hint)
    if scheme.lower() not in ("http", "https"):
        raise refuse("target", message)
    tls = scheme.lower() == "https"
    rest = rest.removesuffix("/")
    if "@" in rest:
        raise refuse("target", "a target's URL carries no user name or password")
    if "/" in rest or "?" in rest or "#" in rest:
        hint = "change paths with the route's rewrite"
        raise refuse("target", "a target's URL has no path, query or fragment", hint)
    parsed = _host_and_port(rest) or _host_and_port(f"{rest}:{443 if tls else 80}")
    if parsed is None or not parsed[0] or not parsed[1]:
        raise refuse("target", message)
    return TargetAddress(*parsed, tls=tls)


def resolve_path(path: Path, info: ValidationInfo) -> Path:
    """Relative paths start at the directory of the main configuration file, given as `base_dir`."""
    if "\0" in str(path):
        raise refuse("path", "a path can't contain a NUL character")
    base = info.context.get("base_dir") if isinstance(info.context, dict) else None
    return base / path if isinstance(base, Path) else path


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

Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
"""A whole number, at least one."""

Auto = Literal["auto"]

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
    Field(pattern=NAME_PATTERN),
]
"""A name that is safe in metrics, logs and URLs."""
