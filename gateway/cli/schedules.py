"""`lockgate schedules`: when schedules fire next, and what they fired last."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.cli.asking import admin_options, ask
from gateway.cli.console import print_json, print_table
from gateway.cli.main import config_option
from gateway.delivery.sources import ScheduleInfo


class _Answer(msgspec.Struct):
    schedules: list[ScheduleInfo]


@click.command("schedules")
@config_option
@admin_options
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(config: Path | None, admin: str, timeout: float, output: str) -> None:
    """Ask a running gateway how far its schedules are.

    Times are in each schedule's own time zone. A schedule that never fired shows a dash.
    """
    path = "/api/v1/delivery/schedules"
    body = ask("GET", path, config=config, admin=admin, timeout=timeout)
    found = msgspec.json.decode(body, type=_Answer).schedules
    if output == "json":
        print_json(found)
        return
    rows = [
        (
            each.name,
            each.cron,
            each.route,
            each.next or "-",
            each.fired or "-",
            each.event_id or "-",
        )
        for each in found
    ]
    print_table(("schedule", "cron", "route", "next", "fired", "event"), rows)
