"""An imported OpenAPI document: which operation a request means, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.contracts.operation import Operation
from gateway.contracts.paths import BadTemplate, PathTrie, compatible

METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")


class PathOperations:
    """The operations of one path, by method. `template` is the path with its base."""

    __slots__ = ("methods", "template")

    def __init__(self, template: str, methods: dict[str, Operation]) -> None:
        self.template = template
        self.methods = methods

    def find(self, method: str) -> Operation | None:
        """The operation of a method; HEAD is answered as GET is."""
        found = self.methods.get(method)
        if found is None and method == "HEAD":
            return self.methods.get("GET")
        return found

    @property
    def allowed(self) -> list[str]:
        """The methods that the contract knows, for Allow."""
        return sorted(self.methods)


class Contract:
    """All operations of a document, by path. `warnings` say what was left out when importing it."""

    def __init__(self, name: str, warnings: list[str]) -> None:
        self.name = name
        self.warnings = warnings
        self.operations: list[Operation] = []
        self._paths: PathTrie[PathOperations] = PathTrie()
        self._templates: list[str] = []

    def add(self, bases: Iterable[str], template: str, methods: dict[str, Operation]) -> bool:
        """Put a path's operations under each base; False if there is an equal path already.

        Raises BadTemplate.
        """
        fresh = True
        for base in bases:
            full = base.rstrip("/") + template
            entry = PathOperations(full, methods)
            if self._paths.add(full, entry):
                self._templates.append(full)
            else:
                fresh = False
        self.operations += methods.values()
        return fresh

    def find(self, path: str) -> tuple[PathOperations, dict[str, str]] | None:
        """The operations at a path in normal form, and its parameters, still encoded."""
        return self._paths.find(path)

    def could_match(self, route_path: str) -> bool:
        """Whether some request of a route, whose paths these are, is described."""
        return any(compatible(template, route_path) for template in self._templates)

    def matching(self, route_path: str) -> Iterator[Operation]:
        """The operations that requests of a route may mean."""
        for entry in self._paths.values():
            if compatible(entry.template, route_path):
                yield from entry.methods.values()


__all__ = ["METHODS", "BadTemplate", "Contract", "PathOperations"]
