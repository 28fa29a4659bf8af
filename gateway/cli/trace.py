"""`lockgate trace`: one transaction's whole way, and where its time went."""

from __future__ import annotations

from urllib.parse import quote

import click
import msgspec

from gateway.cli.admin_calls import Caller, calls_admin
from gateway.delivery.history import Trace
from gateway.delivery.timeline import make_timeline, render


@click.command("trace")
@click.argument("correlation_id")
@calls_admin
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(caller: Caller, correlation_id: str, output: str) -> None:
    """Show what became of CORRELATION_ID: from the edge through queues, attempts, dead letters,
    replays and steps of flows, with the waits in between.

    `--output json` prints one entry of the audit a line.
    """
    found = msgspec.convert(caller.get(f"/trace/{quote(correlation_id, safe='')}"), Trace)
    if output == "json":
        for entry in found.entries:
            click.echo(msgspec.json.encode(entry).decode())
        return
    for line in render(make_timeline(found.entries), correlation_id):
        click.echo(line)
    for event in found.events:
        states = ", ".join(f"{each.target} {each.state}" for each in event.targets)
        click.echo(f"event {event.event_id} is now: {states or 'without targets'}")
