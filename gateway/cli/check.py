"""`lockgate check`: everything that is wrong with a configuration, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from gateway.cli.console import print_json, print_line
from gateway.cli.main import config_option
from gateway.cli.offline import inspect, load
from gateway.config.issues import ConfigErrors, Issue
from gateway.errors import ConfigError
from gateway.server.exits import Exit
from gateway.server.reload import issue_info


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def command(
    ctx: click.Context, file: Path | None, config: Path | None, form: Literal["text", "json"]
) -> None:
    """Say everything that is wrong with a configuration: FILE, or the one in --config.

    The exit code is 0 if a gateway would start with it, and 78 if not. Warnings don't change it.
    """
    if file is not None and config is not None:
        raise click.UsageError("give the file once, as an argument or with --config")
    errors, warnings, routes = _check(file or config)
    if form == "json":
        print_json({"ok": not errors, "errors": _plain(errors), "warnings": _plain(warnings)})
    else:
        for issue in warnings:
            print_line("warning", str(issue))
        for issue in errors:
            print_line("error", str(issue))
        if not errors:
            noted = f", {len(warnings)} warning(s)" if warnings else ""
            click.echo(f"ok: {routes} route(s){noted}")
    ctx.exit(Exit.CONFIG if errors else Exit.OK)


def _check(path: Path | None) -> tuple[list[Issue], list[Issue], int]:
    """Errors, warnings, and how many routes would be served."""
    warnings: list[Issue] = []
    try:
        loaded = load(path)
        warnings = loaded.configuration.warnings
        return [], warnings, inspect(loaded, lambda snapshot: len(snapshot.routes))
    except ConfigErrors as error:
        return error.issues, warnings, 0
    except ConfigError as error:
        return [Issue("the environment", 0, 0, error.path, error.message)], warnings, 0


def _plain(issues: list[Issue]) -> Any:
    return [issue_info(issue) for issue in issues]
