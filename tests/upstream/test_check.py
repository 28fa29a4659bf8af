"""One active check: which answers pass, how the others are called, and that nothing is left."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.clock import SystemClock
from gateway.config.model import UpstreamConfig
from gateway.upstream import Upstream
from gateway.upstream.check import Check, Result
from tests.support.replica import Replica
from tests.support.scripted import Peer, ScriptedUpstream, answer, answer_then_wait, respond
from tests.support.sending import PSEUDONYM, eventually

LONG = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000


@asynccontextmanager
async def checking(url: str, tls: dict[str, Any] | None = None, **health: Any) -> AsyncIterator[
    Callable[[], Awaitable[Result]]
]:  # fmt: skip
    """A check of this target, as an upstream would make it."""
    health = {"path": "/healthz?deep=1", "every": "1h", "timeout": "2s", **health}
    model = UpstreamConfig.model_validate({"targets": [url], "health": health, "tls": tls})
    upstream = Upstream(
        "orders", model, clock=SystemClock(), random=random.Random(1), pseudonym=PSEUDONYM
    )
    assert model.health is not None
    check = Check(model.health, upstream.targets[0], upstream._connector)
    upstream._supervision = None  # its own checks would be in the way
    await upstream.start()
    try:
        yield check.run
    finally:
        await upstream.aclose()


@pytest.mark.parametrize(
    ("status", "passing", "result"),
    [
        (200, ["2xx"], Result("passed")),
        (204, [200, 204], Result("passed")),
        (302, ["200-399"], Result("passed")),
        (302, ["2xx"], Result("status", "answered 302")),
        (503, ["2xx"], Result("status", "answered 503")),
    ],
)
async def test_statuses(status: int, passing: list[Any], result: Result) -> None:
    """What passes is configured; anything else is named."""
    async with Replica("a") as replica:
        replica.health = status
        async with checking(replica.url, status=passing) as check:
            assert await check() == result


async def test_what_is_asked() -> None:
    """A GET that says who asks, with the target's Host or the one that is configured."""
    async with Replica("a") as replica:
        async with checking(replica.url) as check:
            await check()
        async with checking(replica.url, host="a.internal:81") as check:
            await check()
        first, second = replica.heads
        await eventually(lambda: not replica.connections)
    assert first.decode().splitlines() == [
        "GET /healthz?deep=1 HTTP/1.1", f"Host: {replica.label}", "User-Agent: lockgate-health",
        "Accept: */*", "Connection: close", "",
    ]  # fmt: skip
    assert b"\r\nHost: a.internal:81\r\n" in second


async def close_it(peer: Peer) -> None:
    await peer.head()
    peer.close()


@pytest.mark.parametrize(
    ("script", "word", "reason"),
    [
        (answer(b"220 smtp.internal\r\n\r\n"), "invalid", "the answer is not HTTP"),
        (answer(LONG), "invalid", "a header of more than 65536 bytes"),
        (close_it, "reset", "the connection was closed without an answer"),
        (answer_then_wait(b"HTTP/1.1 200 OK\r\nX: "), "timeout", "no answer within 0.3 s"),
        (answer_then_wait(b"HTTP/1.1 103 Hm\r\n\r\n"), "timeout", "no answer within 0.3 s"),
        (answer(b"HTTP/1.1 103 Hm\r\n\r\n" + respond(b"")), "passed", ""),
    ],
)  # fmt: skip
async def test_bad_answers(script: Any, word: str, reason: str) -> None:
    """Everything that is no whole answer has a word and says what it was; then it is cut."""
    async with ScriptedUpstream(script) as server:
        async with checking(server.url, timeout="300ms") as check:
            result = await check()
            assert result.word == word
            assert result.reason.startswith(reason)
            reader = server.peers[0].reader
            await eventually(lambda: reader.exception() is not None or reader.at_eof())


async def test_nobody_listens() -> None:
    """A refused connection is a failure to connect, with the system's reason."""
    async with Replica("a") as replica:
        await replica.die()
        async with checking(replica.url) as check:
            result = await check()
    assert result.word == "connect"
    assert result.reason.endswith("Connection refused")


async def test_tls_and_unix_sockets(tmp_path: Path) -> None:
    """Checks go the way that requests go, and verify what they verify."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca)
    async with (
        Replica("a", tls=context) as secret,
        Replica("b", path=str(tmp_path / "b")) as local,
    ):
        async with checking(secret.url, {"ca": ca}) as check:
            assert await check() == Result("passed")
        async with checking(secret.url) as check:
            assert (await check()).word == "tls"
        async with checking(local.url) as check:
            assert await check() == Result("passed")


async def test_a_cancelled_check_leaves_nothing() -> None:
    """Its connection is cut."""
    async with Replica("a") as replica:
        replica.health_hangs = True
        async with checking(replica.url) as check:
            task = asyncio.ensure_future(check())
            await eventually(lambda: replica.checks == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: not replica.connections)
