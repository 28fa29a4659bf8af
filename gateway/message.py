"""What travels through the gateway: Request, Response, and the Exchange that holds both.

Bytes stay bytes: header fields are a list of `(lower-case name, value)` pairs in wire order, with
an index over them that the parser made in any case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.errors import BODY_TOO_LARGE, ClientError, ErrorCode, GatewayError, Rejection, problem

if TYPE_CHECKING:
    import asyncio

    from gateway.certificate import ClientCertificate
    from gateway.tracing import TraceContext

RawHeaders = list[tuple[bytes, bytes]]
NO_BODY: Final = b""
NOTHING_REPEATS: Final = ("", 0.0, "")
"""For `Exchange.repeats`, until something that repetitions have in common is found."""
_NO_PARAMS: Final[Mapping[str, str]] = {}


class Headers:
    """Header fields in wire order. Names are given and kept in lower case, as bytes.

    `raw` holds the pairs, `index` maps a name to its last value. Both may be read freely; change
    them only through the methods, which keep them in step. What is given to a new object belongs to
    it from then on.
    """

    __slots__ = ("index", "raw")

    def __init__(self, raw: RawHeaders, index: dict[bytes, bytes] | None = None) -> None:
        self.raw = raw
        self.index = dict(raw) if index is None else index

    def get(self, name: bytes) -> bytes | None:
        """The field's value, the last one if it stands there several times, or None."""
        return self.index.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of the field, in order."""
        if name not in self.index:
            return []
        return [value for key, value in self.raw if key == name]

    def set(self, name: bytes, value: bytes) -> None:
        """Put one field in place of all fields of that name."""
        if name in self.index:
            self.raw = [pair for pair in self.raw if pair[0] != name]
        self.raw.append((name, value))
        self.index[name] = value

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field and leave those of the same name alone."""
        self.raw.append((name, value))
        self.index[name] = value

    def remove(self, name: bytes) -> None:
        """Drop every field of that name; none there is fine."""
        if self.index.pop(name, None) is not None:
            self.raw = [pair for pair in self.raw if pair[0] != name]

    def replace(self, raw: RawHeaders) -> None:
        """Put other fields in place of all there are."""
        self.raw = raw
        self.index = dict(raw)

    def __contains__(self, name: bytes) -> bool:
        return name in self.index

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        # Names only: values may be credentials, and reprs end up in logs.
        return f"Headers({[name.decode('ascii', 'replace') for name, _ in self.raw]})"


class Request:
    """The client's request, as admission policies see it.

    `path` is the one normal form (`routing/path.py`), still percent-encoded; `query` is what stood
    behind the `?`, untouched. `body` is the whole body once it is known, or None while it streams;
    `stream` then yields its pieces. `host` is lower case, without port. `client` is the caller's
    address after trusted proxies were taken into account, `peer` the address that really connected
    (both empty on a unix socket); `trusted` says that the peer is such a proxy. `port` is the port
    the request came in at, 0 if unknown. `certificate` is the client's own, verified in the TLS
    handshake; None without one, and always None behind a server that does not tell (stock uvicorn).
    """

    # Defaults stand on the class, so that making a request sets only what it has to say.
    body: bytes | None = NO_BODY
    stream: AsyncIterator[bytes] | None = None
    client: str = ""
    peer: str = ""
    port: int = 0
    scheme: str = "http"
    http_version: str = "1.1"
    trusted: bool = False
    certificate: ClientCertificate | None = None

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        host: str = "",
        **facts: Any,
    ) -> None:
        """Make a request; `facts` are further attributes, by name."""
        # With their types, though they are the parameters': within a cycle of imports mypy, and so
        # the compiler, may come by a use of them before it has looked here.
        self.method: str = method
        self.path: str = path
        self.query: bytes = query
        self.headers: Headers = headers
        self.host: str = host
        if facts:
            for name, value in facts.items():
                setattr(self, name, value)

    async def read_body(self, limit: int) -> bytes:
        """The whole body, read if it was not yet, and kept for everyone further in.

        For policies that need it whole: `limit`, in bytes, bounds what is held in memory. What the
        upstream gets are the same bytes, with a Content-Length. Raises ClientError
        (BODY_TOO_LARGE), or what the stream raises if the client is too slow or leaves.
        """
        body = self.body
        if body is None and self.stream is not None:
            pieces: list[bytes] = []
            size = 0
            async for piece in self.stream:
                size += len(piece)
                if size > limit:
                    raise ClientError(BODY_TOO_LARGE, f"the body may have {limit} bytes here")
                pieces.append(piece)
            self.body = body = b"".join(pieces)
            self.stream = None
        elif body is None:
            body = NO_BODY
        elif len(body) > limit:
            raise ClientError(BODY_TOO_LARGE, f"the body may have {limit} bytes here")
        return body


class Response:
    """An answer on its way to the client.

    `body` is the whole body, or None if `stream` yields it in pieces. What was acquired for the
    answer is released by `on_close`, called exactly once at the end of the body or on abort.
    `error` is set if the gateway made this answer because something failed.
    """

    trailers: RawHeaders | None = None
    _on_close: list[Callable[[], None]] | None = None

    def __init__(
        self,
        status: int,
        headers: RawHeaders,
        body: bytes | None = NO_BODY,
        stream: AsyncIterator[bytes] | None = None,
        error: ErrorCode | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream
        self.error = error
        # The open upstream side of an accepted WebSocket (status 101), run by the edge.
        self.tunnel: Tunnel | None = None

    def on_close(self, release: Callable[[], None]) -> None:
        """Have `release` called when the body has ended or was given up. It must not block."""
        if self._on_close is None:
            self._on_close = [release]
        else:
            self._on_close.append(release)

    def close(self) -> None:
        """Release what the answer holds, last acquired first. Safe to call twice."""
        releases = self._on_close
        if releases is not None:
            self._on_close = None
            for release in reversed(releases):
                release()


class Tunnel(Protocol):
    """An accepted WebSocket: `run` relays until either side ends it."""

    subprotocol: str | None

    async def run(
        self,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Relay messages between the ASGI client side and the upstream; returns when both ended."""
        ...

    def abort(self) -> None:
        """Cut the upstream side at once."""
        ...


@dataclass(frozen=True)
class Principal:
    """Who the caller was proved to be: `identity` says by which of the configuration's identities.

    `tier` is what `consumers:` says of it, empty if nothing. One object may serve many requests.
    """

    consumer: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    identity: str = ""
    tier: str = ""


class Exchange:
    """One client request and its answer, with what the policies say about it on the way.

    Times are `Clock.monotonic` seconds. `deadline` is absolute, or None for no bound.
    `reply_headers` go on whatever answer leaves, refusals included. `on_finish` is called with the
    exchange once the answer is out or given up. `upstream_seconds` is the upstream's share of the
    time, waiting and streaming. `state` is for plugins; keys should be their names.
    """

    # Defaults stand on the class, so that making an exchange sets only what every one has.
    route: str = ""
    generation: int = 0
    params: Mapping[str, str] = _NO_PARAMS
    # The same as they stood in the path, still encoded, for putting into another path.
    raw_params: Mapping[str, str] = _NO_PARAMS
    # Why the edge found no route for it; the chain of unmatched requests ends with this.
    refusal: Rejection | None = None
    correlation_id: str = ""
    trace: TraceContext | None = None
    principal: Principal | None = None
    deadline: float | None = None
    timed_out: bool = False
    client_gone: bool = False
    task: asyncio.Task[Any] | None = None
    # The task that goes on when the client leaves, if a policy put the rest of the chain into one.
    work: asyncio.Task[Any] | None = None
    # Resets the client's connection without an answer, where the server can.
    cut: Callable[[], None] | None = None
    client_informational: Callable[[int, RawHeaders], None] | None = None
    # What a WebSocket handshake offers; None for every other exchange.
    subprotocols: list[str] | None = None
    upstream: str = ""
    target: str = ""
    # What a retry policy allows: how many more tries (None: there is no such policy), and seconds
    # until an attempt's head must be there. `attempts` counts tries, those that only connected too.
    attempts: int = 1
    attempts_left: int | None = None
    attempt_timeout: float | None = None
    # Labels of the targets that failed this exchange, so that another one is taken.
    tried: set[str] | None = None
    upstream_seconds: float = 0.0
    upstream_status: int = 0
    response_status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    error: ErrorCode | None = None
    error_detail: str = ""
    reported: list[str] | None = None
    # Which side of a canary answered: stable or canary; empty on routes without one.
    side: str = ""
    # How the cache answered, on routes that have one; see policies/cache/status.py.
    cache: str = ""
    # Why the request breaks its contract, on routes that keep such requests instead of refusing.
    invalid: Rejection | None = None
    # On asynchronous routes, which tell repetitions of an event by themselves: the name that they
    # have in common, for how many seconds it is known, and what must be the same in all of them.
    repeats: tuple[str, float, str] | None = None
    # A second such name, if it has two: that of a signed delivery beside its idempotency key.
    repeats_also: tuple[str, float, str] | None = None
    state: dict[str, Any] | None = None

    def __init__(self, request: Request, started: float) -> None:
        self.request = request
        self.started = started
        self.reply_headers: RawHeaders = []
        self.on_finish: list[Callable[[Exchange], None]] = []

    def refuse(self, failure: Rejection | GatewayError) -> Response:
        """The problem response for a refusal or a failure, noted for log and metrics."""
        self.fail(failure)
        status, headers, body = problem(failure, self.correlation_id)
        return Response(status, headers, body, error=failure.kind)

    def abandon(self) -> None:
        """End the exchange because the client left: whatever it awaits is cancelled."""
        self.client_gone = True
        if self.task is not None:
            self.task.cancel()

    def expire(self) -> None:
        """End the exchange because its deadline passed: whatever it awaits is cancelled."""
        self.timed_out = True
        task = self.work or self.task
        if task is not None:
            task.cancel()

    def may_try_another(self, failed: str) -> bool:
        """Whether another target may be connected to after `failed`, by its label.

        As often as the retry policy allows; without one, as often as there are targets.
        """
        if self.attempts_left is None:
            return True
        if self.attempts_left <= 0:
            return False
        self.attempts_left -= 1
        self.attempts += 1
        self.tried = {*(self.tried or ()), failed}
        return True

    def fork(self, task: asyncio.Task[Any] | None) -> Exchange:
        """The same exchange for one more attempt beside the first, awaited in another `task`.

        It begins with nothing spent on the upstream; who forks it takes over what it found out.
        """
        twin = Exchange(self.request, self.started)
        twin.reply_headers = self.reply_headers
        twin.on_finish = self.on_finish
        twin.route, twin.generation = self.route, self.generation
        twin.params, twin.raw_params = self.params, self.raw_params
        twin.correlation_id, twin.trace = self.correlation_id, self.trace
        twin.principal, twin.deadline = self.principal, self.deadline
        twin.client_informational, twin.state = self.client_informational, self.state
        twin.attempt_timeout = self.attempt_timeout
        # No failing over by itself: what more is tried is up to whoever forked it.
        twin.attempts_left = 0
        twin.tried = {*(self.tried or ()), self.target}
        twin.task = task
        return twin

    def fail(self, failure: Rejection | GatewayError) -> None:
        """Note what went wrong, for the log and the metrics; the first failure wins."""
        if self.error is None:
            self.error = failure.kind
            self.error_detail = failure.detail


Handler = Callable[[Exchange], Awaitable[Response]]
