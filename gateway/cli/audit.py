"""`lockgate audit`: the record of every automated action, as JSON lines."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import click
import msgspec

from gateway.cli.asking import admin_options, ask
from gateway.cli.main import config_option
from gateway.cli.moments import moment


@click.group("audit")
def command() -> None:
    """Read the record of what asynchronous and audited routes did."""


@command.command("export")
@config_option
@admin_options
@click.option("--since", default="", help="From then on: 2h, 30d, or 2026-12-31T12:00:00Z.")
@click.option("--until", default="", help="Before then, written alike.")
@click.option("--route", default="", help="Of this route alone.")
@click.option("--kind", default="", help="accepted, attempt, step, replayed, call ...")
@click.option("--event", default="", help="Of this event alone.")
@click.option("--consumer", default="", help="Of this caller alone.")
def export(  # noqa: PLR0917 - click passes its options
    config: Path | None,
    admin: str,
    timeout: float,
    since: str,
    until: str,
    route: str,
    kind: str,
    event: str,
    consumer: str,
) -> None:
    """Print the entries as JSON lines, oldest first."""
    given = {"route": route, "kind": kind, "event": event, "consumer": consumer}
    query = {name: value for name, value in given.items() if value}
    for name, text in (("since", since), ("until", until)):
        if text:
            query[name] = str(moment(text))
    cursor = ""
    while True:
        path = f"/api/v1/delivery/audit?{urlencode(query | {'cursor': cursor, 'count': '5000'})}"
        found = msgspec.json.decode(ask("GET", path, config=config, admin=admin, timeout=timeout))
        for entry in found["entries"]:
            click.echo(msgspec.json.encode(entry).decode())
        cursor = found["cursor"]
        if not cursor:
            return
