"""`lockgate schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from gateway.cli.main import config_option
from gateway.config.loader import load
from gateway.config.schema import json_schema
from gateway.policies.catalog import PolicyCatalog


@click.command("schema")
@config_option
def command(config: Path | None) -> None:
    """Print the JSON Schema of the configuration to stdout, for editors.

    With --config it knows the plugins of that configuration as well.
    """
    plugins: list[str] = []
    base_dir: Path | None = None
    if config is not None:
        configuration = load(config, PolicyCatalog(), os.environ)
        plugins, base_dir = configuration.gateway.plugins, configuration.base_dir
    schema = json_schema(PolicyCatalog(), plugins, base_dir)
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
