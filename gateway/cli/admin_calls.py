"""What commands about asynchronous routes have in common: a caller of the admin API, and times."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import click

from gateway.cli.asking import admin_options, ask
from gateway.cli.main import config_option

BASE: Final = "/api/v1/delivery"


class Caller:
    """Asks the admin listener of a running gateway. Ends the command if that does not do it."""

    def __init__(self, config: Path | None, admin: str, timeout: float) -> None:
        self._where: dict[str, Any] = {"config": config, "admin": admin, "timeout": timeout}

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer's data. Raises OSError if nobody answers."""
        query = urlencode({name: value for name, value in (params or {}).items() if value != ""})
        url = f"{BASE}{path}?{query}" if query else BASE + path
        return json.loads(ask("GET", url, **self._where))

    def post(self, path: str, params: Mapping[str, Any]) -> Any:
        """The same, with an order."""
        body = json.dumps(params).encode()
        return json.loads(ask("POST", BASE + path, body=body, **self._where))


def calls_admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say where to ask, and, as its `caller`, a Caller."""

    @config_option
    @admin_options
    @functools.wraps(command)
    def wrapped(config: Path | None, admin: str, timeout: float, **rest: Any) -> Any:
        return command(caller=Caller(config, admin, timeout), **rest)

    return wrapped


output_option = click.option(
    "--output",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="A table, one JSON document, or JSON, one line for each.",
)


def event_path(event: str) -> str:
    """The path of one event's letters."""
    return f"/letters/{quote(event, safe='')}"


def when(seconds: float | None) -> str:
    """A time for people, in UTC, to the second; "-" for none."""
    if not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float | None) -> str:
    """A stretch of time for people: 42s, 3m, 5h, 2d; "-" for none."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.0f}s"
