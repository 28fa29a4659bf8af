"""How commands reach the admin listener of a running gateway: over TCP or a unix socket.

The address comes from the option, GATEWAY_ADMIN, or `server.admin` in the configuration. That file
may be broken at the moment, while the gateway serves the last good one: only the one section is
read here, and a file that can't be read stands for the default address.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.base import Model
from gateway.config.model_server import ServerConfig
from gateway.config.types import Address, Listen
from gateway.errors import ConfigError
from gateway.settings import Settings

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
    """Where the admin listener is, and the token it wants."""

    address: Address
    token: str = ""

    def ask(self, method: str, path: str, timeout: float) -> Reply:
        """Send one request. Raises OSError if nobody answers within `timeout` seconds."""
        connection = _connect(self.address, timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Reply(response.status, response.read())
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer from {self.address}: {error!r}") from None
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise OSError(f"can't reach the admin listener at {self.address}: {reason}") from None
        finally:
            connection.close()


def find_admin(settings: Settings, given: str = "") -> Admin:
    """The admin listener of this environment; `given` is an address that goes before everything.

    Raises ConfigError if the address can't be used, or there is no admin listener.
    """
    section = _server_section(settings.config)
    text = given or settings.admin
    if not text and "admin" in section:
        if section["admin"] is None:
            raise ConfigError("this gateway has no admin listener (server.admin is null)")
        text = _resolve(str(section["admin"]), settings.config.absolute().parent)
    default = ServerConfig.model_fields["admin"].default
    address = _parse(text, settings.config) if text else default
    token = settings.admin_token.get_secret_value() if settings.admin_token else ""
    if not token and isinstance(section.get("admin_token"), str):
        token = _resolve(section["admin_token"], settings.config.absolute().parent)
    return Admin(address, token)


class _Place(Model):
    listen: Listen


def _parse(text: str, config: Path) -> Address:
    try:
        base = {"base_dir": config.absolute().parent}
        return _Place.model_validate({"listen": text}, context=base).listen
    except ValueError:
        raise ConfigError(f"{text} is no address of an admin listener") from None


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


def _resolve(text: str, base_dir: Path) -> str:
    def value(match: re.Match[str]) -> str:
        kind, name, default = match.groups()
        if kind == "env":
            return os.environ.get(name) or default or ""
        try:
            return (base_dir / name).read_text("utf-8").strip()
        except (OSError, ValueError):
            return default or ""

    return _REFERENCE.sub(value, text)


def _connect(address: Address, timeout: float) -> http.client.HTTPConnection:
    if address.is_unix:
        return _UnixConnection(address.path, timeout)
    host = _EVERY.get(address.host, address.host)
    return http.client.HTTPConnection(host, address.port, timeout=timeout)


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
