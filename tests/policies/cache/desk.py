"""The cache policy of one route on a clock of the test's own, with an origin that is a function.

desk = Desk(ttl="30s")
got = await desk.ask("GET", reply=answer(("cache-control", "max-age=60")))
assert got.how == "fetched"
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.config.model import GatewayConfig, ServerConfig, TelemetryConfig
from gateway.errors import GatewayError
from gateway.message import Exchange, Headers, Principal, Request, Response
from gateway.observability.metrics import Metrics
from gateway.policies.base import BuildContext
from gateway.policies.cache.config import CacheConfig
from gateway.policies.cache.directives import format_date
from gateway.policies.cache.policy import CachePolicy
from gateway.store.base import Store

START = 1_700_000_000.0
Fields = tuple[tuple[str, str], ...]
Origin = Callable[[Exchange], Awaitable[Response]]


@dataclass
class Reply:
    """What the origin says. `{now+N}` in a value is the HTTP-date N seconds from then."""

    fields: Fields = ()
    status: int = 200
    body: bytes = b"one"
    streams: bool = False
    fails: GatewayError | None = None


def reply(*fields: str, **facts: Any) -> Reply:
    """A reply with these header lines."""
    pairs = [line.partition(": ") for line in fields]
    return Reply(tuple((name.lower(), value) for name, _, value in pairs), **facts)


@dataclass
class Got:
    """What a client got, and what the origin was asked for it, None if nothing."""

    status: int
    headers: Headers
    body: bytes
    asked: Headers | None = None
    method: str = ""

    @property
    def how(self) -> str:
        """`fetched` from the origin, `validated` there, or `stored` before."""
        if self.asked is None:
            return "stored"
        conditions = {b"if-none-match", b"if-modified-since"} & self.asked.index.keys()
        return "validated" if conditions else "fetched"

    @property
    def cache_status(self) -> str:
        """What this cache said, without its name."""
        value = (self.headers.get(b"cache-status") or b"").decode()
        return value.removeprefix("lockgate; ")

    def get(self, name: str) -> str | None:
        """A field of the answer."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body as it would stream, in two pieces."""
    half = len(body) // 2
    for piece in (body[:half], body[half:]):
        if piece:
            yield piece


def make_context(clock: ManualClock, **facts: Any) -> BuildContext:
    """What a policy is built with."""
    kept: dict[tuple[object, ...], Any] = {}
    given: dict[str, Any] = {
        "route": "test",
        "config": GatewayConfig(),
        "server": ServerConfig(),
        "telemetry": TelemetryConfig(),
        "clock": clock,
        "random": random.Random(7),
        "metrics": Metrics(clock),
        "access_log": None,
        "base_dir": Path(),
        "shared": lambda key, factory: (
            kept[key] if key in kept else kept.setdefault(key, factory())
        ),
    }
    return BuildContext(**{**given, **facts})


class Desk:
    """A route with `cache: config`. What the origin says next is given with each `ask`."""

    def __init__(
        self, *, store: Store | None = None, clock: ManualClock | None = None, **config: Any
    ) -> None:
        self.clock = clock or ManualClock(START)
        given = {} if store is None else {"store": lambda: store}
        self.context = make_context(self.clock, **given)
        self.policy = CachePolicy.build(CacheConfig.model_validate(config), self.context)
        self.memory = self.policy._memory
        self.asked: list[Exchange] = []
        self.headers_sent: list[Headers] = []

    async def tier_idle(self) -> None:
        """Wait until what was to be put into the store is there."""
        assert self.policy._tier is not None
        while tasks := list(self.policy._tier._tasks):
            await asyncio.gather(*tasks)

    def exchange(
        self, method: str, path: str, *fields: str, principal: Principal | None = None
    ) -> Exchange:
        """An exchange of a client's."""
        pairs = [line.partition(": ") for line in ("host: api.test", *fields)]
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, _, value in pairs]
        path, _, query = path.partition("?")
        exchange = Exchange(Request(method, path, query.encode(), Headers(raw)), 0.0)
        exchange.route = "test"
        exchange.principal = principal
        return exchange

    def respond(self, said: Reply) -> Response:
        """The origin's reply as the chain gives it back."""
        if said.fails is not None:
            raise said.fails
        raw = [(name.encode(), self._dated(value)) for name, value in said.fields]
        if said.status not in (204, 304):
            raw.append((b"content-length", b"%d" % len(said.body)))
        if said.streams:
            return Response(said.status, raw, None, pieces(said.body))
        return Response(said.status, raw, b"" if said.status in (204, 304) else said.body)

    def _dated(self, value: str) -> bytes:
        if value.startswith("{now"):
            return format_date(self.clock.wall() + float(value[4:-1] or 0))
        return value.encode("latin-1")

    async def ask(
        self,
        method: str = "GET",
        path: str = "/a",
        *fields: str,
        reply: Reply | None = None,
        principal: Principal | None = None,
    ) -> Got:
        """One request, read to its end. Without a `reply`, the origin must not be asked."""
        asked: list[tuple[Headers, str]] = []

        async def origin(exchange: Exchange) -> Response:
            request = exchange.request
            asked.append((Headers(list(request.headers.raw)), request.method))
            assert reply is not None, "the origin was asked"
            said = reply
            if method == "HEAD":
                said = Reply(said.fields, said.status, said.body)
                answer = self.respond(said)
                answer.body = b""
                return answer
            return self.respond(said)

        exchange = self.exchange(method, path, *fields, principal=principal)
        response = await self.policy.handle(exchange, origin)
        body = response.body
        if body is None:
            assert response.stream is not None
            body = b"".join([piece async for piece in response.stream])
        response.close()
        seen, how = asked[0] if asked else (None, "")
        return Got(response.status, Headers(list(response.headers)), body, seen, how)
