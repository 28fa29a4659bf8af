"""`lockgate cache purge`: have a running gateway forget cached answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import msgspec

from gateway.admin.control import Purge, PurgeInfo
from gateway.cli.console import print_line
from gateway.cli.main import config_option
from gateway.cli.reach import Reply, find_admin
from gateway.server.exits import Exit
from gateway.settings import load_settings


@click.group("cache")
def command() -> None:
    """Look after the answers that a running gateway keeps."""


@command.command("purge")
@config_option
@click.option("--route", default="", help="Every answer of this route.")
@click.option("--prefix", default="", help="Every path that begins so: /v1/ or api.internal/v1/.")
@click.option("--tag", default="", help="Every answer with this tag.")
@click.option("--all", "everything", is_flag=True, help="Every answer.")
@click.option("--admin", default="", help="The admin listener's address; also GATEWAY_ADMIN.")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for the end.")
@click.pass_context
def purge(  # noqa: PLR0917 - click passes its options
    ctx: click.Context,
    config: Path | None,
    route: str,
    prefix: str,
    tag: str,
    everything: bool,
    admin: str,
    timeout: float,
) -> None:
    """Have a running gateway forget answers, in every worker and in the store.

    Exactly one of --route, --prefix, --tag and --all says which. The exit code is 0 if all of them
    are gone, and 1 if the gateway could not be asked or not everybody be told.
    """
    what = Purge(route=route, prefix=prefix, tag=tag, all=everything)
    if not what.usable:
        raise click.UsageError("give exactly one of --route, --prefix, --tag and --all")
    settings = load_settings(config=config)
    found = find_admin(config, admin)
    if settings.admin_token is not None:
        found = replace(found, token=settings.admin_token.get_secret_value())
    body = msgspec.json.encode(what)
    reply = found.ask("POST", "/api/v1/cache/purge", timeout, body)
    if reply.status != 200:
        print_line("error", f"the admin listener answered {reply.status}{_detail(reply)}")
        ctx.exit(Exit.FAILURE)
    result = msgspec.json.decode(reply.body, type=PurgeInfo)
    others = "; the other gateways were told" if result.shared == "told" else ""
    click.echo(f"{result.removed} forgotten{others}")


def _detail(reply: Reply) -> str:
    body = reply.json()
    if not isinstance(body, dict):
        return ""
    parts = [str(body[key]) for key in ("title", "detail") if body.get(key)]
    return f": {'; '.join(parts)}" if parts else ""
