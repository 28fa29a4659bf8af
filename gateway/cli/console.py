"""How commands print: issues, warnings and tables. Plain where nobody looks at colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from gateway.config.issues import ConfigErrors
from gateway.errors import ConfigError


def print_issues(error: ConfigError) -> None:
    """One line on stderr for each error of a configuration."""
    if not isinstance(error, ConfigErrors):
        print_line("error", str(error))
        return
    for issue in error.issues:
        print_line("error", str(issue))


def print_line(kind: str, text: str) -> None:
    """`error: text` or `warning: text` on stderr."""
    colour = "red" if kind == "error" else "yellow"
    context = click.get_current_context(silent=True)
    color = context.find_root().color if context is not None else None
    click.echo(f"{click.style(kind, fg=colour, bold=True)}: {text}", err=True, color=color)


def print_json(value: Any) -> None:
    """Indented JSON on stdout; takes whatever msgspec can encode."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; nothing behind the last one."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for number, row in enumerate((heads, *rows)):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip()
        context = click.get_current_context()
        styled = click.style(line, bold=True) if number == 0 else line
        click.echo(styled, color=context.find_root().color)
