"""Which operation of a contract a path and a method mean.

A trie of segments: cost grows with the path, not with the number of operations. Concrete segments
come before templated ones (OpenAPI, "Path Templating Matching").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from gateway.routing.path import PathError, normalise

T = TypeVar("T")
_PARAMETER: Final = re.compile(r"\{([^{}/]+)\}")
# Several parameters in one segment are found by trying, whose cost is bounded by these.
_MAX_IN_SEGMENT: Final = 3
_MAX_SEGMENT: Final = 256


class BadTemplate(ValueError):
    """A path of the description that can't be matched."""


class _Node(Generic[T]):
    __slots__ = ("any", "literals", "patterns", "value")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.patterns: list[tuple[re.Pattern[str], _Node[T]]] = []
        self.any: _Node[T] | None = None
        self.value: tuple[T, list[list[str]]] | None = None


class PathTrie(Generic[T]):
    """Values by path template. Paths are in normal form, and so are the templates' literals."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._exact: dict[str, T] = {}

    def add(self, template: str, value: T) -> bool:
        """Put `value` at a template; False if an equal template is there. Raises BadTemplate."""
        node = self._root
        names: list[list[str]] = []
        if not template.startswith("/"):
            raise BadTemplate("a path starts with /")
        if "{" not in template and "}" not in template:
            return self._exact.setdefault(_literal(template), value) is value
        for segment in template[1:].split("/"):
            node = self._child(node, segment, names)
        if node.value is not None:
            return False
        node.value = (value, names)
        return True

    def _child(self, node: _Node[T], segment: str, names: list[list[str]]) -> _Node[T]:
        found = _PARAMETER.findall(segment)
        if not found:
            if "{" in segment or "}" in segment:
                raise BadTemplate("a brace without its other one")
            key = _literal("/" + segment)[1:] if segment else ""
            return node.literals.setdefault(key, _Node())
        if len(found) > _MAX_IN_SEGMENT:
            raise BadTemplate(f"more than {_MAX_IN_SEGMENT} parameters in one segment")
        names.append(found)
        if len(found) == 1 and segment == "{" + found[0] + "}":
            if node.any is None:
                node.any = _Node()
            return node.any
        pattern = _pattern(segment)
        for known, child in node.patterns:
            if known.pattern == pattern:
                return child
        fresh: _Node[T] = _Node()
        node.patterns.append((re.compile(pattern, re.ASCII), fresh))
        return fresh

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """What stands at a path, with its parameters, still encoded; None if nothing does."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        segments = path[1:].split("/")
        stack: list[tuple[_Node[T], int, tuple[tuple[str, ...], ...]]] = [(self._root, 0, ())]
        while stack:
            node, depth, captured = stack.pop()
            if depth == len(segments):
                if node.value is not None:
                    return node.value[0], _named(node.value[1], captured)
                continue
            segment = segments[depth]
            # Pushed last, so tried first: what is more concrete.
            if node.any is not None and segment:
                stack.append((node.any, depth + 1, (*captured, (segment,))))
            for pattern, child in node.patterns if len(segment) <= _MAX_SEGMENT else ():
                match = pattern.fullmatch(segment)
                if match is not None:
                    stack.append((child, depth + 1, (*captured, match.groups())))
            literal = node.literals.get(segment)
            if literal is not None:
                stack.append((literal, depth + 1, captured))
        return None

    def values(self) -> Iterator[T]:
        """Everything that is in it."""
        yield from self._exact.values()
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node.value is not None:
                yield node.value[0]
            stack += node.literals.values()
            stack += [child for _, child in node.patterns]
            if node.any is not None:
                stack.append(node.any)


def _named(names: list[list[str]], captured: tuple[tuple[str, ...], ...]) -> dict[str, str]:
    return {
        name: value
        for group, values in zip(names, captured, strict=True)
        for name, value in zip(group, values, strict=True)
    }


def _pattern(segment: str) -> str:
    """A segment that is more than one parameter. Each takes as little as it can."""
    parts = []
    at = 0
    for match in _PARAMETER.finditer(segment):
        parts.append(re.escape(_text(segment[at : match.start()])))
        parts.append("([^/]+?)")
        at = match.end()
    parts.append(re.escape(_text(segment[at:])))
    return "".join(parts)


def _text(part: str) -> str:
    # Behind a letter, a dot is no dot segment.
    return _literal("/x" + part)[2:]


def _literal(path: str) -> str:
    try:
        return normalise(_encoded(path))
    except PathError as error:
        raise BadTemplate(error.reason) from None


def _encoded(path: str) -> bytes:
    return quote(path, safe="/%!$&'()*+,;=:@-._~").encode("ascii")


def compatible(template: str, route: str) -> bool:
    """Whether some path could match both a description's template and a route's.

    Both may have parameters; the route's may end in `{name:path}`, which takes what is left.
    """
    mine, other = template.strip("/").split("/"), route.strip("/").split("/")
    for index, segment in enumerate(other):
        if segment.endswith(":path}"):
            return True
        if index >= len(mine):
            return False
        if "{" not in segment and "{" not in mine[index] and segment != mine[index]:
            return False
    return len(mine) == len(other)
