"""Pieces of the hot path on their own: microseconds each, best of several runs.

For finding out what a change did, not for comparing: nothing here is judged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.report import Row, reported
from bench.session import Session
from gateway.clock import SystemClock
from gateway.config.model import AccessLogConfig, MatchConfig, RedactConfig, StoreConfig
from gateway.config.model_token import JwtIdentity
from gateway.contracts.schema import Schema
from gateway.contracts.strict_json import decode
from gateway.http1.head import parse_request_head, parse_response_head
from gateway.message import Exchange, Headers, Principal, Request
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import Metrics
from gateway.observability.store_series import StoreSeries
from gateway.policies.auth import remembered
from gateway.policies.auth.claims import Reader
from gateway.policies.auth.policy import AuthConfig, AuthPolicy
from gateway.policies.auth.signed import SignedToken
from gateway.routing.path import normalise
from gateway.routing.table import Entry, RouteTable
from gateway.store.opening import open_store
from gateway.store.script import Script

CALLS = 20_000
REPEATS = 5
AT_ONCE = 32
ROUTES = 10_000
REQUEST = (
    b"GET /v1/service7/items/42?expand=lines HTTP/1.1\r\nHost: api.internal\r\n"
    b"User-Agent: bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n"
)

_LINE = {
    "type": "object",
    "required": ["sku", "quantity", "price"],
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"},
        "quantity": {"type": "integer", "minimum": 1},
        "price": {"type": "number", "minimum": 0},
        "note": {"type": "string", "maxLength": 200},
    },
    "additionalProperties": False,
}
ORDER_SCHEMA = {
    "type": "object",
    "required": ["id", "created", "customer", "status", "lines"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "created": {"type": "string", "format": "date-time"},
        "customer": {"type": "object", "properties": {"email": {"format": "email"}}},
        "status": {"enum": ["open", "shipped", "cancelled"]},
        "lines": {"type": "array", "items": _LINE, "minItems": 1, "maxItems": 1000},
    },
}
# As clients in Python write it: with spaces, which is not the fastest to read.
ORDER = json.dumps(
    {
        "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "created": "2026-11-22T12:00:00Z",
        "customer": {"email": "ann@example.com", "name": "Ann Bee"},
        "status": "open",
        "lines": [
            {"sku": f"A-{n}", "quantity": n + 1, "price": 9.99 + n, "note": "mind the step"}
            for n in range(11)
        ],
    }
).encode()


def measure(_: Session) -> list[Row]:
    """One row for each piece."""
    rows = []
    for name, call in pieces().items():
        call()
        best = min(timeit.repeat(call, number=CALLS, repeat=REPEATS)) / CALLS
        rows.append(reported(f"piece: {name}", f"{best * 1e6:.2f} us"))
    best = min(asyncio.run(_log_lines()) for _ in range(REPEATS)) / CALLS
    rows.append(reported("piece: write an access log line", f"{best * 1e6:.2f} us"))
    for at_once in (1, AT_ONCE):
        best = min(uvloop.run(_store_calls(at_once)) for _ in range(REPEATS)) / CALLS
        rows.append(
            reported(f"piece: a script in the store, {at_once} at once", f"{best * 1e6:.2f} us")
        )
    return rows


def pieces() -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    table, headers = _table(), Headers([(b"host", b"api.internal")])
    schema = Schema(ORDER_SCHEMA)
    auth, authorized = _remembering()
    series = Metrics(SystemClock()).route("orders.read")
    return {
        "parse a request's head": lambda: parse_request_head(REQUEST),
        "parse a response's head": lambda: parse_response_head(RESPONSE, "GET"),
        "normal form of a path": lambda: normalise(b"/v1/service7/items/42"),
        f"match a route of {ROUTES:,}": lambda: table.match(
            "api.internal", "/v1/service7777/items/42", "GET", headers
        ),
        f"validate a {len(ORDER)} byte body": lambda: schema.check(decode(ORDER), "body"),
        "a remembered token": lambda: auth.check(authorized),
        "count an exchange": lambda: series.finish("GET", 200, "", 0.002, "orders", 0.0015),
    }


async def _store_calls(at_once: int) -> float:
    """Seconds of CPU of this process for all calls, on the embedded engine."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(
            StoreConfig.model_validate({"timeout": "5s"}),
            Path(folder),
            clock=SystemClock(),
            rng=random.Random(),
            series=StoreSeries(),
        )
        await store.start()
        script = Script.of(b"return {redis.call('INCR', KEYS[1]), ARGV[1]}")

        async def caller() -> None:
            for _ in range(CALLS // at_once):
                await store.run(script, (b"{bench}",), (b"1", b"2", b"3"))

        await store.run(script, (b"{bench}",), (b"1",))
        began = time.process_time()
        await asyncio.gather(*(caller() for _ in range(at_once)))
        seconds = time.process_time() - began
        await store.aclose()
    return seconds


async def _log_lines() -> float:
    """Seconds for all calls, as many lines in one iteration of the loop as wrk has connections."""
    config = AccessLogConfig(to=os.devnull)
    clock = SystemClock()
    log = AccessLog(config, RedactConfig(), clock, Metrics(clock))
    exchange = _exchange()
    began = time.perf_counter()
    for _ in range(CALLS // AT_ONCE):
        for _ in range(AT_ONCE):
            log.write(exchange, 0.002)
        await asyncio.sleep(0)
    seconds = time.perf_counter() - began
    await log.aclose()
    return seconds


def _remembering() -> tuple[AuthPolicy, Exchange]:
    """A policy that has verified the token of this exchange before; 800 bytes, as they come."""
    clock = SystemClock()
    config = JwtIdentity(type="jwt", issuer="https://idp.internal", audience="orders-api")
    reader = Reader("staff", consumer="sub", scopes="scope", require={}, tiers={})
    source: Any = None  # not asked for what is remembered
    identity = SignedToken("staff", config, source, reader, clock)
    credentials = b"Bearer " + b"x" * 800
    principal = Principal("ada", {"sub": "ada"}, frozenset({"orders:read"}), "staff")
    identity.remembered.add(credentials, remembered.Entry(principal, 0.0, clock.wall() + 1e6))
    exchange = _exchange()
    exchange.request.headers = Headers(
        [(b"host", b"api.internal"), (b"authorization", credentials), (b"accept", b"*/*")]
    )
    policy = AuthPolicy(AuthConfig(any=["staff"], scopes=["orders:read"]), [identity])
    assert policy.check(exchange) is None
    return policy, exchange


def _table() -> RouteTable[int]:
    return RouteTable.build(
        Entry(
            f"service{n}.read", MatchConfig(path=f"/v1/service{n}/items/{{id}}", methods=["GET"]), n
        )
        for n in range(ROUTES)
    )


def _exchange() -> Exchange:
    fields = Headers([(b"user-agent", b"bench/1")])
    request = Request(
        "GET", "/v1/orders/1001", b"expand=lines", fields, host="api.internal", client="127.0.0.1"
    )
    exchange = Exchange(request, 0.0)
    exchange.route, exchange.upstream, exchange.target = "orders.read", "orders", "127.0.0.1:8081"
    exchange.correlation_id = "0" * 32
    exchange.upstream_status = exchange.response_status = 200
    exchange.upstream_seconds, exchange.bytes_out = 0.0015, 1024
    return exchange
