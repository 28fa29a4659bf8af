"""`lockgate reload`: have a running gateway load its configuration again, and say how that went."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.admin.control import ReloadInfo
from gateway.cli.asking import fail, send
from gateway.cli.console import print_line
from gateway.cli.main import config_option
from gateway.cli.reach import Reply
from gateway.server.exits import Exit
from gateway.server.reload import issue_line


@click.command("reload")
@config_option
@click.option("--admin", default="", help="The admin listener's address; also GATEWAY_ADMIN.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the end.")
@click.pass_context
def command(ctx: click.Context, config: Path | None, admin: str, timeout: float) -> None:
    """Have a running gateway load its configuration again.

    The exit code is 0 if it serves what the files say now, 78 if it refused them and goes on with
    what it had, and 1 if it could not be asked.
    """
    reply = send("POST", "/api/v1/reload", config=config, admin=admin, timeout=timeout)
    outcome = _outcome(reply)
    if outcome is None:
        fail(reply)
    for issue in outcome.warnings:
        print_line("warning", issue_line(issue))
    for issue in outcome.errors:
        print_line("error", issue_line(issue))
    if not outcome.ok:
        print_line("error", f"refused; generation {outcome.generation} keeps serving")
        ctx.exit(Exit.CONFIG)
    changed = "" if outcome.changed else " (nothing has changed)"
    click.echo(f"generation {outcome.generation}{changed}")


def _outcome(reply: Reply) -> ReloadInfo | None:
    """How the reload ended; None if the answer is not that of a reload."""
    if reply.status not in (200, 422):
        return None
    try:
        # The members of a problem that stand beside those of the outcome are left out.
        return msgspec.json.decode(reply.body, type=ReloadInfo)
    except msgspec.DecodeError:
        return None
