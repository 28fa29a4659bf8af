"""How commands reach the admin listener of a running gateway: over TCP or a unix socket.

The address comes from the option, GATEWAY_ADMIN, or `server.admin` in the configuration. That file
may be broken at the moment, while the gateway serves the last good one: only the one section is
read here, and a file that can't be read stands for the default address.

A probe runs every few seconds, so this imports neither the models of the configuration nor the
server, which would cost half a second of CPU each time.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import ConfigError

DEFAULT_CONFIG: Final = "config/gateway.yaml"
DEFAULT_ADMIN: Final = "127.0.0.1:9901"
_REFERENCE: Final = re.compile(r"\$\{(env|file):([^}:]+)(?::-([^}]*))?\}")
_EVERY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to reach it


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the admin listener."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as data; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Admin:
    """Where the admin listener is (`host:port` or `unix:/path`), and the token it wants."""

    address: str
    token: str = field(default="", repr=False)

    def ask(self, method: str, path: str, timeout: float, body: bytes | None = None) -> Reply:
        """Send one request. Raises OSError if nobody answers within `timeout` seconds."""
        connection = _connect(self.address, timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.read())
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer from {self.address}: {error!r}") from None
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise OSError(f"can't reach the admin listener at {self.address}: {reason}") from None
        finally:
            connection.close()


def find_admin(
    config: Path | None, given: str = "", environ: Mapping[str, str] = os.environ
) -> Admin:
    """The admin listener, and the token that the configuration names, if it can be resolved.

    `config` and `given`, an address, are the command's options and go before the environment.
    Raises ConfigError if the address can't be used, or there is no admin listener.
    """
    file = config or Path(environ.get("GATEWAY_CONFIG") or DEFAULT_CONFIG)
    base_dir = file.absolute().parent
    section = _server_section(file)
    address = given or environ.get("GATEWAY_ADMIN", "")
    if not address and "admin" in section:
        if section["admin"] is None:
            raise ConfigError("this gateway has no admin listener (server.admin is null)")
        address = _resolve(str(section["admin"]), base_dir, environ)
        if address.startswith("unix:"):
            address = f"unix:{base_dir / address.removeprefix('unix:')}"
    token = section.get("admin_token")
    return Admin(
        _checked(address or DEFAULT_ADMIN),
        _resolve(token, base_dir, environ) if isinstance(token, str) else "",
    )


def _checked(address: str) -> str:
    host, colon, port = address.rpartition(":")
    usable = colon and port.isascii() and port.isdigit() and 0 < int(port) <= 65535
    if not (usable or (host == "unix" and port)):
        raise ConfigError(f"{address} is no address of an admin listener")
    return address


def _server_section(config: Path) -> dict[str, Any]:
    """`server:` of the file. It stands in the main file, and is small, unlike the file."""
    try:
        text = config.read_text("utf-8")
        block = re.search(r"^server:.*\n(?:[ \t#].*\n|\n)*", text + "\n", re.MULTILINE)
        document = yaml.safe_load(block[0] if block else text)
        section = document["server"] if isinstance(document, dict) else {}
    except (OSError, ValueError, KeyError, yaml.YAMLError):
        return {}
    return section if isinstance(section, dict) else {}


def _resolve(text: str, base_dir: Path, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        kind, name, default = match.groups()
        if kind == "env":
            return environ.get(name) or default or ""
        try:
            return (base_dir / name).read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError):
            return default or ""

    return _REFERENCE.sub(value, text)


def _connect(address: str, timeout: float) -> http.client.HTTPConnection:
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"), timeout)
    host = host.strip("[]")
    return http.client.HTTPConnection(_EVERY.get(host, host), int(port), timeout=timeout)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
