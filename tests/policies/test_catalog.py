"""Which policies there are, and how plugins join them."""

from __future__ import annotations

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

    assert set(specs) == {policy.name for policy in BUILTIN if not policy.config_of}
    assert all(spec.builtin for spec in specs.values())


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

    assert first.policies["greeting"].Config().word == "hello"  # type: ignore[attr-defined]
    assert second.policies["greeting"].Config().word == "bye"  # type: ignore[attr-defined]


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

    assert set(specs) == {policy.name for policy in BUILTIN if not policy.config_of}
