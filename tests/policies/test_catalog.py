"""Which policies there are, and how plugins join them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from gateway.errors import ConfigError
from gateway.policies.catalog import BUILTIN, PolicyCatalog
from gateway.policies.order import ADMISSION

PLUGIN = """
from __future__ import annotations
from gateway.plugin import BuildContext, Exchange, Guard, PolicyConfig, Rejection

class GreetingConfig(PolicyConfig):
    word: str = "hello"

class Greeting(Guard):
    name = "greeting"
    Config = GreetingConfig
    after = "access"

    @classmethod
    def build(cls, config: GreetingConfig, context: BuildContext) -> Greeting:
        return cls()

    async def check(self, exchange: Exchange) -> Rejection | None:
        return None
"""


def write(folder: Path, text: str, name: str = "greeting.py") -> str:
    (folder / name).write_text(dedent(text))
    return name


def test_the_built_in_policies_are_there_without_plugins(tmp_path: Path) -> None:
    """Each with the model of its configuration and what it starts from."""
    specs = PolicyCatalog()([], tmp_path)

    assert set(specs) == {name for name, each in BUILTIN.items() if not each.config_of}
    assert all(spec.builtin for spec in specs.values())


# Imports what a gateway of one process does, and serves the configuration without a listener.
START = """
import asyncio, sys
from pathlib import Path
import gateway.server.local, gateway.server.run
from gateway.runtime import Runtime, load_configuration

async def main():
    runtime = Runtime()
    await runtime.start(load_configuration(Path(sys.argv[1]), {}))
    print(*sys.modules)
    await runtime.aclose()

asyncio.run(main())
"""
# What takes the most memory of all that not every gateway needs.
HEAVY = {
    "cryptography",
    "gateway.contracts",
    "gateway.delivery",
    "httpx",
    "jsonschema_rs",
    "jwt",
    "prometheus_client",
    "redis",
}


def modules_of(file: Path) -> set[str]:
    """The modules that a gateway with this configuration loads."""
    command = [sys.executable, "-c", START, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_policy_that_no_route_uses_is_not_imported(tmp_path: Path) -> None:
    """A gateway pays in memory and in start time for what it uses, and for nothing else."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "version: 1\nserver: {listen: 127.0.0.1:0}\n"
        "upstreams: {a: {targets: ['http://127.0.0.1:1'], timeout: 5s}}\n"
        "routes: [{name: a, match: {path: /}, upstream: a, cors: {origins: ['https://b.example']}}]"
    )

    modules = modules_of(file)

    used = {"correlation", "observe", "body", "cors", "timeout"}
    homes = {
        name: f"gateway.policies.{each.where.partition(':')[0]}" for name, each in BUILTIN.items()
    }
    assert {name for name, home in homes.items() if home in modules} == used
    assert not HEAVY & modules


@pytest.mark.parametrize("name", BUILTIN)
def test_the_table_says_what_is_there(name: str) -> None:
    """What no type checker sees: the place of the class, and the fields that the table names."""
    policy = BUILTIN[name].load()

    assert policy.name == name
    members = policy.Config.model_fields.keys() | vars(policy.Config).keys()
    assert {*BUILTIN[name].further_upstreams} <= members
    assert BUILTIN[name].has_companion == ("companion" in vars(policy))


def test_a_plugin_file_joins_the_catalog_at_its_anchor(tmp_path: Path) -> None:
    """Its path is relative to the configuration."""
    catalog = PolicyCatalog()

    specs = catalog([write(tmp_path, PLUGIN)], tmp_path)

    assert not specs["greeting"].builtin
    assert specs["greeting"].config.model_validate({}).model_dump() == {"word": "hello"}
    position = ADMISSION.index("access")
    assert catalog.order[position : position + 2] == ["access", "greeting"]


def test_an_edited_plugin_takes_effect_at_the_next_load(tmp_path: Path) -> None:
    """The old module stays as it was for the requests that still use it."""
    name = write(tmp_path, PLUGIN)
    first, second = PolicyCatalog(), PolicyCatalog()
    first([name], tmp_path)
    write(tmp_path, PLUGIN.replace("hello", "bye"))

    second([name], tmp_path)

    assert first.policy("greeting").Config().word == "hello"  # type: ignore[attr-defined]
    assert second.policy("greeting").Config().word == "bye"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("X = 1", "holds no policy"),
        (PLUGIN.replace('name = "greeting"', 'name = "no good"'), "no usable name"),
        (PLUGIN.replace("    Config = GreetingConfig\n", ""), "no Config"),
        (PLUGIN.replace('name = "greeting"', 'name = "cors"'), "exists already"),
        (PLUGIN.replace('after = "access"', 'after = "nothing"'), "nothing"),
    ],
)
def test_a_plugin_that_can_not_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    """One clear line, whatever the plugin does."""
    with pytest.raises(ConfigError, match=message):
        PolicyCatalog()([write(tmp_path, text)], tmp_path)


@pytest.mark.parametrize("reference", ["missing.py", "not-installed"])
def test_a_plugin_that_is_not_there_names_its_place(tmp_path: Path, reference: str) -> None:
    """The path is that of the entry in `plugins:`."""
    with pytest.raises(ConfigError) as caught:
        PolicyCatalog()([write(tmp_path, PLUGIN), reference], tmp_path)

    assert caught.value.path == "plugins[1]"
    assert reference in caught.value.message


def test_the_catalog_can_be_asked_again(tmp_path: Path) -> None:
    """The loader does so after a plugin failed, to check what is left."""
    catalog = PolicyCatalog()
    with pytest.raises(ConfigError):
        catalog([write(tmp_path, PLUGIN), "missing.py"], tmp_path)

    specs = catalog([], tmp_path)

    assert set(specs) == {name for name, each in BUILTIN.items() if not each.config_of}
