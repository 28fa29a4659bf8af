"""Configuration data that remembers where it was written.

A `Node` is a scalar, a list or a mapping, with its file, line and column. This module knows the
shape of such trees and how their places are spelled (`routes[2].match.path`); it reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

Scalar = str | int | float | bool | None
Mark = tuple[int, int]
Step = str | int
Path = tuple[Step, ...]

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_STEP: Final = re.compile(r'\[(\d{1,9})\]|\["((?:[^"\\]|\\.)*)"\]|\.?([^.\[\]]+)')


class Node:
    """One value. `keys` holds where each key of a mapping stands.

    `reference` names the `${...}` that the value came from, if any: such a value is never
    printed. `broken` marks a value already complained about: no second complaint is made.
    """

    __slots__ = ("broken", "column", "file", "keys", "line", "reference", "value")

    def __init__(
        self,
        value: Scalar | list[Node] | dict[str, Node],
        file: str,
        line: int,
        column: int,
        keys: dict[str, Mark] | None = None,
    ) -> None:
        self.value: Any = value
        self.file = file
        self.line = line
        self.column = column
        self.keys: Any = keys
        self.reference = ""
        self.broken = False

    @property
    def position(self) -> str:
        """`file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}"

    def __repr__(self) -> str:
        return f"Node({describe(self)}, {self.position})"


def plain(node: Node) -> Any:
    """The data alone, as lists, dicts and scalars."""
    value = node.value
    kind = type(value)
    if kind is dict:
        return {key: plain(child) for key, child in value.items()}
    if kind is list:
        return [plain(child) for child in value]
    return value


def walk(node: Node, path: Path) -> tuple[Node, Path]:
    """The node at `path`, or the deepest one on the way to it, and the steps that were taken.

    Steps that lead nowhere are skipped: pydantic puts the names of union members among them.
    """
    taken: list[Step] = []
    for step in path:
        value = node.value
        if isinstance(value, dict):
            child = value.get(str(step))
        elif isinstance(value, list):
            child = value[step] if isinstance(step, int) and step < len(value) else None
        else:
            child = None
        if child is not None:
            node = child
            taken.append(step if isinstance(value, list) else str(step))
    return node, tuple(taken)


def references(node: Node) -> Iterator[Node]:
    """Every scalar at or below `node` that came from a reference."""
    if isinstance(node.value, dict):
        for child in node.value.values():
            yield from references(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from references(child)
    elif node.reference:
        yield node


def describe(node: Node) -> str:
    """The value in a few words for a message; what came from a reference is not shown."""
    value = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if node.reference:
        return f"what {node.reference} gives" if len(node.reference) <= 80 else "a reference"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:50]}...{text[-1]}"


def format_path(path: Sequence[Step]) -> str:
    """`("routes", 2, "match")` is `routes[2].match`; unusual keys are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            escaped = step.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def parse_path(text: str) -> Path:
    """The reverse of `format_path`."""
    steps: list[Step] = []
    for match in _STEP.finditer(text):
        index, quoted, key = match.groups()
        if index is not None:
            steps.append(int(index))
        elif quoted is not None:
            steps.append(re.sub(r"\\(.)", r"\1", quoted))
        else:
            steps.append(key)
    return tuple(steps)
