"""The tree of path segments under one host pattern, and the routes at its leaves.

Knows paths, methods and header conditions; hosts and shadows are `table.py`'s. Built once, then
only read. The cost of a search depends on the path's segments, not on the number of routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from gateway.message import Headers
from gateway.routing.template import Template

V = TypeVar("V")
GET: Final = "GET"
HEAD: Final = "HEAD"
NOTHING: Final[frozenset[bytes]] = frozenset()


class Route(Generic[V]):
    """A route as the table needs it. `methods` is empty if it takes every method."""

    __slots__ = ("conditions", "host", "methods", "name", "template", "value")

    def __init__(
        self,
        name: str,
        value: V,
        host: str,
        template: Template,
        methods: Iterable[str],
        headers: Iterable[tuple[str, str]],
    ) -> None:
        self.name = name
        self.value = value
        self.host = host
        self.template = template
        self.methods = frozenset(methods)
        self.conditions = tuple(
            sorted((key.lower().encode("latin-1"), value.encode()) for key, value in headers)
        )

    def holds(self, headers: Headers, announced: frozenset[bytes] = NOTHING) -> bool:
        """Whether every header condition does: the field is there, with that value alone.

        A field given twice with two values holds neither: the upstream might read the other one.
        A field in `announced` holds any value.
        """
        return all(
            name in announced or set(headers.get_all(name)) == {value}
            for name, value in self.conditions
        )

    def takes(self, method: str) -> bool:
        """Whether it takes the method; who takes GET takes HEAD (RFC 9110 section 9.3.2)."""
        methods = self.methods
        return not methods or method in methods or (method == HEAD and GET in methods)

    def rank(self, method: str) -> tuple[int, int]:
        """Its place among routes of one leaf that take `method`: the lower, the more specific."""
        named = 0 if method in self.methods else 1 if self.methods else 2
        return named, -len(self.conditions)


class Leaf(Generic[V]):
    """The routes of one path shape, by method, each list with the most specific first."""

    __slots__ = ("any_method", "by_method", "routes")

    def __init__(self) -> None:
        self.routes: list[Route[V]] = []
        self.by_method: dict[str, tuple[Route[V], ...]] = {}
        self.any_method: tuple[Route[V], ...] = ()

    def seal(self) -> None:
        """Sort the routes once all are there."""
        named = {method for route in self.routes for method in route.methods}
        if GET in named:
            named.add(HEAD)
        self.by_method = {method: self._ranked(method) for method in named}
        # No route names the empty method, so these are the routes that take any.
        self.any_method = self._ranked("")

    def _ranked(self, method: str) -> tuple[Route[V], ...]:
        routes = self.routes
        if len(routes) == 1:
            return tuple(routes) if routes[0].takes(method) else ()
        taking = [route for route in routes if route.takes(method)]
        return tuple(sorted(taking, key=lambda route: route.rank(method)))

    def pick(
        self, method: str, headers: Headers, announced: frozenset[bytes] = NOTHING
    ) -> Route[V] | None:
        """The most specific route that takes the method and whose header conditions hold."""
        for route in self.by_method.get(method, self.any_method):
            if not route.conditions or route.holds(headers, announced):
                return route
        return None


class Node(Generic[V]):
    """One place in the tree: what may stand in the next segment, and what ends here."""

    __slots__ = ("children", "leaf", "rest", "single")

    def __init__(self) -> None:
        self.children: dict[str, Node[V]] = {}
        self.single: Node[V] | None = None
        self.rest: Leaf[V] | None = None
        self.leaf: Leaf[V] | None = None

    def gather(self, segments: list[str], place: int, found: list[Leaf[V]]) -> None:
        """Append the leaves that match `segments[place:]`, the most specific path first.

        That is: at the first segment in which two templates differ, a literal goes before a
        parameter, and that before `{rest:path}`. A call of its own is made only where the tree
        forks: calls are what costs.
        """
        node = self
        rests: Sequence[Leaf[V]] = ()
        for segment in segments[place:] if place else segments:
            place += 1
            child = node.children.get(segment)
            if node.rest is not None:
                rests = [node.rest, *rests]
            if node.single is not None and segment:
                if child is not None:
                    child.gather(segments, place, found)
                child = node.single
            if child is None:
                break
            node = child
        else:
            if node.leaf is not None:
                found.append(node.leaf)
        if rests:
            found.extend(rests)


class Tree(Generic[V]):
    """All routes of one host pattern. Templates without parameters are found by the whole path."""

    __slots__ = ("_leaves", "literal", "root")

    def __init__(self) -> None:
        self.literal: dict[str, Leaf[V]] = {}
        self.root: Node[V] | None = None
        self._leaves: dict[str, Leaf[V]] = {}

    def add(self, route: Route[V]) -> None:
        """Add a route; `seal` must follow."""
        leaf = self._leaves.get(route.template.shape)
        if leaf is None:
            leaf = self._leaves[route.template.shape] = self._grow(route.template)
        leaf.routes.append(route)

    def _grow(self, template: Template) -> Leaf[V]:
        leaf: Leaf[V] = Leaf()
        if template.is_literal:
            self.literal[template.shape] = leaf
            return leaf
        if self.root is None:
            self.root = Node()
        node = self.root
        for segment in template.segments:
            if segment is not None:
                following = node.children.get(segment)
                if following is None:
                    following = node.children[segment] = Node()
            else:
                following = node.single
                if following is None:
                    following = node.single = Node()
            node = following
        if template.rest:
            node.rest = leaf
        else:
            node.leaf = leaf
        return leaf

    def seal(self) -> Iterable[Leaf[V]]:
        """Sort each leaf's routes; the leaves, for whoever wants to look them over."""
        leaves = self._leaves.values()
        for leaf in leaves:
            leaf.seal()
        return leaves

    def all_leaves(self) -> Iterable[Leaf[V]]:
        """Every leaf, in no order that means anything."""
        return self._leaves.values()

    def leaves(self, path: str) -> list[Leaf[V]]:
        """Every leaf that the path leads to, the most specific first."""
        leaf = self.literal.get(path)
        found = [] if leaf is None else [leaf]
        if self.root is not None:
            self.root.gather(path[1:].split("/"), 0, found)
        return found
