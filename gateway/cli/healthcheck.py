"""`lockgate healthcheck`: whether a running gateway is ready, as an exit code."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.main import config_option
from gateway.cli.reach import find_admin
from gateway.server.exits import Exit


@click.command("healthcheck")
@config_option
@click.option("--admin", default="", help="The admin listener's address; also GATEWAY_ADMIN.")
@click.option("--timeout", default=2.0, show_default=True, help="Seconds to wait for the answer.")
@click.pass_context
def command(ctx: click.Context, config: Path | None, admin: str, timeout: float) -> None:
    """Ask a running gateway whether it is ready. The exit code is 0 if it is, and 1 if not."""
    reply = find_admin(config, admin).ask("GET", "/readyz", timeout)
    if reply.status == 200:
        click.echo("ready")
        return
    click.echo(f"not ready: the admin listener answered {reply.status}", err=True)
    ctx.exit(Exit.FAILURE)
