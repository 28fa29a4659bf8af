"""When tokens are fetched: the pure rules, the endpoint's language, and who keeps the token."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.clock import ManualClock
from gateway.errors import UPSTREAM_CREDENTIALS, GatewayError
from gateway.policies.upstream_auth.config import ClientCredentials, UpstreamAuthConfig
from gateway.policies.upstream_auth.endpoint import Granted, NoToken, read_answer, token_request
from gateway.policies.upstream_auth.machine import UNTOLD_LIFE_S, TokenState
from gateway.policies.upstream_auth.source import TokenSource


def test_a_life() -> None:
    """Used until shortly before its end, fetched anew at four fifths of it."""
    state = TokenState()
    assert not state.usable(0.0) and state.wants_fetch(0.0)

    state.fetched("a", 100.0, 0.0, 0.5)

    assert [state.wants_fetch(at) for at in (0.0, 79.9, 80.0)] == [False, False, True]
    assert [state.usable(at) for at in (0.0, 94.9, 95.0)] == [True, True, False]


@pytest.mark.parametrize(("life", "end"), [(None, UNTOLD_LIFE_S), (1e12, 31_536_000.0)])
def test_lives_that_are_not_told_or_too_long(life: float | None, end: float) -> None:
    """An unknown life is five minutes, never for ever."""
    state = TokenState()
    state.fetched("a", life, 0.0, 0.5)

    assert state.usable(end - 6.0) and not state.usable(end - 4.0)


def test_short_lives_are_usable_at_all() -> None:
    """A token of a second lives nine tenths of it."""
    state = TokenState()
    state.fetched("a", 1.0, 0.0, 0.5)

    assert state.usable(0.89) and not state.usable(0.91)


def test_pauses_grow_and_end() -> None:
    """After a failure nobody asks for a while, longer each time, at most half a minute."""
    state, now, pauses = TokenState(), 0.0, []
    for _ in range(7):
        state.failed(now, 0.5)
        assert not state.wants_fetch(now)
        pauses.append(state.not_before - now)
        now = state.not_before
        assert state.wants_fetch(now)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert state.retry_after(now - 2.5) == 3
    state.fetched("a", 100.0, now, 0.5)
    assert state.failures == 0


def test_rejections() -> None:
    """One rejection asks for another token, the next ones not before ten seconds have passed."""
    state = TokenState()
    state.fetched("a", 1000.0, 0.0, 0.5)

    assert state.rejected("a", 1.0) and state.wants_fetch(1.0) and state.usable(1.0)
    state.fetched("b", 1000.0, 1.0, 0.5)
    assert state.rejected("a", 2.0) and not state.wants_fetch(2.0)
    assert not state.rejected("b", 10.9)
    assert state.rejected("b", 11.0)


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "fail", "401"]), st.floats(0.0, 500.0)), max_size=40),
    st.floats(0.0, 1.0),
)
def test_never_beyond_its_end(steps: list[tuple[str, float]], chance: float) -> None:
    """Whatever happens, a token is not used after its end, and asking pauses after a failure."""
    state, now, end = TokenState(), 0.0, 0.0
    for what, passes in steps:
        now += passes
        if what == "ok" and state.wants_fetch(now):
            state.fetched(f"t{now}", 60.0, now, chance)
            end = now + 60.0
        elif what == "fail" and state.wants_fetch(now):
            state.failed(now, chance)
            assert not state.wants_fetch(now)
        elif what == "401":
            state.rejected(state.value, now)
        assert not (state.usable(now) and now >= end)


def credentials(**options: Any) -> ClientCredentials:
    given_options = {"client_id": "gw", "client_secret": "s3cret", **options}
    found = UpstreamAuthConfig.model_validate(
        {"type": "client_credentials", "token_url": "https://idp.internal/token", **given_options}
    ).root
    assert isinstance(found, ClientCredentials)
    return found


def test_request_with_basic() -> None:
    """Id and secret go into the field, each form-encoded first, and nowhere else."""
    headers, form = token_request(
        credentials(client_id="g:w", client_secret="s e+c", scopes=["a", "b"], audience="api")
    )

    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"g%3Aw:s+e%2Bc"
    assert form == [
        ("grant_type", "client_credentials"), ("scope", "a b"), ("audience", "api"),
    ]  # fmt: skip


def test_request_with_a_form() -> None:
    """Or into the form, with resources and whatever else the endpoint wants."""
    headers, form = token_request(
        credentials(client_auth="body", resource=["urn:a", "urn:b"], params={"tenant": "t"})
    )

    assert "authorization" not in headers
    assert form == [
        ("grant_type", "client_credentials"), ("client_id", "gw"), ("client_secret", "s3cret"),
        ("resource", "urn:a"), ("resource", "urn:b"), ("tenant", "t"),
    ]  # fmt: skip


def answer(**data: Any) -> bytes:
    return json.dumps({"access_token": "abc", "token_type": "Bearer", **data}).encode()


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [(300, 300.0), ("300", 300.0), (0.5, 0.5), (None, None), (0, None), (-1, None), ("x", None),
     (True, None), (float("nan"), None), (float("inf"), None), (10**400, None), ([], None)],
)  # fmt: skip
def test_lives_in_answers(expires_in: object, life: float | None) -> None:
    """Seconds, also as text; anything else tells nothing."""
    assert read_answer(200, answer(expires_in=expires_in)) == Granted("abc", life)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b'{"error": "invalid_client", "error_description": "s3cret"}', "401 invalid_client"),
        (400, b'{"error": "<script>"}', "it answered 400"),
        (500, b"", "it answered 500"),
        (302, answer(), "it answered 302"),
        (200, b"", "no usable access_token"),
        (200, b"[]", "no usable access_token"),
        (200, b"\xff", "no usable access_token"),
        (200, b"[" * 100_000, "no usable access_token"),
        (200, answer(access_token=""), "no usable access_token"),
        (200, answer(access_token="a b"), "no usable access_token"),
        (200, answer(access_token="a\r\nX: y"), "no usable access_token"),
        (200, answer(access_token="é"), "no usable access_token"),
        (200, answer(access_token="x" * 20_000), "no usable access_token"),
        (200, answer(access_token=5), "no usable access_token"),
        (200, answer(token_type="DPoP"), "no bearer token"),
        (200, answer(token_type=None), "no bearer token"),
    ],
)
def test_answers_without_a_token(status: int, body: bytes, reason: str) -> None:
    """The reason is told in our words, with the error's code alone."""
    with pytest.raises(NoToken, match=reason) as caught:
        read_answer(status, body)
    assert "s3cret" not in str(caught.value) and "<" not in str(caught.value)


def test_a_token_without_a_type() -> None:
    """Endpoints that leave it out mean bearer; letters count in either case."""
    assert read_answer(200, b'{"access_token": "abc"}') == Granted("abc", None)
    assert read_answer(200, answer(token_type="bearer")).token == "abc"


@pytest.mark.parametrize(
    "options",
    [{"token_url": "idp.internal"}, {"token_url": "ftp://idp"}, {"token_url": "https://u:p@idp/"},
     {"token_url": "https://idp/#x"}, {"token_url": "https://i dp/"}, {"token_url": "https://"},
     {"token_url": "https://idp:99999/"}, {"scopes": ["a b"]}, {"scopes": [""]},
     {"params": {"scope": "x"}}, {"client_auth": "jwt"}, {"client_id": ""}, {"client_secret": ""}],
)  # fmt: skip
def test_configuration_that_can_not_work(options: dict[str, Any]) -> None:
    """What the endpoint could not be asked with is refused."""
    with pytest.raises(ValidationError):
        credentials(**options)


class Endpoint:
    """A token endpoint in the process: each call is answered when the test says so."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers: list[Granted | Exception] = []

    async def __call__(self) -> Granted:
        self.calls += 1
        await self.gate.wait()
        found = self.answers.pop(0) if self.answers else Granted(f"t{self.calls}", 100.0)
        if isinstance(found, Exception):
            raise found
        return found


Counted = list[str]


def source(endpoint: Callable[[], Awaitable[Granted]], clock: ManualClock) -> TokenSource:
    counted: Counted = []
    return TokenSource("test", endpoint, clock, random.Random(1), counted.append)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_fetch_for_all_who_wait() -> None:
    """Fifty requests that come at once cause one fetch; one that leaves takes nothing away."""
    endpoint, clock = Endpoint(), ManualClock()
    endpoint.gate.clear()
    kept = source(endpoint, clock)
    waiting = [asyncio.create_task(kept.obtain()) for _ in range(50)]
    await settle()
    waiting[0].cancel()
    await settle()
    endpoint.gate.set()

    assert set(await asyncio.gather(*waiting[1:])) == {"t1"}
    assert endpoint.calls == 1
    await kept.aclose()


async def test_refreshed_before_the_end_while_the_old_one_goes_on() -> None:
    """From four fifths of its life on, the old token is used while a new one is fetched."""
    endpoint, clock = Endpoint(), ManualClock()
    kept = source(endpoint, clock)
    assert await kept.obtain() == "t1"
    clock.advance(90.0)
    endpoint.gate.clear()

    assert kept.current() == "t1" and kept.current() == "t1"
    await settle()
    endpoint.gate.set()
    await settle()
    assert kept.current() == "t2"
    assert endpoint.calls == 2


async def test_an_endpoint_that_is_down() -> None:
    """The last token until its end, then a refusal at once, and a new token when it is back."""
    endpoint, clock = Endpoint(), ManualClock()
    kept = source(endpoint, clock)
    assert await kept.obtain() == "t1"
    endpoint.answers = [NoToken("down"), NoToken("down"), NoToken("down")]
    clock.advance(90.0)
    assert kept.current() == "t1"
    await settle()
    clock.advance(0.1)
    assert kept.current() == "t1"
    await settle()
    assert endpoint.calls == 2  # not again during the pause

    clock.advance(9.0)
    with pytest.raises(GatewayError) as caught:
        await kept.obtain()
    assert caught.value.kind is UPSTREAM_CREDENTIALS and caught.value.kind.status == 503
    assert endpoint.calls == 3
    with pytest.raises(GatewayError) as caught:
        await kept.obtain()
    assert endpoint.calls == 3
    assert 1 <= int(dict(caught.value.headers)[b"retry-after"]) <= 3

    clock.advance(30.0)
    endpoint.answers = []
    assert await kept.obtain() == "t4"


async def test_replacing_a_refused_token() -> None:
    """The upstream's 401 gets another token, once; who comes late gets the newer one."""
    endpoint, clock = Endpoint(), ManualClock()
    kept = source(endpoint, clock)
    first = await kept.obtain()

    both = await asyncio.gather(kept.replace(first), kept.replace(first))
    assert list(both) == ["t2", "t2"]
    assert await kept.replace(first) == "t2"
    assert await kept.replace("t2") is None
    assert endpoint.calls == 2
    clock.advance(11.0)
    endpoint.answers = [NoToken("down")]
    assert await kept.replace("t2") is None
    assert kept.current() == "t2"


async def test_a_bug_in_fetching_is_a_failure() -> None:
    """Whatever else is raised: refused, paused, logged, and the next try comes."""
    endpoint, clock = Endpoint(), ManualClock()
    endpoint.answers = [RuntimeError("bug")]
    kept = source(endpoint, clock)

    with pytest.raises(GatewayError):
        await kept.obtain()
    clock.advance(2.0)
    assert await kept.obtain() == "t2"


async def test_closing_while_fetching() -> None:
    """Who still waits is refused, and nothing goes on."""
    endpoint, clock = Endpoint(), ManualClock()
    endpoint.gate.clear()
    kept = source(endpoint, clock)
    waiting = asyncio.create_task(kept.obtain())
    await settle()
    await kept.aclose()

    with pytest.raises(GatewayError):
        await waiting
    with pytest.raises(GatewayError):
        await kept.obtain()
