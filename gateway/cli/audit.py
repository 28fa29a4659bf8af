"""`lockgate audit`: the record of every automated action, as JSON lines."""

from __future__ import annotations

import click
import msgspec

from gateway.cli.admin_calls import Caller, calls_admin
from gateway.cli.moments import moment


@click.group("audit")
def command() -> None:
    """Read the record of what asynchronous and audited routes did."""


@command.command("export")
@calls_admin
@click.option("--since", default="", help="From then on: 2h, 30d, or 2026-12-31T12:00:00Z.")
@click.option("--until", default="", help="Before then, written alike.")
@click.option("--route", default="", help="Of this route alone.")
@click.option("--kind", default="", help="accepted, attempt, step, replayed, call ...")
@click.option("--event", default="", help="Of this event alone.")
@click.option("--consumer", default="", help="Of this caller alone.")
def export(  # noqa: PLR0917 - click passes its options
    caller: Caller,
    since: str,
    until: str,
    route: str,
    kind: str,
    event: str,
    consumer: str,
) -> None:
    """Print the entries as JSON lines, oldest first."""
    given = {"route": route, "kind": kind, "event": event, "consumer": consumer}
    for name, text in (("since", since), ("until", until)):
        if text:
            given[name] = str(moment(text))
    cursor = ""
    while True:
        found = caller.get("/audit", given | {"cursor": cursor, "count": "5000"})
        for entry in found["entries"]:
            click.echo(msgspec.json.encode(entry).decode())
        cursor = found["cursor"]
        if not cursor:
            return
