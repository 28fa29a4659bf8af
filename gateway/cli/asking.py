"""How commands ask the admin API of a running gateway, and say what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.cli.console import print_line
from gateway.cli.reach import Reply, find_admin
from gateway.server.exits import Exit
from gateway.settings import load_settings


def admin_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where to ask, and for how long: `admin` and `timeout`."""
    address = "The admin listener's address; also GATEWAY_ADMIN."
    function = click.option("--admin", default="", help=address)(function)
    return click.option(
        "--timeout", default=10.0, show_default=True, help="Seconds to wait for an answer."
    )(function)


def send(
    method: str,
    path: str,
    *,
    config: Path | None,
    admin: str,
    timeout: float,
    body: bytes | None = None,
) -> Reply:
    """The answer, whatever its status. Raises OSError, and ConfigError for an unusable address."""
    settings = load_settings(config=config)
    found = find_admin(config, admin)
    if settings.admin_token is not None:
        found = replace(found, token=settings.admin_token.get_secret_value())
    return found.ask(method, path, timeout, body)


def ask(
    method: str,
    path: str,
    *,
    config: Path | None,
    admin: str,
    timeout: float,
    body: bytes | None = None,
) -> bytes:
    """The answer's body. If it is no 200, says what the gateway said, and ends the command."""
    reply = send(method, path, config=config, admin=admin, timeout=timeout, body=body)
    if reply.status != 200:
        fail(reply)
    return reply.body


def fail(reply: Reply) -> NoReturn:
    """Say what the gateway said, and end the command."""
    print_line("error", f"the admin listener answered {reply.status}{_detail(reply)}")
    raise click.exceptions.Exit(Exit.FAILURE)


def _detail(reply: Reply) -> str:
    body = reply.json()
    if not isinstance(body, dict):
        return ""
    parts = [str(body[key]) for key in ("title", "detail") if body.get(key)]
    return f": {'; '.join(parts)}" if parts else ""
