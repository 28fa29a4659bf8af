"""`lockgate run`: serve traffic until a signal ends it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import click

from gateway import pauses
from gateway.cli.main import config_option

WATCH: Final = {True: "on", False: "off", None: None}
"""What the option --watch says, as the setting has it."""


@click.command("run")
@config_option
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Reload when the files change; also GATEWAY_WATCH. [default: on]",
)
@click.option(
    "--http",
    type=click.Choice(["lean", "stock"]),
    default="lean",
    help="The HTTP implementation in front: Lockgate's own, or uvicorn's. [default: lean]",
)
@click.pass_context
def command(
    ctx: click.Context, config: Path | None, watch: bool | None, http: Literal["lean", "stock"]
) -> None:
    """Serve traffic until a signal ends it.

    TERM and INT drain, a second one forces; HUP reloads the configuration. The exit code is 0 after
    a drain, 1 if it was forced, 3 if a port is in use, 78 if the configuration can't be used.
    """
    # Until the event loop handles signals, a TERM simply ends the start: nothing is in flight. As
    # the first process of a container it would otherwise be ignored.
    signal.signal(signal.SIGTERM, leave)
    # Before the imports, which make most of the objects of a start.
    pauses.prepare_process()
    from gateway.server.log import configure_logging
    from gateway.server.run import run
    from gateway.settings import load_settings

    settings = load_settings(config=config, watch=WATCH[watch])
    configure_logging(settings.log_level)
    ctx.exit(int(run(settings, stock=http == "stock")))


def leave(number: int, frame: FrameType | None) -> None:
    """Ends a start, in which nothing is in flight."""
    del number, frame
    sys.exit(0)
