"""`lockgate key`: make an API key, or the hash of one that exists."""

from __future__ import annotations

import json
import os
import re
import sys

import click

from gateway.config.types import NAME_PATTERN
from gateway.policies.auth.key_table import MAX_KEY, hash_of, is_possible, new_key


@click.group("key")
def command() -> None:
    """Make API keys for an identity of the type api_key, and the hashes that stand there."""


@command.command("new")
@click.option("--consumer", required=True, metavar="NAME", help="Whose key it is.")
@click.option("--scope", "scopes", multiple=True, help="What it is good for; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def new(consumer: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key of 256 random bits.

    The key is shown this once and kept nowhere; the entry goes into the configuration.
    """
    if not _is_name(consumer):
        hint = "letters, digits, dots, underscores and hyphens"
        raise click.BadParameter(hint, param_hint="NAME")
    key = new_key(os.urandom)
    entry: dict[str, object] = {"consumer": consumer, "hash": hash_of(key)}
    if scopes:
        entry["scopes"] = list(scopes)
    if as_json:
        click.echo(json.dumps({"key": key, **entry}))
        return
    click.echo(f"key (for {consumer}, shown this once):\n  {key}")
    click.echo(f"entry (for the identity's keys):\n  - {json.dumps(entry)}")


@command.command("hash")
def hash_command() -> None:
    """Print the hash of the key that is given on standard input.

    Not as an argument, which other users of the machine could see.
    """
    given = sys.stdin.read(MAX_KEY + 2).removesuffix("\n").removesuffix("\r")
    if not is_possible(given.encode("utf-8", "surrogateescape")):
        message = f"expected a key of 1 to {MAX_KEY} visible ASCII characters on standard input"
        raise click.UsageError(message)
    click.echo(hash_of(given))


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME_PATTERN, text, re.ASCII) is not None
