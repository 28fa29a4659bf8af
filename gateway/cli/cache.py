"""`lockgate cache purge`: have a running gateway forget cached answers."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.admin.control import Purge, PurgeInfo
from gateway.cli.asking import admin_options, ask
from gateway.cli.main import config_option


@click.group("cache")
def command() -> None:
    """Look after the answers that a running gateway keeps."""


@command.command("purge")
@config_option
@click.option("--route", default="", help="Every answer of this route.")
@click.option("--prefix", default="", help="Every path that begins so: /v1/ or api.internal/v1/.")
@click.option("--tag", default="", help="Every answer with this tag.")
@click.option("--all", "everything", is_flag=True, help="Every answer.")
@admin_options
def purge(  # noqa: PLR0917 - click passes its options
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
    body = ask(
        "POST",
        "/api/v1/cache/purge",
        config=config,
        admin=admin,
        timeout=timeout,
        body=msgspec.json.encode(what),
    )
    result = msgspec.json.decode(body, type=PurgeInfo)
    others = "; the other gateways were told" if result.shared == "told" else ""
    click.echo(f"{result.removed} forgotten{others}")
