"""`lockgate streams`: the streams that events come from, and whether they can be read."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.cli.asking import admin_options, ask
from gateway.cli.console import print_json, print_table
from gateway.cli.main import config_option
from gateway.delivery.sources import StreamInfo


class _Answer(msgspec.Struct):
    streams: list[StreamInfo]


@click.command("streams")
@config_option
@admin_options
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(config: Path | None, admin: str, timeout: float, output: str) -> None:
    """Ask a running gateway how its streams are.

    A stream that another gateway reads, because its route keeps an order, is `standby`.
    """
    body = ask("GET", "/api/v1/delivery/streams", config=config, admin=admin, timeout=timeout)
    found = msgspec.json.decode(body, type=_Answer).streams
    if output == "json":
        print_json(found)
        return
    rows = [
        (
            each.name,
            each.address,
            each.stream,
            each.group,
            each.route,
            _state(each),
            "-" if each.pending is None else str(each.pending),
        )
        for each in found
    ]
    print_table(("stream", "server", "key", "group", "route", "state", "pending"), rows)


def _state(stream: StreamInfo) -> str:
    if not stream.up:
        return "down"
    return "reading" if stream.reading else "standby"
