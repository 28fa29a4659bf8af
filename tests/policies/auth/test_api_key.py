"""API keys: from the configuration to a verdict, and end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config.model import GatewayConfig
from gateway.config.model_key import ApiKeyIdentity
from gateway.errors import ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.api_key import ApiKeys, build
from gateway.policies.auth.identity import Foreign
from gateway.policies.auth.key_table import hash_of
from gateway.policies.base import BuildContext
from tests.e2e.conftest import Serve, serve
from tests.support.scripted import ScriptedUpstream, echo

__all__ = ["serve"]

Make = Callable[..., Exchange]


def key(text: str, consumer: str = "billing", **options: Any) -> dict[str, Any]:
    return {"consumer": consumer, "hash": hash_of(text), **options}


def identity(context: BuildContext, *keys: dict[str, Any], **config: Any) -> ApiKeys:
    config = {"type": "api_key", "keys": keys or [key("one")], **config}
    return build("partners", ApiKeyIdentity.model_validate(config), context)


def test_whose_key_it_is(context: BuildContext, make_exchange: Make) -> None:
    """The consumer with scopes, tier and a label of the key, which is no part of the key."""
    consumers = {"billing": {"tier": "gold"}}
    context = dataclasses.replace(
        context, config=GatewayConfig.model_validate({"consumers": consumers})
    )
    partners = identity(context, key("one", scopes=["orders:read"]), key("two"))

    first = partners.authenticate(make_exchange("GET", ("x-api-key", "one")))
    second = partners.authenticate(make_exchange("GET", ("x-api-key", "two")))

    assert isinstance(first, Principal) and isinstance(second, Principal)
    assert (first.consumer, first.tier, first.identity) == ("billing", "gold", "partners")
    assert first.scopes == {"orders:read"} and second.scopes == frozenset()
    assert first.claims == {"key": hash_of("one")[7:19]}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["three"], "not known"),
        ([""], "not known"),
        (["one "], "not known"),
        (["one, one"], "not known"),
        (["é"], "not known"),
        (["x" * 100_000], "not known"),
        (["one", "one"], "several times"),
        (["one", "other"], "several times"),
    ],
)
def test_bad_keys(
    context: BuildContext, make_exchange: Make, values: list[str], reason: str
) -> None:
    """What is no key, or two of them, is refused; the answer repeats nothing of it."""
    verdict = identity(context).authenticate(
        make_exchange("GET", *[("x-api-key", value) for value in values])
    )

    assert isinstance(verdict, Rejection)
    assert verdict.kind.status == 401
    assert reason in verdict.detail
    assert not any(value and value in verdict.detail for value in values)


def test_no_key(context: BuildContext, make_exchange: Make) -> None:
    """Nothing of this kind was sent."""
    assert identity(context).authenticate(make_exchange()) is None


def test_rotation_by_time(context: BuildContext, make_exchange: Make) -> None:
    """The old key ends and the new one begins when the configuration says, without a reload."""
    clock = ManualClock(1_790_000_000.0)
    partners = identity(
        dataclasses.replace(context, clock=clock),
        key("old", expires="2026-09-22T00:00:00Z"),
        key("new", not_before="2026-09-22"),
    )

    def accepted() -> list[bool]:
        verdicts = [
            partners.authenticate(make_exchange("GET", ("x-api-key", each)))
            for each in ("old", "new")
        ]
        return [isinstance(verdict, Principal) for verdict in verdicts]

    assert accepted() == [True, False]
    clock.advance(86_400.0)
    assert accepted() == [False, True]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("ApiKey one", Principal),
        ("apikey  one", Principal),
        ("Bearer one", Principal),
        ("one", Principal),
        ("ApiKey two", Rejection),
        ("Bearer two", Foreign),
        ("Basic one", type(None)),
    ],
)
def test_in_authorization(
    context: BuildContext, make_exchange: Make, value: str, verdict: type
) -> None:
    """Behind ApiKey or Bearer; a stranger's bearer token may be meant for another identity."""
    exchange = make_exchange("GET", ("authorization", value))
    found = identity(context, header="Authorization").authenticate(exchange)

    assert type(found) is verdict
    assert (b"authorization" in exchange.request.headers) is (verdict is not Principal)


def test_a_key_twice(context: BuildContext) -> None:
    """The same key for two consumers is an error."""
    with pytest.raises(ConfigError, match="the key of shop stands here twice"):
        identity(context, key("one"), key("one", "shop"))


def config(upstream: str, **options: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in options.items())
    return f"""\
identities:
  partners: {{type: api_key, keys: [{{consumer: billing, hash: "{hash_of("one")}"}}]{more}}}
  others: {{type: api_key, header: X-Other, keys: [{{consumer: b, hash: "{hash_of("two")}"}}]}}
upstreams:
  api: {{targets: ["{upstream}"]}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api,
     auth: {{any: [others, partners]}}}}
"""


async def test_the_key_stays_here(serve: Serve) -> None:
    """Neither upstream nor log sees a key, not even one that was sent beside another."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream.url)) as gateway:
        async with gateway.client() as client:
            good = await client.get("/x", headers={"X-API-Key": "one"})
            both = await client.get("/x", headers={"X-API-Key": "one", "X-Other": "two"})
            bad = await client.get("/x", headers={"X-API-Key": "s3cret-guess"})
            none = await client.get("/x")
        lines = await gateway.lines(4)

    assert [got.status_code for got in (good, both, bad, none)] == [200, 200, 401, 401]
    for request in upstream.requests:
        assert request.get("x-api-key") is None and request.get("x-other") is None
    assert (bad.json()["code"], none.json()["code"]) == (
        "invalid_credentials", "missing_credentials",
    )  # fmt: skip
    assert 'ApiKey realm="partners"' in bad.headers.get_list("www-authenticate")
    assert "s3cret" not in bad.text and "s3cret" not in str(lines)


async def test_a_key_that_is_passed_on(serve: Serve) -> None:
    """Where the configuration says so."""
    async with ScriptedUpstream(echo) as upstream:
        async with serve(config(upstream.url, forward="true")) as gateway:
            async with gateway.client() as client:
                await client.get("/x", headers={"X-API-Key": "one"})

    assert upstream.requests[0].get("x-api-key") == "one"
