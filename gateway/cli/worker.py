"""`lockgate worker`: deliver what gateways have accepted, until a signal ends it."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from gateway import pauses
from gateway.cli.main import config_option
from gateway.cli.run import WATCH, leave
from gateway.config.address import Address


@click.command("worker")
@config_option
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Reload when the files change; also GATEWAY_WATCH. [default: on]",
)
@click.option(
    "--admin",
    "admin",
    metavar="ADDRESS",
    help="Where health and metrics are, host:port or unix:/path. [default: server.admin]",
)
@click.pass_context
def command(ctx: click.Context, config: Path | None, watch: bool | None, admin: str | None) -> None:
    """Deliver the events of asynchronous routes, without a public listener.

    The configuration is that of the gateways, whose store it shares; server.deliver: false leaves
    all deliveries to workers. It is ready once the store is connected. TERM and INT let the
    deliveries under way end, and give back what takes longer; a second one forces; HUP reloads the
    configuration.
    """
    signal.signal(signal.SIGTERM, leave)
    # Before the imports, which make most of the objects of a start.
    pauses.prepare_process()
    from gateway.server.log import configure_logging
    from gateway.server.role import Role
    from gateway.server.run import run
    from gateway.settings import load_settings

    settings = load_settings(config=config, watch=WATCH[watch])
    configure_logging(settings.log_level)
    ctx.exit(int(run(settings, role=Role(worker=True, admin=_address(admin)))))


def _address(text: str | None) -> Address | None:
    from pydantic import TypeAdapter, ValidationError

    from gateway.config.types import Listen

    if text is None:
        return None
    try:
        address: Address = TypeAdapter(Listen).validate_python(text)
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"], param_hint="--admin") from None
    return address
