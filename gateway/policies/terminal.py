"""What stands at the end of a chain: forward to the upstream, answer by itself, or refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from gateway.errors import (
    AMBIGUOUS_PATH,
    METHOD_NOT_ALLOWED,
    ROUTE_NOT_FOUND,
    ConfigError,
    Rejection,
)
from gateway.message import Exchange, Handler, RawHeaders, Response
from gateway.routing.table import Match
from gateway.routing.template import Template, TemplateError
from gateway.upstream.client import Upstream

if TYPE_CHECKING:
    from gateway.config.model import RespondConfig, RouteConfig

_FRAMING: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade"}
)


class QueryRewrite:
    """Takes parameters out of a query and appends others, touching nothing else in it."""

    __slots__ = ("_added", "_removed")

    def __init__(self, add: Mapping[str, str], remove: list[str]) -> None:
        self._removed = frozenset(remove)
        self._added = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in add.items()
        ).encode("ascii")

    def apply(self, query: bytes) -> bytes:
        """The query that the upstream gets, without the leading question mark."""
        parts = [query] if query else []
        if self._removed and query:
            parts = [part for part in query.split(b"&") if _name(part) not in self._removed]
        if self._added:
            parts.append(self._added)
        return b"&".join(parts)


def _name(part: bytes) -> str:
    return unquote_plus(part.partition(b"=")[0].decode("latin-1"), "utf-8", "replace")


class Forward:
    """The terminal that calls the upstream, with the path, query and Host that the route asks for.

    Raises ConfigError, when it is built, if `rewrite.path` uses a parameter that the route's path
    does not have.
    """

    __slots__ = ("_host", "_path", "_query", "upstream")

    def __init__(self, upstream: Upstream, route: RouteConfig) -> None:
        self.upstream = upstream
        self._path: Template | None = None
        self._query: QueryRewrite | None = None
        self._host = "preserve"
        rewrite = route.rewrite
        if rewrite is None:
            return
        self._host = rewrite.host
        if rewrite.query.add or rewrite.query.remove:
            self._query = QueryRewrite(rewrite.query.add, rewrite.query.remove)
        if rewrite.path is not None:
            try:
                self._path = Template(rewrite.path)
                self._path.check_expands(Template(route.match.path))
            except TemplateError as error:
                raise ConfigError(error.reason, "rewrite.path") from error

    def target(self, path: str, query: bytes, raw_params: Mapping[str, str]) -> bytes:
        """The request target that the upstream gets: path and query, as they go on the wire."""
        if self._path is not None:
            path = self._path.expand(raw_params)
        if self._query is not None:
            query = self._query.apply(query)
        return b"%b?%b" % (path.encode("ascii"), query) if query else path.encode("ascii")

    def handle(self, exchange: Exchange) -> Awaitable[Response]:
        """Call the upstream; the call itself, to be awaited, so that nothing stands in between."""
        request = exchange.request
        target = self.target(request.path, request.query, exchange.raw_params)
        if exchange.subprotocols is not None:
            return self.upstream.connect_websocket(exchange, target, self._host)
        return self.upstream.send(exchange, request.method, target, self._host)


def respond(config: RespondConfig) -> Handler:
    """The terminal that gives one fixed answer.

    Raises ConfigError if it is to have a field that belongs to the connection.
    """
    body, kind = config.encoded()
    headers: RawHeaders = [
        (name.lower().encode("ascii"), value.encode("latin-1", "replace"))
        for name, value in config.headers.items()
    ]
    for (name, _), key in zip(headers, config.headers, strict=True):
        if name in _FRAMING:
            raise ConfigError("the gateway frames its answers itself", f"respond.headers.{key}")
    if kind and b"content-type" not in {name for name, _ in headers}:
        headers.append((b"content-type", kind.encode("ascii")))
    status = config.status
    if status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))

    async def handle(exchange: Exchange) -> Response:
        return Response(status, headers, b"" if exchange.request.method == "HEAD" else body)

    return handle


async def refuse_unmatched(exchange: Exchange) -> Response:
    """The end of the chain of requests that no route takes: the reason that the edge found."""
    return exchange.refuse(exchange.refusal or Rejection(ROUTE_NOT_FOUND))


def refusal_of(match: Match[Any]) -> Rejection:
    """Why the route table has no route for a request."""
    if match.ambiguous:
        return Rejection(AMBIGUOUS_PATH, "decoded once more, the path leads elsewhere")
    if match.allowed:
        return method_not_allowed(match.allowed)
    return Rejection(ROUTE_NOT_FOUND)


def method_not_allowed(allowed: Sequence[str]) -> Rejection:
    """A 405 with the Allow field that it owes (RFC 9110 section 15.5.6)."""
    allow = ", ".join(allowed)
    return Rejection(METHOD_NOT_ALLOWED, f"this path takes {allow}", [(b"allow", allow.encode())])
