"""Requests that wait for one another: who leads, who follows, and what ends the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import CONNECT_FAILED, UPSTREAM_RESET, UpstreamError
from gateway.message import Exchange, Response
from tests.policies.cache.desk import Desk, Reply, reply

FRESH = reply("Cache-Control: max-age=60", body=b"one")


class SlowOrigin:
    """An origin that answers when told. `calls` is how often it was asked."""

    def __init__(self, desk: Desk, said: Reply = FRESH) -> None:
        self.desk = desk
        self.said = said
        self.calls = 0
        self.waiting: list[asyncio.Event] = []
        self.cancelled = 0

    async def __call__(self, exchange: Exchange) -> Response:
        self.calls += 1
        go = asyncio.Event()
        self.waiting.append(go)
        try:
            await go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.desk.respond(self.said)

    def ask(self, *fields: str, method: str = "GET") -> asyncio.Task[Response]:
        """A request that goes to this origin if it must."""
        exchange = self.desk.exchange(method, "/a", *fields)
        return asyncio.ensure_future(self.desk.policy.handle(exchange, self))

    def go(self) -> None:
        """Let everybody have an answer."""
        for event in self.waiting:
            event.set()


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def words(response: Response) -> str:
    return dict(response.headers)[b"cache-status"].decode().removeprefix("lockgate; ")


def assert_quiet(desk: Desk) -> None:
    """Nothing is under way, and nobody waits."""
    assert len(desk.policy._flights) == 0
    assert desk.memory._fetching == {}
    assert desk.policy._state.refreshing == 0


async def test_one_request_for_all() -> None:
    """Concurrent misses of one key wait for one call of the upstream."""
    desk = Desk()
    origin = SlowOrigin(desk)
    tasks = [origin.ask() for _ in range(50)]
    await settle()
    assert origin.calls == 1
    origin.go()
    answers = await asyncio.gather(*tasks)

    assert {answer.body for answer in answers} == {b"one"}
    assert [words(answer) for answer in answers] == [
        "fwd=uri-miss; stored", *["fwd=uri-miss; collapsed"] * 49,
    ]  # fmt: skip
    assert_quiet(desk)


async def test_head_follows_but_does_not_lead() -> None:
    """HEAD can use what GET fetches, not the other way round."""
    desk = Desk()
    origin = SlowOrigin(desk)
    head = origin.ask(method="HEAD")
    await settle()
    get = origin.ask()
    await settle()
    follower = origin.ask(method="HEAD")
    await settle()
    assert origin.calls == 2
    origin.go()
    assert (await follower).body == b""
    assert words(await follower) == "fwd=uri-miss; collapsed"
    await asyncio.gather(head, get)
    assert_quiet(desk)


@pytest.mark.parametrize(
    "said",
    [
        reply("Cache-Control: no-store"),
        reply("Cache-Control: private"),
        reply(),
        Reply(status=503),
        reply("Cache-Control: max-age=60", "Set-Cookie: a=b"),
        reply("Cache-Control: max-age=60", body=b"x" * 2000),
        reply("Cache-Control: no-cache", 'ETag: "a"'),
    ],
)
async def test_an_answer_that_is_not_shared_releases_all(said: Reply) -> None:
    """All go on at once, each by itself, and later ones do not wait at all for a while."""
    desk = Desk(max_entry=1000)
    origin = SlowOrigin(desk, said)
    tasks = [origin.ask() for _ in range(10)]
    await settle()
    assert origin.calls == 1
    origin.go()
    await settle()
    assert origin.calls == 10
    tasks += [origin.ask() for _ in range(5)]
    await settle()
    assert origin.calls == 15
    origin.go()
    await asyncio.gather(*tasks)
    assert_quiet(desk)


async def test_the_leaders_client_leaves() -> None:
    """A follower leads in its place; the followers get their answers, from one more call."""
    desk = Desk()
    origin = SlowOrigin(desk)
    leader = origin.ask()
    await settle()
    followers = [origin.ask() for _ in range(10)]
    await settle()
    leader.cancel()
    await settle()
    assert (origin.calls, origin.cancelled) == (2, 1)
    origin.go()
    answers = await asyncio.gather(*followers)
    assert {answer.body for answer in answers} == {b"one"}
    assert origin.calls == 2
    assert_quiet(desk)


async def test_a_followers_client_leaves() -> None:
    """The others go on as if it had never been there."""
    desk = Desk()
    origin = SlowOrigin(desk)
    tasks = [origin.ask() for _ in range(10)]
    await settle()
    for task in tasks[3:6]:
        task.cancel()
    await settle()
    origin.go()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [False] * 3 + [True] * 3 + [False] * 4
    assert origin.calls == 1
    assert_quiet(desk)


async def test_everybody_leaves() -> None:
    """The upstream call ends with the last of them."""
    desk = Desk()
    origin = SlowOrigin(desk)
    tasks = [origin.ask() for _ in range(10)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert origin.calls == origin.cancelled
    assert_quiet(desk)


async def test_waiting_is_bounded() -> None:
    """Who has waited long enough asks by itself, and stands in for the slow leader."""
    desk = Desk(coalesce="20ms")
    slow, quick = SlowOrigin(desk), SlowOrigin(desk)
    leader = slow.ask()
    await settle()
    follower = quick.ask()
    await settle()
    assert quick.calls == 0
    async with asyncio.timeout(10):
        while not quick.calls:
            await asyncio.sleep(0.005)
            # The policy's clock is the test's; the loop's timer wakes the follower.
            desk.clock.advance(0.02)
    another = quick.ask()
    await settle()
    assert quick.calls == 1
    quick.go()
    assert words(await follower) == "fwd=uri-miss; stored; collapsed"
    assert words(await another) == "fwd=uri-miss; collapsed"
    slow.go()
    await leader
    assert_quiet(desk)


async def test_switched_off() -> None:
    """`coalesce: 0s` sends each request to the upstream."""
    desk = Desk(coalesce="0s")
    origin = SlowOrigin(desk)
    tasks = [origin.ask() for _ in range(5)]
    await settle()
    assert origin.calls == 5
    origin.go()
    await asyncio.gather(*tasks)
    assert_quiet(desk)


async def test_the_leader_fails() -> None:
    """A failure is the leader's alone: the next one tries, and not all of them at once."""
    desk = Desk()
    fails = True
    calls = 0

    async def origin(exchange: Exchange) -> Response:
        nonlocal calls, fails
        calls += 1
        await settle()
        if fails:
            fails = False
            raise UpstreamError(CONNECT_FAILED)
        return desk.respond(FRESH)

    tasks = [
        asyncio.ensure_future(desk.policy.handle(desk.exchange("GET", "/a"), origin))
        for _ in range(10)
    ]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, UpstreamError) for answer in answers) == 1
    assert calls == 2
    assert_quiet(desk)


async def test_variants_do_not_share() -> None:
    """A follower of another variant gets an answer of its own."""
    desk = Desk()
    origin = SlowOrigin(desk, reply("Cache-Control: max-age=60", "Vary: Foo"))
    tasks = [origin.ask(f"Foo: {number % 3}") for number in range(9)]
    await settle()
    assert origin.calls == 1
    origin.go()
    await settle()
    origin.go()
    await settle()
    origin.go()
    await asyncio.gather(*tasks)
    assert origin.calls == 3
    # From now on Vary is known, and they do not wait for one another at all.
    desk.clock.advance(61)
    origin.waiting.clear()
    tasks = [origin.ask(f"Foo: {number % 3}") for number in range(9)]
    await settle()
    assert origin.calls == 6
    origin.go()
    await asyncio.gather(*tasks)
    assert_quiet(desk)


@pytest.mark.parametrize(
    "fields",
    [("Cache-Control: no-cache",), ("Range: bytes=0-1",), ("Cache-Control: max-age=0",)],
)
async def test_who_asks_for_the_origin_does_not_wait(fields: tuple[str, ...]) -> None:
    """A request that wants the origin's word gets it, whoever else is on the way."""
    desk = Desk()
    origin = SlowOrigin(desk)
    leader = origin.ask()
    await settle()
    origin.go()
    await leader
    desk.clock.advance(61)
    leader = origin.ask()
    await settle()
    other = origin.ask(*fields)
    await settle()
    assert origin.calls == 3
    origin.go()
    await asyncio.gather(leader, other)
    assert_quiet(desk)


async def test_unsafe_methods_never_wait() -> None:
    """Two POSTs are two POSTs."""
    desk = Desk()
    origin = SlowOrigin(desk)
    tasks = [origin.ask(method="POST") for _ in range(3)]
    await settle()
    assert origin.calls == 3
    origin.go()
    await asyncio.gather(*tasks)
    assert_quiet(desk)


class Trickle:
    """A body whose pieces come one at a time, when told."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.more = asyncio.Semaphore(0)
        self.left = 3
        self.breaks = breaks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await self.more.acquire()
        self.left -= 1
        if self.left < 0:
            if self.breaks:
                raise UpstreamError(UPSTREAM_RESET)
            raise StopAsyncIteration
        return b"%d" % self.left


async def test_followers_of_a_body_that_streams() -> None:
    """They wait until it is whole; the leader gets each piece as it comes."""
    desk = Desk()
    body = Trickle()

    async def origin(exchange: Exchange) -> Response:
        return Response(200, [(b"cache-control", b"max-age=60")], None, body)

    response = await desk.policy.handle(desk.exchange("GET", "/a"), origin)
    follower = SlowOrigin(desk).ask()
    await settle()
    assert response.stream is not None
    for expected in (b"2", b"1", b"0"):
        body.more.release()
        assert await anext(response.stream) == expected
    assert not follower.done()
    body.more.release()
    with pytest.raises(StopAsyncIteration):
        await anext(response.stream)
    response.close()
    assert (await follower).body == b"210"
    assert_quiet(desk)


@pytest.mark.parametrize("how", ["breaks", "leaves"])
async def test_a_body_that_is_not_whole_is_never_stored(how: str) -> None:
    """It broke off, or its reader left: nothing is stored, and a follower asks in its place."""
    desk = Desk()
    body = Trickle(breaks=how == "breaks")

    async def origin(exchange: Exchange) -> Response:
        return Response(200, [(b"cache-control", b"max-age=60")], None, body)

    response = await desk.policy.handle(desk.exchange("GET", "/a"), origin)
    assert response.stream is not None
    second = SlowOrigin(desk)
    follower = second.ask()
    await settle()
    body.more.release()
    await anext(response.stream)
    if how == "breaks":
        for _ in range(3):
            body.more.release()
        with pytest.raises(UpstreamError):
            async for _ in response.stream:
                pass
    response.close()
    await settle()
    assert len(desk.memory) == 0
    assert second.calls == 1
    second.go()
    assert words(await follower) == "fwd=uri-miss; stored; collapsed"
    assert_quiet(desk)


async def test_a_body_that_turns_out_long() -> None:
    """The pieces go on, the copy is let go of, and who waits goes on alone."""
    desk = Desk(max_entry=2)
    body = Trickle()

    async def origin(exchange: Exchange) -> Response:
        return Response(200, [(b"cache-control", b"max-age=60")], None, body)

    response = await desk.policy.handle(desk.exchange("GET", "/a"), origin)
    second = SlowOrigin(desk)
    follower = second.ask()
    await settle()
    for _ in range(4):
        body.more.release()
    assert response.stream is not None
    assert b"".join([piece async for piece in response.stream]) == b"210"
    response.close()
    await settle()
    assert second.calls == 1
    second.go()
    await follower
    assert_quiet(desk)


async def test_stale_answers_while_the_upstream_fails() -> None:
    """Followers of a failing validation get the stale answer at once, without asking again."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    origin = SlowOrigin(desk, Reply(status=503))
    tasks = [origin.ask() for _ in range(10)]
    await settle()
    origin.go()
    answers = await asyncio.gather(*tasks)
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"one")}
    assert origin.calls == 1
    assert_quiet(desk)
