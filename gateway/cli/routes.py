"""`lockgate routes`: the routes of the configuration and where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gateway.admin.control import RouteInfo
from gateway.admin.describe import route_infos
from gateway.cli.console import print_json, print_table
from gateway.cli.main import config_option
from gateway.cli.offline import inspect, load


@click.command("routes")
@config_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def command(config: Path | None, form: Literal["text", "json"]) -> None:
    """Show the routes of the configuration, in its order, and where they lead."""
    routes = inspect(load(config), route_infos)
    if form == "json":
        print_json(routes)
        return
    heads = ["ROUTE", "METHODS", "HOST", "PATH", "TO", "POLICIES"]
    print_table(heads, [_row(route) for route in routes])


def _row(route: RouteInfo) -> list[str]:
    match = route.match
    if not route.enabled:
        leads = "disabled"
    elif route.beside:
        leads = f"beside {route.beside}"
    elif route.respond is not None:
        leads = f"answer {route.respond.get('status', 200)}"
    elif any(policy.name == "delivery" for policy in route.chain):
        leads = "later: " + ",".join(way.upstream for way in route.ways)
    else:
        leads = route.upstream
    return [
        route.name,
        ",".join(match.get("methods") or ["*"]),
        match.get("host") or "*",
        match["path"],
        leads,
        " ".join(policy.name for policy in route.chain) or "-",
    ]
