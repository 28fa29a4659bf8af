"""The command group: which commands there are, and how their failures become exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from gateway import __version__, compiled
from gateway.errors import ConfigError
from gateway.server.exits import Exit, StartupError

# Read by click for --help without importing a command's module, which may be heavy.
COMMANDS: Final = {
    "run": "Serve traffic until a signal ends it.",
    "worker": "Deliver the events of asynchronous routes, without serving traffic.",
    "check": "Say everything that is wrong with a configuration.",
    "schema": "Print the JSON Schema of the configuration, for editors.",
    "routes": "Show the routes and where they lead.",
    "explain": "Show what would happen to a request, without sending it.",
    "key": "Make an API key, or the hash of one.",
    "healthcheck": "Ask a running gateway whether it is ready.",
    "reload": "Have a running gateway load its configuration again.",
    "chaos": "Rehearse failures against a configuration, and judge every route.",
    "trace": "Show one transaction's whole way, and where its time went.",
    "audit": "Print the record of every automated action (audit export).",
    "queues": "Show how full the queues of asynchronous routes are.",
    "dlq": "Look after dead letters (dlq list, show, replay, purge).",
    "schedules": "Show when schedules fire next, and what they fired last.",
    "streams": "Show the streams that events come from, and whether they can be read.",
    "cache": "Have a running gateway forget cached answers (cache purge).",
}


class CommandGroup(click.Group):
    """Finds each command in the module of its name, and turns failures into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gateway.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. One line for each thing that went wrong, and never a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            from gateway.cli.console import print_issues

            print_issues(error)
            ctx.exit(Exit.CONFIG)
        except StartupError as error:
            click.echo(f"error: {error}", err=True, color=ctx.color)
            ctx.exit(Exit.STARTUP)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click's own affair
            click.echo(f"error: {error}", err=True, color=ctx.color)
            ctx.exit(Exit.FAILURE)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="lockgate",
    message=f"%(prog)s, version %(version)s, {compiled.description()}",
)
@click.pass_context
def lockgate(ctx: click.Context) -> None:
    """Lockgate, an API gateway. Every command reads the configuration that GATEWAY_CONFIG names."""
    # https://no-color.org: any value but the empty one switches colours off.
    if os.environ.get("NO_COLOR"):
        ctx.color = False


config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    help="The configuration's main file; also GATEWAY_CONFIG. [default: config/gateway.yaml]",
)


def main() -> None:
    """The entry of the program."""
    try:
        lockgate.main(prog_name="lockgate", standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
