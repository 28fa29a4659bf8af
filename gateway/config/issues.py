"""What is wrong with a configuration, and where: one line each, never with a secret in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config.loader import Configuration
    from gateway.config.model import RouteConfig


@dataclass(frozen=True, slots=True, order=True)
class Issue:
    """One error or warning. Lines and columns count from 1; 0 means the file as a whole.

    `path` is the key's path, such as `routes[2].match.path`; "" for what is no key's fault.
    """

    file: str
    line: int
    column: int
    path: str = field(compare=False)
    message: str
    hint: str = field(default="", compare=False)

    @property
    def position(self) -> str:
        """`file:line:column`, or the file alone."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        text = f"{self.position}: {self.path}: " if self.path else f"{self.position}: "
        text += f"{self.message}; {self.hint}" if self.hint else self.message
        # One issue is one line, whatever a file's name or a message contains.
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class ConfigErrors(ConfigError):
    """Every error of one configuration, in the order of file and line."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues = sorted(set(issues))
        super().__init__("\n".join(map(str, self.issues)))


def located(errors: Iterable[ConfigError], configuration: Configuration) -> ConfigErrors:
    """Errors that were found after loading, with the places in the file where their keys stand."""
    issues: list[Issue] = []
    for error in errors:
        if isinstance(error, ConfigErrors):
            issues += error.issues
        else:
            position = position_of(configuration.locate(error.path))
            issues.append(Issue(*position, error.path, error.message))
    return ConfigErrors(issues)


def in_route(error: ConfigError, position: int, route: RouteConfig) -> ConfigError:
    """An error of one route, with its whole path; a plugin's stands where the plugin is used."""
    if error.whole:
        return error
    key, dot, rest = error.path.partition(".")
    for at, plugin in enumerate(route.plugins):
        if plugin.use == key:
            key = f"plugins[{at}].with"
    return ConfigError(error.message, f"routes[{position}].{key}{dot}{rest}")


def position_of(place: str) -> tuple[str, int, int]:
    """`file:line:column` taken apart; of a key that stands nowhere, only the file is known."""
    file, *numbers = place.rsplit(":", 2)
    if len(numbers) == 2 and all(number.isdigit() for number in numbers):
        return file, int(numbers[0]), int(numbers[1])
    return place, 0, 0
