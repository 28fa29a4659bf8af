"""What goes into the route table, what it tells people, and what may be wrong with it.

Beside the table, because data classes with slots can't be compiled, and the table is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple

from gateway.errors import ConfigError
from gateway.routing.tree import V

if TYPE_CHECKING:
    from gateway.config.model_route import MatchConfig


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """One route to put into the table: what it matches, and what `Match.value` shall be."""

    name: str
    match: MatchConfig
    value: V


class RouteLine(NamedTuple):
    """One route, for people: `host` is "*" for any, `methods` is empty for any."""

    name: str
    host: str
    path: str
    methods: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RouteIssue:
    """What is wrong with a route; `key` is `match.path` or another key of it."""

    route: str
    key: str
    message: str


class RouteErrors(ConfigError):
    """The routes can't be a table. `issues` holds everything that is wrong."""

    def __init__(self, issues: Sequence[RouteIssue]) -> None:
        super().__init__("; ".join(f"{each.route}: {each.message}" for each in issues), "routes")
        self.issues = issues
