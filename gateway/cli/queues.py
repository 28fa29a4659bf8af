"""`lockgate queues`: how full the queues of a running gateway's asynchronous routes are."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from gateway.cli.admin_calls import Caller, calls_admin, output_option, span, when
from gateway.cli.console import print_json, print_table


@click.command("queues")
@click.option("--route", default="", help="Those of this route alone.")
@output_option
@calls_admin
def command(caller: Caller, route: str, output: str) -> None:
    """Show every queue: depth, the oldest event's age, what is under way, and the dead letters.

    A queue whose route is not configured any more is marked with an asterisk.
    """
    found = caller.get("/queues", {"route": route})
    if output == "json":
        print_json(found)
    elif output == "jsonl":
        for row in found["queues"]:
            click.echo(msgspec.json.encode(row))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    heads = ["ROUTE", "TARGET", "DEPTH", "OLDEST", "IN FLIGHT", "WAITING", "NEXT", "PAUSED"]
    rows = [
        [
            each["route"] + ("" if each["configured"] else "*"), each["target"],
            str(each["depth"]), span(each["oldest_age"]), str(each["in_flight"]),
            str(each["waiting"]), span(each["due_in"]), span(each["paused_for"] or None),
        ]
        for each in found["queues"]
    ]  # fmt: skip
    print_table(heads, rows)
    letters = [each for each in found["routes"] if each["dead_letters"]]
    if letters:
        click.echo()
        print_table(
            ["ROUTE", "DEAD LETTERS", "SINCE"],
            [
                [
                    each["route"] + ("" if each["configured"] else "*"),
                    str(each["dead_letters"]), when(each["oldest_at"]),
                ]
                for each in letters
            ],
        )  # fmt: skip
