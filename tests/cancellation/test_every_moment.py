"""Cancellation at every await: of each Around alone, and of whole exchanges, turn by turn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Generator
from pathlib import Path
from types import coroutine
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.config.model import GatewayConfig, ServerConfig, TelemetryConfig
from gateway.errors import ACCESS_DENIED, Refused, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.observability.metrics import Metrics
from gateway.policies.base import Around, BuildContext
from gateway.policies.catalog import BUILTIN
from gateway.policies.compile import compile_chain
from tests.support.gateway import RunningGateway, routes, run_gateway
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer, echo
from tests.support.sending import make_exchange

# How long a timer of a policy could at most fire late, if one were left behind.
TIMEOUT = "30ms"
CONFIGS: dict[str, Any] = {
    "cors": {"origins": ["https://app.internal"]},
    "headers": {"response": {"set": {"X-A": "b"}}},
    "retry": {"attempts": 3, "backoff": {"base": "1ms"}},
    "hedge": {"after": "10ms"},
    "circuit_breaker": {},
    "bulkhead": {"max_concurrent": 1},
    "timeout": TIMEOUT,
}
# Those that can't be stepped by hand, because they wait for a task, a timer or the store; and where
# they are cancelled instead.
ELSEWHERE = {
    "canary": "tests/e2e/test_canary.py",
    "mirror": "tests/e2e/test_mirror.py",
    "cache": "tests/e2e/test_cache.py",
    "delivery": "tests/e2e/test_delivery.py",
    "delivery_status": "tests/e2e/test_delivery.py",
    "fault": "tests/e2e/test_fault_injection.py",
    "idempotency": "tests/e2e/test_idempotency.py",
    "upstream_auth": "tests/policies/test_upstream_auth.py",
}
AROUNDS = [
    policy
    for policy in (builtin.load() for builtin in BUILTIN.values())
    if issubclass(policy, Around) and policy.name not in ELSEWHERE
]


class Refusing(Around):
    """An Around that refuses, to be softened by report mode."""

    name = "refusing"

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        await turn()
        raise Refused(Rejection(ACCESS_DENIED))


@coroutine
def turn() -> Generator[None, None, None]:
    """An await that gives the loop, or whoever drives, one chance to cancel."""
    yield


class Inside:
    """What stands further in: takes something, awaits three times, and gives it back at the end.

    `held` counts what is taken and not given back, by the answer or by the one who was cancelled.
    """

    def __init__(self) -> None:
        self.held = 0

    async def handle(self, exchange: Exchange) -> Response:
        self.held += 1
        try:
            for _ in range(3):
                await turn()
        except BaseException:
            self.held -= 1
            raise
        response = Response(200, [], None, None)
        response.on_close(self._release)
        return response

    def _release(self) -> None:
        self.held -= 1


def drive(running: Coroutine[Any, Any, Response], cancel_at: int) -> Response | None:
    """Step a coroutine, and cancel it at its await number `cancel_at`. None if it was cancelled."""
    try:
        for _ in range(cancel_at):
            running.send(None)
        running.throw(asyncio.CancelledError)
    except StopIteration as ended:
        return ended.value
    except asyncio.CancelledError:
        return None
    raise AssertionError("the cancellation was swallowed")


def context() -> BuildContext:
    clock = SystemClock()
    return BuildContext(
        route="test",
        config=GatewayConfig(),
        server=ServerConfig(),
        telemetry=TelemetryConfig(),
        clock=clock,
        random=random.Random(1),
        metrics=Metrics(clock),
        access_log=None,
        base_dir=Path(),
        shared=lambda key, factory: factory(),
    )


def arounds() -> dict[str, tuple[Around, frozenset[str]]]:
    """Each Around by name, with the names of those in report mode."""
    found: dict[str, tuple[Around, frozenset[str]]] = {}
    for policy in AROUNDS:
        config = policy.Config.model_validate(CONFIGS[policy.name])
        built = policy.build(config, context())
        assert isinstance(built, Around)
        found[policy.name] = built, frozenset()
        found[f"{policy.name}, reporting"] = built, frozenset({policy.name})
    found["a softened refusal"] = Refusing(), frozenset({"refusing"})
    return found


def test_the_others_are_cancelled_elsewhere() -> None:
    """Every Around is in this file, or named in one that is there."""
    assert set(ELSEWHERE) <= set(BUILTIN)
    assert all(Path(file).is_file() for file in ELSEWHERE.values())


@pytest.mark.parametrize("name", list(arounds()))
async def test_each_around(name: str) -> None:
    """At whichever await it is cancelled, what is further in gives back all it took."""
    around, reporting = arounds()[name]
    awaits = 0
    while True:
        inside, exchange = Inside(), make_exchange()
        handler = compile_chain([around], inside.handle, reporting, lambda *_: None)
        running = handler(exchange)
        assert asyncio.iscoroutine(running)
        if awaits == 0:
            # Before its first step: nothing was taken yet.
            running.close()
            awaits = 1
            continue
        response = drive(running, awaits)
        if response is not None:
            assert inside.held == 1
            response.close()
        assert inside.held == 0, f"held after a cancellation at await {awaits}"
        if response is not None:
            break
        awaits += 1
    assert awaits > 3
    await asyncio.sleep(0.06)
    assert not exchange.timed_out, "a timer was left behind"


async def leave_after(gateway: RunningGateway, data: bytes, turns: int, *, read: bool) -> None:
    async with gateway.raw() as client:
        client.writer.write(data)
        for _ in range(turns):
            await asyncio.sleep(0)
        if read and turns % 2:
            await client.reader.read(1)
        client.reset()


async def _stream(peer: Peer) -> None:
    """Answers in many small pieces, with the loop's turns in between."""
    while True:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0)
        await peer.send(b"0\r\n\r\n")


@pytest.mark.parametrize("stock", [False, True], ids=["lean", "stock"])
@pytest.mark.parametrize(
    ("script", "data"),
    [
        (answer(OK), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (_stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (echo, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
        (echo, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n"),
        (answer(OK), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3),
    ],
    ids=["whole", "stream", "upload", "half an upload", "pipelined"],
)
async def test_whole_exchanges(tmp_path: Path, stock: bool, script: Any, data: bytes) -> None:
    """The client is gone after each number of turns of the loop, from none to long past the end."""
    async with ScriptedUpstream(script) as upstream:
        async with run_gateway(tmp_path, routes(upstream.url), stock=stock) as gateway:
            for turns in range(40):
                await leave_after(gateway, data, turns, read=script is _stream)
            await gateway.quiet()
            async with gateway.raw() as client:
                got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert got.status == 200
            await gateway.quiet()
