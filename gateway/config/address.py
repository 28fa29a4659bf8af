"""Addresses to listen on and to connect to, paths of files, and the way a validator refuses.

Messages here never contain the value that was refused: the loader adds it where that is safe,
because it alone knows whether the value came from a secret.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

LISTEN_PATTERN: Final = r"^(?:unix:.+|(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):[0-9]{1,5})$"
TARGET_PATTERN: Final = (
    r"^(?:unix:.+|https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?)$"
)

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)


def refuse(kind: str, message: str, hint: str = "") -> PydanticCustomError:
    """An error for a validator to raise. `message` must not contain the refused value.

    `hint` may: it is dropped when the value came from a reference.
    """
    # Passed as data: a brace in the text would otherwise be read as a placeholder.
    return PydanticCustomError(kind, "{text}", {"text": message, "hint": hint})


def resolve_path(path: Path, info: ValidationInfo) -> Path:
    """Relative paths start at the directory of the main configuration file, given as `base_dir`."""
    if "\0" in str(path):
        raise refuse("path", "a path can't contain a NUL character")
    base = info.context.get("base_dir") if isinstance(info.context, dict) else None
    return base / path if isinstance(base, Path) else path


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


def parse_host_port(text: str) -> tuple[str, int] | None:
    """Split `host:port`, `[v6]:port` or `:port`; None if it is none of them.

    The host is in lower case.
    """
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
    parsed = parse_host_port(value) if isinstance(value, str) else None
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
    """`http://host:port`, `https://host:port` or `unix:/path`; ports default to 80 and 443."""
    if isinstance(value, TargetAddress):
        return value
    message = "expected http://host:port, https://host:port or unix:/path"
    if not isinstance(value, str):
        raise refuse("target", message)
    if value.startswith("unix:") and len(value) > 5:
        return TargetAddress(path=str(resolve_path(Path(value[5:]), info)))
    scheme, separator, rest = value.partition("://")
    if not separator:
        hint = f"write http://{value}" if parse_host_port(value) else ""
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
    parsed = parse_host_port(rest) or parse_host_port(f"{rest}:{443 if tls else 80}")
    if parsed is None or not parsed[0] or not parsed[1]:
        raise refuse("target", message)
    return TargetAddress(*parsed, tls=tls)
