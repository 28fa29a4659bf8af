"""`lockgate explain METHOD URL`: what would happen to a request, without sending it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from gateway.admin.control import Explanation, PolicyInfo, RouteInfo
from gateway.admin.describe import explain
from gateway.cli.console import print_json
from gateway.cli.main import config_option
from gateway.cli.offline import inspect, load


@click.command("explain")
@click.argument("method")
@click.argument("url")
@click.option("-H", "--header", "headers", multiple=True, help="A header field: 'Name: value'.")
@config_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def command(
    method: str,
    url: str,
    headers: tuple[str, ...],
    config: Path | None,
    form: Literal["text", "json"],
) -> None:
    """Show what would happen to a request: its route, its policies in order, and its target.

    URL is absolute, or starts with a slash. Nothing is sent. The exit code is 0 also if the request
    would be refused: the answer was found.
    """
    if not (url.startswith("/") or "://" in url):
        raise click.UsageError("URL must be absolute, or start with a slash")
    fields = [_field(text) for text in headers]
    found = inspect(load(config), lambda snapshot: explain(snapshot, method, url, fields))
    if form == "json":
        print_json(found)
        return
    for line in _lines(found):
        click.echo(line)


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"a header field is written 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def _lines(found: Explanation) -> list[str]:
    shown = found.path or found.url
    lines = [f"{found.method} {shown}" + (f"  (host {found.host})" if found.host else "")]
    if found.status:
        lines.append(f"refused    {found.status} {found.code}")
        if found.detail:
            lines.append(f"why        {found.detail}")
        if found.allow:
            lines.append(f"allowed    {', '.join(found.allow)}")
    if found.route is not None:
        lines += _route_lines(found, found.route)
    return lines


def _route_lines(found: Explanation, route: RouteInfo) -> list[str]:
    lines = [f"route      {route.name}  ({route.declared})"]
    lines += [f"parameter  {name} = {value}" for name, value in found.params.items()]
    lines += [_policy_line(policy) for policy in route.chain]
    for way in route.ways:
        lines.append(f"further    {way.upstream}  {way.target}")
        lines += [f"  {_policy_line(policy)}" for policy in way.chain]
    if route.beside:
        lines.append(f"beside     {route.beside}")
    elif route.respond is not None:
        lines.append(f"answer     {json.dumps(route.respond, ensure_ascii=False)}")
    elif route.upstream and found.target:
        lines.append(f"upstream   {route.upstream}")
        lines.append(f"target     {found.target}")
    return lines


def _policy_line(policy: PolicyInfo) -> str:
    mode = "  [report only]" if policy.mode == "report" else ""
    config = json.dumps(policy.config, ensure_ascii=False) if policy.config else ""
    return f"{policy.stage:<10} {policy.name}{mode}  {config}".rstrip()
