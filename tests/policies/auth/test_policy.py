"""The auth policy over identities of all sorts: order, refusals, waiting, the anonymous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.errors import INVALID_CREDENTIALS, NOT_PERMITTED, Rejection
from gateway.message import Exchange, Headers, Principal, Request
from gateway.policies.auth.identity import Foreign, Identity, Verdict, unavailable
from gateway.policies.auth.policy import AuthConfig, AuthPolicy


class Fixed(Identity):
    """Always of one opinion, said at once or later."""

    def __init__(
        self, name: str, verdict: Verdict, *, later: bool = False, challenge: str = "X"
    ) -> None:
        self.name = name
        self.verdict = verdict
        self.later = later
        self.challenge = challenge and f'{challenge} realm="{name}"'
        self.asked = 0

    def authenticate(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        self.asked += 1
        return self._say() if self.later else self.verdict

    async def _say(self) -> Verdict:
        await asyncio.sleep(0)
        return self.verdict


ADA = Principal("ada", {"n": 1}, frozenset({"a"}), "one")
BAD = Rejection(INVALID_CREDENTIALS, "bad", [(b"www-authenticate", b"Bearer bad")])
FOREIGN = Foreign(INVALID_CREDENTIALS, "foreign", [(b"www-authenticate", b"Bearer foreign")])
DOWN = unavailable("down", 2.5)
UNWELCOME = Rejection(NOT_PERMITTED, "unwelcome")


async def judge(*identities: Identity, **config: Any) -> tuple[Rejection | None, Exchange]:
    """The policy's verdict, and the exchange."""
    policy = AuthPolicy(AuthConfig.model_validate({"any": ["x"], **config}), list(identities))
    exchange = Exchange(Request("GET", "/", b"", Headers([])), 0.0)
    outcome = policy.check(exchange)
    if outcome is not None and not isinstance(outcome, Rejection):
        outcome = await outcome
    return outcome, exchange


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([ADA], None),
        ([None, ADA], None),
        ([BAD, ADA], None),
        ([DOWN, ADA], None),
        ([BAD, DOWN, None, ADA], None),
        ([BAD], "bad"),
        ([None, BAD], "bad"),
        ([FOREIGN, BAD], "bad"),
        ([BAD, FOREIGN], "bad"),
        ([FOREIGN], "foreign"),
        ([BAD, DOWN], "down"),
        ([DOWN, UNWELCOME], "down"),
        ([BAD, UNWELCOME, FOREIGN], "unwelcome"),
    ],
)
async def test_who_is_heard(verdicts: list[Verdict], told: str | None, later: bool) -> None:
    """The first that accepts; else the refusal that says most."""
    identities = [Fixed(str(n), each, later=later) for n, each in enumerate(verdicts)]
    rejection, exchange = await judge(*identities)

    assert (rejection.detail if rejection else None) == told
    assert (exchange.principal is ADA) == (told is None)


async def test_the_order_is_as_written() -> None:
    """Once one accepts, nobody else is asked."""
    first, second, third = Fixed("1", None, later=True), Fixed("2", ADA), Fixed("3", ADA)
    await judge(first, second, third)

    assert (first.asked, second.asked, third.asked) == (1, 1, 0)


async def test_nothing_is_awaited_without_need() -> None:
    """Identities that answer at once make no coroutine."""
    policy = AuthPolicy(AuthConfig(any=["x"]), [Fixed("1", BAD), Fixed("2", ADA)])

    assert policy.check(Exchange(Request("GET", "/", b"", Headers([])), 0.0)) is None


async def test_challenges() -> None:
    """One for each identity that has any, none twice; only the refused one's says why."""
    one, two, silent, same = (
        Fixed("1", None, challenge="Bearer"), Fixed("2", BAD), Fixed("3", None, challenge=""),
        Fixed("1", None, challenge="Bearer"),
    )  # fmt: skip
    missing, _ = await judge(one, silent, same)
    refused, _ = await judge(one, two, silent)

    assert missing is not None
    assert missing.kind.code == "missing_credentials"
    assert missing.headers == [(b"www-authenticate", b'Bearer realm="1"')]
    assert refused is not None
    assert refused.headers == [
        (b"www-authenticate", b'Bearer realm="1"'), (b"www-authenticate", b"Bearer bad"),
    ]  # fmt: skip


async def test_unavailable_says_when() -> None:
    """503 with Retry-After, and no challenge: the caller's credentials may be perfect."""
    rejection, _ = await judge(Fixed("1", DOWN))

    assert rejection is not None
    assert rejection.kind.status == 503
    assert rejection.headers == [(b"retry-after", b"3")]


async def test_optional() -> None:
    """The anonymous pass, the bad do not; a rule is asked about the anonymous as well."""
    nobody, exchange = await judge(Fixed("1", None), optional=True)
    bad, _ = await judge(Fixed("1", BAD), optional=True)
    ruled, _ = await judge(Fixed("1", None), optional=True, require="consumer != ''")

    assert nobody is None
    assert exchange.principal is None
    assert bad is not None and bad.kind.status == 401
    assert ruled is not None and ruled.kind.status == 403


async def test_a_scope_challenge_is_for_bearers() -> None:
    """Whoever has no token can't get one with more scopes."""
    key = Fixed("one", ADA, challenge="ApiKey")
    token = Fixed("one", ADA, challenge="Bearer")

    refused, _ = await judge(key, scopes=["b"])
    challenged, _ = await judge(token, scopes=["b"])
    assert refused is not None and refused.headers == []
    assert challenged is not None
    assert challenged.headers == [
        (b"www-authenticate", b'Bearer realm="one", error="insufficient_scope", scope="b"')
    ]
