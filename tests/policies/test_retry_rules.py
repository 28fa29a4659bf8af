"""When an attempt is made again: the rules of `retry`, and the budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policies.retry.replay import ReplayBody
from gateway.policies.retry.rules import Backoff, Failed, Skip, fits, retry_after, skip_for
from gateway.upstream.budget import RetryBudget

WALL = 1_800_000_000.0


def failed(method: str = "GET", reason: str = "503", **facts: bool) -> Failed:
    known = {"has_key": False, "sent": True, "can_repeat_body": True, **facts}
    return Failed(reason, method, **known)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods_are_safe(method: str) -> None:
    """RFC 9110 section 9.2.2: twice is once, whatever is configured for the others."""
    assert skip_for(failed(method), "never", 1) is None


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "PROPFIND", "get"])
def test_others_need_a_reason(method: str) -> None:
    """Nothing was sent, or a key travels with it, or it was said that they may."""
    assert skip_for(failed(method), "with_key", 1) is Skip.NOT_SAFE
    assert skip_for(failed(method), "never", 1) is Skip.NOT_SAFE
    assert skip_for(failed(method, has_key=True), "never", 1) is Skip.NOT_SAFE
    assert skip_for(failed(method, has_key=True), "with_key", 1) is None
    assert skip_for(failed(method, sent=False), "never", 1) is None
    assert skip_for(failed(method), "always", 1) is None


def test_the_other_reasons_to_give_up() -> None:
    """Not retryable, no attempts left, a body that was not kept: in this order."""
    assert skip_for(failed(reason=""), "always", 0) is Skip.NOT_RETRYABLE
    assert skip_for(failed(), "always", 0) is Skip.ATTEMPTS
    assert skip_for(failed(can_repeat_body=False), "always", 1) is Skip.BODY_NOT_KEPT


@given(retry=st.integers(1, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_full_jitter(retry: int, random: float) -> None:
    """Anything from zero to the bound, which doubles up to the longest."""
    pause = Backoff(0.025, 1.0).pause(retry, random)

    assert 0 <= pause <= 1.0
    if retry <= 5:
        assert pause == pytest.approx(random * 0.025 * 2 ** (retry - 1))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0), (b"7", 7), (b" 12 ", 12), (b"", 0), (b"-3", 0), (b"1.5", 0), (b"soon", 0),
        (b"9" * 400, 999_999_999_999), (b"\xb2", 0), (b"Mon, 99 Foo", 0), (b"1 2", 0),
    ],
)  # fmt: skip
def test_retry_after_in_seconds(value: bytes, seconds: float) -> None:
    """Digits alone; what is neither digits nor a date says nothing."""
    assert retry_after([(b"retry-after", value)], WALL) == min(seconds, 10**9)
    assert retry_after([], WALL) == 0


def test_retry_after_as_a_date() -> None:
    """An HTTP-date counts from now; one in the past is now."""
    now = datetime.fromtimestamp(WALL, UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True).encode()
    before = format_datetime(now - timedelta(days=1), usegmt=True).encode()

    assert retry_after([(b"retry-after", later)], WALL) == 90
    assert retry_after([(b"retry-after", before)], WALL) == 0


@given(value=st.binary(max_size=40))
def test_no_value_breaks_it(value: bytes) -> None:
    """Whatever an upstream writes there, the result is a number of seconds."""
    assert retry_after([(b"retry-after", value)], WALL) >= 0


def test_no_pause_beyond_the_end() -> None:
    """The attempt must begin before the deadline, and before the total time is over."""
    assert fits(1.0, 10.0, None, None)
    assert fits(1.0, 10.0, 11.5, 12.0)
    assert not fits(1.0, 10.0, 11.0, None)
    assert not fits(1.0, 10.0, None, 10.9)


class BudgetMachine(RuleBasedStateMachine):
    """Exchanges come and go, and take permits for more attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget()
        self.retrying = 0

    @rule()
    def begin(self) -> None:
        self.budget.active += 1

    @precondition(lambda self: self.budget.active > self.retrying)
    @rule()
    def end(self) -> None:
        self.budget.leave()

    @precondition(lambda self: self.budget.active > self.retrying)
    @rule(share=st.sampled_from([0.0, 0.1, 0.2, 0.5]), floor=st.integers(0, 4))
    def ask(self, share: float, floor: int) -> None:
        allowed = max(floor, share * self.budget.active)
        got = self.budget.acquire(share, floor)
        assert got == (self.retrying + 1 <= allowed)
        self.retrying += got

    @precondition(lambda self: self.retrying)
    @rule()
    def give_back(self) -> None:
        self.budget.release()
        self.retrying -= 1

    @invariant()
    def counts(self) -> None:
        assert self.budget.retries == self.retrying
        assert self.budget.active >= 0


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_no_bound() -> None:
    """Without a share everything is allowed."""
    budget = RetryBudget()
    assert all(budget.acquire(None, 0) for _ in range(100))


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_kept_body_is_sent_again() -> None:
    """Each time from the first byte, and on with what nobody has read yet."""
    body = ReplayBody(pieces(b"ab", b"cd", b"ef"), 100)
    first = aiter(body)
    assert [await anext(first), await anext(first)] == [b"ab", b"cd"]

    assert [piece async for piece in body] == [b"ab", b"cd", b"ef"]
    assert [piece async for piece in body] == [b"ab", b"cd", b"ef"]
    assert body.can_restart


async def test_a_body_that_is_too_large_is_not_kept() -> None:
    """It goes through once, whole; from the byte on that does not fit it can't be sent again."""
    body = ReplayBody(pieces(b"ab", b"cd", b"ef"), 3)
    reader = aiter(body)
    await anext(reader)
    assert body.can_restart
    assert [piece async for piece in reader] == [b"cd", b"ef"]
    assert not body.can_restart


async def test_a_body_that_is_not_to_be_kept() -> None:
    """It can be sent again as long as nothing of it was read."""
    body = ReplayBody(pieces(b"ab"), 0)
    assert body.can_restart
    assert [piece async for piece in body] == [b"ab"]
    assert not body.can_restart


async def test_reading_may_be_cancelled() -> None:
    """A reader that is given up while it waits takes nothing with it."""
    go = asyncio.Event()

    class Slow:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await go.wait()
            return b"x"

    body = ReplayBody(Slow(), 100)
    waiting = asyncio.ensure_future(anext(aiter(body)))
    await asyncio.sleep(0)
    waiting.cancel()
    go.set()
    assert await anext(aiter(body)) == b"x"
