"""Random histories: whatever happens, the cache gives only what a plain model of the RFC allows.

The model remembers every answer that the origin ever gave, with the words it was given under, and
judges each answer that came without asking. It also knows when asking was not needed, so a cache
that forgets for no reason is found as well.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import CONNECT_FAILED, UpstreamError
from gateway.message import Exchange, Headers, Response
from gateway.policies.cache.entry import Selector
from tests.policies.cache.desk import Desk

TTL, WINDOW = 7, 4


@dataclass(frozen=True)
class Words:
    """What the origin says with its answers from now on."""

    max_age: int | None = 5
    s_maxage: int | None = None
    flags: frozenset[str] = frozenset()
    vary: bool = False
    tag: bool = False
    cookie: bool = False
    age: int = 0
    status: int = 200
    down: bool = False

    def lines(self) -> list[tuple[bytes, bytes]]:
        """The header fields."""
        control = sorted(self.flags)
        if self.max_age is not None:
            control.append(f"max-age={self.max_age}")
        if self.s_maxage is not None:
            control.append(f"s-maxage={self.s_maxage}")
        fields = [("cache-control", ", ".join(control))] if control else []
        fields += [("vary", "Foo")] if self.vary else []
        fields += [("set-cookie", "a=b")] if self.cookie else []
        fields += [("age", str(self.age))] if self.age else []
        return [(name.encode(), value.encode()) for name, value in fields]

    @property
    def may_be_stale(self) -> bool:
        forbidding = {"no-cache", "must-revalidate", "proxy-revalidate"}
        return not (self.flags & forbidding) and self.s_maxage is None

    @property
    def lifetime(self) -> int:
        if "no-cache" in self.flags:
            return 0
        for stated in (self.s_maxage, self.max_age):
            if stated is not None:
                return stated
        return TTL if self.status in (200, 404) or "public" in self.flags else -1

    @property
    def is_open(self) -> bool:
        return bool(self.flags & {"public", "must-revalidate"}) or self.s_maxage is not None


@dataclass
class Known:
    """An answer that the origin gave: the model's idea of a stored one."""

    body: bytes
    words: Words
    foo: str | None
    authorized: bool
    at: float
    etag: bytes
    dead: bool = False

    def storable(self) -> bool:
        words = self.words
        if words.flags & {"no-store", "private"} or words.cookie or words.lifetime < 0:
            return False
        window = 2 * WINDOW if words.may_be_stale else 0
        useful = words.lifetime + window > words.age or bool(self.etag)
        return useful and (words.is_open or not self.authorized)

    def matches(self, foo: str | None, authorized: bool) -> bool:
        if self.words.vary and foo != self.foo:
            return False
        return self.words.is_open or not authorized

    def age(self, now: float) -> float:
        return self.words.age + now - self.at


@dataclass(frozen=True)
class Get:
    foo: str | None = None
    authorized: bool = False
    control: str = ""


@dataclass(frozen=True)
class Put:
    pass


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Purge:
    selector: Selector


Step = Words | Get | Put | Wait | Purge

FLAGS = ["no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate"]
CONTROLS = ["no-cache", "max-age=0", "max-age=3", "max-stale=3", "max-stale", "min-fresh=2"]
flag = st.sampled_from(FLAGS)
words = st.builds(
    Words,
    max_age=st.sampled_from([None, 0, 2, 5, 20]),
    s_maxage=st.sampled_from([None, None, None, 0, 3, 10]),
    flags=st.frozensets(flag, max_size=2),
    vary=st.booleans(),
    tag=st.booleans(),
    cookie=st.sampled_from([False] * 5 + [True]),
    age=st.sampled_from([0, 0, 0, 1, 4]),
    status=st.sampled_from([200, 200, 200, 404, 302]),
    down=st.sampled_from([False] * 4 + [True]),
)
gets = st.builds(
    Get,
    foo=st.sampled_from([None, "1", "2"]),
    authorized=st.sampled_from([False, False, True]),
    control=st.sampled_from(["", "", "", *CONTROLS]),
)
waits = st.builds(Wait, seconds=st.sampled_from([0.25, 1.0, 1.5, 3.0, 6.0, 11.0]))
purges = st.sampled_from([Purge(Selector(all=True)), Purge(Selector(prefix="/b"))])
any_step = st.one_of(gets, gets, gets, gets, words, words, waits, waits, st.just(Put()), purges)
steps = st.lists(any_step, min_size=4, max_size=40)


@dataclass
class World:
    """One history: the cache, its origin, and the model."""

    desk: Desk
    said: Words = field(default_factory=Words)
    known: list[Known] = field(default_factory=list)
    number: int = 0
    failed_at: float = -1e9
    asked: bool = False

    async def origin(self, exchange: Exchange) -> Response:
        """Answer as the words of the moment say, and let the model know."""
        self.asked = True
        said, now = self.said, self.desk.clock.now
        if said.down:
            self.failed_at = now
            raise UpstreamError(CONNECT_FAILED, sent=False)
        if exchange.request.method == "PUT":
            return Response(200, [])
        headers = exchange.request.headers
        condition = headers.get(b"if-none-match")
        if condition is not None:
            found = next(each for each in reversed(self.known) if each.etag == condition)
            # The content has not changed; what is said of it may have.
            again = replace(found.words, **{**vars_of(said), "status": found.words.status})
            for each in self.known:
                each.dead = each.dead or each.etag == found.etag
            self.learn(found.body, again, headers, found.etag)
            return Response(304, [(b"etag", found.etag), *again.lines()])
        self.number += 1
        body = b"%d" % self.number
        etag = b'"%d"' % self.number if said.tag else b""
        self.learn(body, said, headers, etag)
        fields = said.lines() + ([(b"etag", etag)] if etag else [])
        return Response(said.status, fields, body)

    def learn(self, body: bytes, said: Words, headers: Headers, etag: bytes) -> None:
        foo = headers.get(b"foo")
        authorized = b"authorization" in headers
        known = Known(
            body, said, foo.decode() if foo else None, authorized, self.desk.clock.now, etag
        )
        known.dead = not known.storable()
        for each in self.known:
            # The newest word is what counts; one that is not kept counts for those who heard it.
            if each.matches(known.foo, authorized and known.dead):
                each.dead = True
        self.known.append(known)

    def newest(self, get: Get) -> Known | None:
        found = [
            each for each in self.known if not each.dead and each.matches(get.foo, get.authorized)
        ]
        return found[-1] if found else None

    async def run(self, step: Step) -> None:
        if isinstance(step, Words):
            self.said = step
        elif isinstance(step, Wait):
            self.desk.clock.advance(step.seconds)
        elif isinstance(step, Purge):
            self.desk.memory.purge(step.selector)
            if step.selector.all:
                self.forget()
        elif isinstance(step, Put):
            await self.put()
        else:
            await self.get(step)

    def forget(self) -> None:
        for each in self.known:
            each.dead = True

    async def put(self) -> None:
        try:
            await self.desk.policy.handle(self.desk.exchange("PUT", "/a"), self.origin)
        except UpstreamError:
            return
        self.forget()

    async def get(self, get: Get) -> None:
        fields = [f"Foo: {get.foo}"] if get.foo else []
        fields += ["Authorization: x"] if get.authorized else []
        fields += [f"Cache-Control: {get.control}"] if get.control else []
        now, before = self.desk.clock.now, list(self.known)
        expected = self.newest(get)
        self.asked = False
        exchange = self.desk.exchange("GET", "/a", *fields)
        try:
            response = await self.desk.policy.handle(exchange, self.origin)
        except UpstreamError:
            assert self.asked
            assert not (expected and is_fresh(expected, get, now))
            await self.settle()
            return
        asked = self.asked
        await self.settle()
        if asked and not self.said.down:
            # Straight from the origin, unless it was a failure that a stale answer stands for.
            assert not (expected and is_fresh(expected, get, now)), "asked without need"
            return
        assert expected is not None, "nothing may be given"
        given = next(each for each in reversed(before) if each.body == response.body)
        assert given.body == expected.body, "not the newest that matches"
        failing = now - self.failed_at <= 1.0
        assert may_give(expected, get, now, failing=failing), (get, expected, now)

    async def settle(self) -> None:
        """Let what is fetched in the background come in."""
        while tasks := list(self.desk.policy._tasks):
            await asyncio.gather(*tasks)


def vars_of(said: Words) -> dict[str, Any]:
    """What a 304 says: each of its fields replaces the stored one, and what it leaves out stays."""
    given: dict[str, Any] = {"age": said.age, "tag": said.tag}
    if said.flags or said.max_age is not None or said.s_maxage is not None:
        given |= {"flags": said.flags, "max_age": said.max_age, "s_maxage": said.s_maxage}
    if said.vary:
        given["vary"] = True
    return given


def is_fresh(known: Known, get: Get, now: float) -> bool:
    """Whether a plain request needs nobody but the cache."""
    return not get.control and known.age(now) < known.words.lifetime


def may_give(known: Known, get: Get, now: float, *, failing: bool) -> bool:
    """Whether an answer may be given without asking, or after asking in vain."""
    age, lifetime = known.age(now), known.words.lifetime
    fresh, stale = age < lifetime, age - lifetime
    lenient = known.words.may_be_stale
    if failing and lenient and stale < 2 * WINDOW:
        return True
    if get.control in ("no-cache", "max-age=0"):
        return False
    if get.control == "max-age=3" and age > 3:
        return False
    if get.control == "min-fresh=2":
        return fresh and lifetime - age > 2
    if fresh:
        return True
    allowed = WINDOW if "max-stale" not in get.control else 1e9
    if get.control == "max-stale=3":
        allowed = 3
    return lenient and (stale < allowed or (get.control == "max-stale=3" and stale <= 3))


async def play(history: list[Step]) -> None:
    desk = Desk(ttl=f"{TTL}s", stale_while_revalidate=f"{WINDOW}s",
                stale_if_error=f"{2 * WINDOW}s")  # fmt: skip
    world = World(desk)
    for step in history:
        await world.run(step)
    assert len(desk.policy._flights) == 0
    assert desk.memory._fetching == {}
    assert desk.memory.size == sum(entry.size for entry in desk.memory._used)
    await desk.policy.aclose()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=steps)
def test_histories(history: list[Step]) -> None:
    """No history makes the cache give what it may not, or ask when it need not."""
    asyncio.run(play(history))


def draw(chance: random.Random) -> list[Step]:
    """A long history, quickly made: few words at a time, and many requests under each."""
    pick = chance.choice
    history: list[Step] = []
    for _ in range(8):
        history.append(
            Words(
                max_age=pick([None, 0, 2, 5, 20]),
                s_maxage=pick([None, None, None, 3]),
                flags=frozenset(pick(FLAGS) for _ in range(pick([0, 1, 1, 2]))),
                vary=pick([True, False]),
                tag=pick([True, False]),
                cookie=pick([False] * 8 + [True]),
                age=pick([0, 0, 1, 4]),
                status=pick([200, 200, 404, 302]),
                down=pick([False] * 4 + [True]),
            )
        )
        for _ in range(pick([2, 4, 8])):
            authorized = pick([False, False, False, True])
            history.append(Get(pick([None, "1", "2"]), authorized, pick(["", "", "", *CONTROLS])))
            history.append(Wait(pick([0.0, 0.25, 1.0, 1.5, 3.0, 6.0])))
        if pick([True, False]):
            changes: list[Step] = [
                Put(),
                Purge(Selector(all=True)),
                Purge(Selector(prefix="/b")),
            ]
            history.append(pick(changes))
    return history


@pytest.mark.parametrize("seed", range(6))
def test_long_histories(seed: int) -> None:
    """The same for a few hundred long ones."""
    chance = random.Random(seed)

    async def run() -> None:
        for _ in range(30):
            await play(draw(chance))

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), max_size=40),
    bound=st.integers(2_000, 40_000),
)
def test_memory_is_bounded(sizes: list[tuple[int, int]], bound: int) -> None:
    """Whatever is stored, the bound holds, and nothing is left of what is gone."""

    async def play() -> None:
        desk = Desk(ttl="1h")
        desk.memory.resize(bound)
        for number, size in sizes:

            async def origin(exchange: Exchange, size: int = size) -> Response:
                return Response(200, [], b"x" * size)

            await desk.policy.handle(desk.exchange("GET", f"/{number}"), origin)
            assert desk.memory.size <= bound
            assert desk.memory.size == sum(entry.size for entry in desk.memory._used)
        desk.memory.clear()
        assert (desk.memory.size, len(desk.memory)) == (0, 0)
        assert desk.memory._resources == {}
        assert desk.memory._tagged == {}

    asyncio.run(play())
