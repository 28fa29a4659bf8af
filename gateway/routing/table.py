"""The compiled route table: which route a request belongs to.

A route matches if all it asks for holds: host, path, method, header fields. Of those that match,
the most specific one wins, by the first of these in which they differ:
1. the host: exact, then `*.wildcard` (the longest first), then none;
2. the path, segment by segment: literal, then `{name}`, then `{name:path}`;
3. the method: named, then HEAD where only GET is named, then any;
4. the number of header conditions: more before fewer.
Routes that differ in none of these, and that one request could match both, are an error when the
table is built.

A route that does not match is no obstacle: a route without a host serves every host, also one that
other routes name, and a literal path that takes only GET leaves POST to a parameter beside it.
That is what the words in the configuration say, and a new route takes only requests that it matches
itself. 404 if no route matches; 405 if one does but for the method.

A CORS preflight asks about another request, so it goes to the route of the method it asks about,
unless a route that is as specific in host and path names OPTIONS itself. It can't carry the fields
that the real request will have, so a header condition also holds if the preflight announces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Generic
from urllib.parse import unquote_to_bytes

from gateway.message import Headers
from gateway.routing.conflicts import conflicts
from gateway.routing.entry import Entry, RouteErrors, RouteIssue, RouteLine
from gateway.routing.host import host_name, parents
from gateway.routing.path import AmbiguousPath, shadow, sloppy
from gateway.routing.template import Template, TemplateError, decode
from gateway.routing.tree import GET, HEAD, Leaf, Route, Tree, V

Found = tuple[Route[V], dict[str, str]]
__all__ = [
    "Entry",
    "Match",
    "RouteErrors",
    "RouteIssue",
    "RouteLine",
    "RouteTable",
    "host_name",
]

OPTIONS: Final = "OPTIONS"
_MEMO_SIZE: Final = 1024
# No name is longer (RFC 1035 section 2.3.4), so no pattern can mean a longer one.
_MAX_NAME: Final = 255
_NO_PARAMS: Final[dict[str, str]] = {}


class Match(Generic[V]):
    """What the table says about a request.

    `value` is the route's, or None: then `ambiguous` says that the path could be read as another
    one (400), `allowed` lists the methods that would do, sorted (405), and without both there is no
    route (404). `params` is what the template captured, decoded; `raw_params` the same still
    encoded, for `Template.expand`. `preflight` marks a CORS preflight that leads to a route which
    does not take OPTIONS itself: the cors policy answers it, and without one it is a 405 with
    `allowed`.
    """

    __slots__ = ("allowed", "ambiguous", "params", "preflight", "raw_params", "value")

    def __init__(
        self,
        value: V | None,
        raw_params: dict[str, str] = _NO_PARAMS,
        params: dict[str, str] = _NO_PARAMS,
        allowed: Sequence[str] = (),
    ) -> None:
        self.value = value
        self.raw_params = raw_params
        self.params = params
        self.allowed = allowed
        self.ambiguous = False
        self.preflight = False


class RouteTable(Generic[V]):
    """All routes, compiled. Reading it is safe from any number of exchanges at once."""

    def __init__(self, trees: dict[str, Tree[V]], routes: Sequence[Route[V]]) -> None:
        self._trees = trees
        self._routes = routes
        # From a host to the trees that may have a route for it, the most specific first. Bounded:
        # clients choose what stands in Host.
        self._chains: dict[str, tuple[Tree[V], ...]] = {}

    @classmethod
    def build(cls, entries: Iterable[Entry[V]]) -> RouteTable[V]:
        """Compile the routes. Raises RouteErrors with all that is wrong with them."""
        trees: dict[str, Tree[V]] = {}
        routes: list[Route[V]] = []
        issues: list[RouteIssue] = []
        for entry in entries:
            try:
                route = _route(entry)
            except TemplateError as error:
                issues.append(RouteIssue(entry.name, "match.path", error.reason))
                continue
            routes.append(route)
            trees.setdefault(route.host, Tree()).add(route)
        for tree in trees.values():
            for leaf in tree.seal():
                for first, second in conflicts(leaf.routes):
                    message = f"can't be told apart from the route {first.name}: {_same(first)}"
                    issues.append(RouteIssue(second.name, "match", message))
        if issues:
            raise RouteErrors(issues)
        return cls(trees, routes)

    def match(self, host: str, path: str, method: str, headers: Headers) -> Match[V]:
        """The route for a request; `host` as `host_name` gives it, `path` in normal form."""
        trees = self._chains.get(host)
        if trees is None:
            trees = self._chain(host)
        if (
            method == OPTIONS
            and b"access-control-request-method" in headers
            and b"origin" in headers
        ):
            return self._preflight(trees, path, headers)
        found = _find(trees, method, headers, path)
        if found is None:
            return Match(None, allowed=_allowed(trees, path, headers))
        if "%" in path or ";" in path:
            return _checked(trees, path, found, partial(_find, trees, method, headers))
        route, raw = found
        return Match(route.value, raw, raw)

    def _chain(self, host: str) -> tuple[Tree[V], ...]:
        patterns = [""]
        if len(host) <= _MAX_NAME:
            patterns = [host, *("*." + above for above in parents(host)), ""]
        chain = tuple(self._trees[each] for each in patterns if each in self._trees)
        if len(self._chains) < _MEMO_SIZE and len(host) <= _MAX_NAME:
            self._chains[host] = chain
        return chain

    def _preflight(self, trees: Sequence[Tree[V]], path: str, headers: Headers) -> Match[V]:
        method = (headers.get(b"access-control-request-method") or b"").decode("latin-1")
        announced = _announced(headers)

        def find(path: str) -> Found[V] | None:
            for leaf in (leaf for tree in trees for leaf in tree.leaves(path)):
                route = leaf.pick(OPTIONS, headers, announced)
                if route is None or OPTIONS not in route.methods:
                    route = leaf.pick(method, headers, announced) or route
                if route is not None:
                    return route, route.template.capture(path[1:].split("/"))
            return None

        found = find(path)
        if found is None:
            return Match(None, allowed=_allowed(trees, path, headers))
        match = _checked(trees, path, found, find)
        if not match.ambiguous and not found[0].takes(OPTIONS):
            match.preflight = True
            match.allowed = _methods([found[0]])
        return match

    def parts(self) -> list[object]:
        """What a large table is made of, for whoever takes its time to let go of it."""
        leaves = (leaf for tree in self._trees.values() for leaf in tree.all_leaves())
        return [*self._routes, *leaves]

    def describe(self) -> list[RouteLine]:
        """Every route, sorted by host and path, those of one path in the order they are tried."""
        routes = sorted(self._routes, key=_reading_order)
        return [
            RouteLine(
                route.name,
                route.host or "*",
                route.template.text,
                tuple(sorted(route.methods)),
                tuple((name.decode(), value.decode()) for name, value in route.conditions),
            )
            for route in routes
        ]


def _announced(headers: Headers) -> frozenset[bytes]:
    """The fields that a preflight says the real request will carry."""
    listed = b",".join(headers.get_all(b"access-control-request-headers"))
    return frozenset(name.strip(b" \t").lower() for name in listed.split(b","))


def _route(entry: Entry[V]) -> Route[V]:
    match = entry.match
    host = (match.host or "").lower()
    return Route(
        entry.name,
        entry.value,
        "" if host == "*" else host,
        Template(match.path),
        match.methods or (),
        match.headers.items(),
    )


def _same(route: Route[V]) -> str:
    return f"same host ({route.host or 'any'}), path ({route.template.text}), method, headers"


def _find(trees: Sequence[Tree[V]], method: str, headers: Headers, path: str) -> Found[V] | None:
    """The most specific route, and its parameters still encoded."""
    segments: list[str] | None = None
    for tree in trees:
        leaf = tree.literal.get(path)
        if leaf is not None:
            route = leaf.pick(method, headers)
            if route is not None:
                return route, _NO_PARAMS
        if tree.root is None:
            continue
        if segments is None:
            segments = path[1:].split("/")
        leaves: list[Leaf[V]] = []
        tree.root.gather(segments, 0, leaves)
        for leaf in leaves:
            route = leaf.pick(method, headers)
            if route is not None:
                return route, route.template.capture(segments)
    return None


def _checked(
    trees: Sequence[Tree[V]],
    path: str,
    found: Found[V],
    find: Callable[[str], Found[V] | None],
) -> Match[V]:
    """The match for `found`, unless `path` could be read as another route's."""
    route, raw = found
    if _misleads(trees, path, found, find):
        match: Match[V] = Match(None)
        match.ambiguous = True
        return match
    return Match(route.value, raw, decode(raw))


def _misleads(
    trees: Sequence[Tree[V]],
    path: str,
    found: Found[V],
    find: Callable[[str], Found[V] | None],
) -> bool:
    """Whether a sloppy upstream would read `path`, which led to `found`, as another request."""
    try:
        other = shadow(path)
        if other is None:
            return False
        shadowed = find(other)
        if shadowed is None:
            # The path of a route that takes other methods or fields is another route's path too.
            return any(tree.leaves(other) for tree in trees)
        route, raw = found
        # The same route, but a parameter would begin or end elsewhere: what was authorized is not
        # what is served.
        return shadowed[0] is not route or any(
            sloppy(raw[name]) != unquote_to_bytes(shadowed[1][name])
            for name in route.template.singles
        )
    except AmbiguousPath:
        return True


def _allowed(trees: Sequence[Tree[V]], path: str, headers: Headers) -> list[str]:
    return _methods(
        route
        for tree in trees
        for leaf in tree.leaves(path)
        for route in leaf.routes
        if route.holds(headers)
    )


def _methods(routes: Iterable[Route[V]]) -> list[str]:
    methods = {method for route in routes for method in route.methods}
    return sorted(methods | {HEAD} if GET in methods else methods)


def _reading_order(route: Route[V]) -> tuple[object, ...]:
    wildcard = route.host.startswith("*")
    host = (not route.host, wildcard, -route.host.count(".") if wildcard else 0, route.host)
    return (*host, route.template.shape, not route.methods, -len(route.conditions), route.name)
