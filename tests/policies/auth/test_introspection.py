"""Tokens that the authorization server is asked about, over HTTP, and what goes wrong there."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.policies.auth.introspection import AskedToken
from gateway.policies.auth.policy import AuthPolicy
from tests.policies.auth.conftest import Serve
from tests.support.gateway import RunningGateway, eventually, routes
from tests.support.idp import IdentityProvider, SigningKey
from tests.support.scripted import ScriptedUpstream, echo


def config(
    idp: IdentityProvider, upstream: ScriptedUpstream, options: str = "", auth: str = ""
) -> str:
    more = f", {options}" if options else ""
    user, secret = idp.client
    return (
        f'identities: {{opaque: {{type: introspection, url: "{idp.introspect_url}", '
        f'client_id: {user}, client_secret: "{secret}"{more}}}}}\n'
    ) + routes(upstream.url, options=f"auth: {{any: [opaque]{auth}}}")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def asked(gateway: RunningGateway) -> AskedToken:
    for policy in gateway.snapshot.routes[0].policies:
        if isinstance(policy, AuthPolicy):
            identity = policy._identities[0]
            assert isinstance(identity, AskedToken)
            return identity
    raise AssertionError


def active(**more: Any) -> dict[str, Any]:
    return {"active": True, "client_id": "web", "scope": "orders:read", **more}


async def test_active_and_not(serve_both: Serve, key: SigningKey) -> None:
    """An active token passes and is asked about once; any other is a 401, asked about once, too."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["good"] = active(exp=time.time() + 60)
        async with serve_both(config(idp, upstream)) as gateway, gateway.client() as client:
            good = [await client.get("/", headers=bearer("good")) for _ in range(3)]
            bad = [await client.get("/", headers=bearer("bad")) for _ in range(3)]
            none = await client.get("/")
            lines = await gateway.lines(7)

    assert [each.status_code for each in good] == [200, 200, 200]
    assert {(each.status_code, each.json()["detail"]) for each in bad} == {
        (401, "the token is not active")
    }
    assert 'error="invalid_token"' in bad[0].headers["www-authenticate"]
    assert none.headers["www-authenticate"] == 'Bearer realm="opaque"'
    assert idp.asked == [
        {"token": "good", "token_type_hint": "access_token"},
        {"token": "bad", "token_type_hint": "access_token"},
    ]
    assert lines[0]["consumer"] == "web"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (active(), 200),
        (active(exp=time.time() + 1000, nbf=1, iat=1), 200),
        (active(client_id=None, sub="x"), 200),
        (active(exp=1), 401),
        (active(exp="9999999999"), 401),
        (active(exp=True), 401),
        (active(nbf=time.time() + 1000), 401),
        (active(active="true"), 503),
        (active(active=1), 503),
        ({"client_id": "web"}, 503),
        ([], 503),
        (active(client_id=None), 401),
        (active(token_type="refresh_token"), 401),
        (active(typ="Refresh"), 401),
        (active(cnf={"x5t#S256": "abc"}), 401),
        (active(cnf={"jkt": "abc"}), 401),
    ],
)  # fmt: skip
async def test_answers(serve: Serve, key: SigningKey, answer: Any, status: int) -> None:
    """What is said beside `active` counts; an answer that is none is the server's fault."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["t"] = answer
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            got = [await client.get("/", headers=bearer("t")) for _ in range(2)]

    assert [each.status_code for each in got] == [status, status]
    if status == 503:
        assert got[0].json()["code"] == "identity_unavailable"
        assert "retry-after" in got[0].headers


async def test_issuer_and_audience(serve: Serve, key: SigningKey) -> None:
    """If they are configured, the answer must name them."""
    options = "issuer: https://a.test, audience: [orders-api]"
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["a"] = active(iss="https://a.test", aud="orders-api")
        idp.tokens["b"] = active(iss="https://b.test", aud="orders-api")
        idp.tokens["c"] = active(iss="https://a.test", aud=["x"])
        idp.tokens["d"] = active()
        async with serve(config(idp, upstream, options)) as gateway, gateway.client() as client:
            got = [(await client.get("/", headers=bearer(each))).status_code for each in "abcd"]

    assert got == [200, 401, 401, 401]


async def test_the_cache_ends(serve: Serve, key: SigningKey) -> None:
    """An answer is kept for `cache` and never beyond exp; then the server is asked again."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["short"] = active()
        idp.tokens["ends"] = active(exp=time.time() + 100)
        async with serve(config(idp, upstream, "cache: 100ms, leeway: 0s")) as gateway:
            async with gateway.client() as client:
                assert (await client.get("/", headers=bearer("short"))).status_code == 200
                del idp.tokens["short"]
                await asyncio.sleep(0.12)
                assert (await client.get("/", headers=bearer("short"))).status_code == 401
        async with serve(config(idp, upstream, "cache: 300s, leeway: 0s")) as gateway:
            async with gateway.client() as client:
                assert (await client.get("/", headers=bearer("ends"))).status_code == 200
                (entry,) = asked(gateway).remembered.young.values()

    assert entry.ends == pytest.approx(idp.tokens["ends"]["exp"])


async def test_one_question_at_a_time(serve: Serve, key: SigningKey) -> None:
    """Many requests with one token ask once; who leaves does not take the answer along."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["t"] = active()
        idp.gate = asyncio.Event()
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            waiting = [asyncio.create_task(client.get("/", headers=bearer("t"))) for _ in range(8)]
            await eventually(lambda: gateway.metric("gateway_requests_in_flight") == 8)
            waiting[0].cancel()
            await eventually(lambda: gateway.metric("gateway_requests_in_flight") == 7)
            idp.gate.set()
            got = await asyncio.gather(*waiting[1:])
            await gateway.quiet()

    assert {each.status_code for each in got} == {200}
    assert len(idp.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
async def test_a_server_that_refuses_the_gateway(
    serve: Serve, key: SigningKey, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a 401: it is the gateway that was refused, never the caller."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.status = status
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            got = [await client.get("/", headers=bearer("t")) for _ in range(5)]

    assert {(each.status_code, each.json()["code"]) for each in got} == {
        (503, "identity_unavailable")
    }
    assert len(idp.asked) == 0
    assert idp.calls["/introspect"] == 3, "after three failures there is a pause"
    assert f"the server answered {status}" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_server_that_is_gone_and_back(serve: Serve, key: SigningKey) -> None:
    """Gone: 503, but what is remembered serves. Back: all is well after the pause."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["known"] = idp.tokens["new"] = active()
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            assert (await client.get("/", headers=bearer("known"))).status_code == 200
            await idp.stop()
            down = await client.get("/", headers=bearer("new"))
            known = await client.get("/", headers=bearer("known"))
            await idp.start()
            back = await client.get("/", headers=bearer("new"))

    assert (down.status_code, known.status_code, back.status_code) == (503, 200, 200)


async def test_a_slow_server(serve: Serve, key: SigningKey) -> None:
    """The time limit holds, and the connection is not kept waiting."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.delay = 5.0
        async with serve(config(idp, upstream, "timeout: 100ms")) as gateway:
            async with gateway.client() as client:
                began = time.monotonic()
                got = await client.get("/", headers=bearer("t"))
                took = time.monotonic() - began

    assert got.status_code == 503
    assert took < 2


async def test_closing_while_asking(serve: Serve, key: SigningKey) -> None:
    """A reload that changes the identity while a question is under way: 503, no hanging request."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.gate = asyncio.Event()
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            waiting = asyncio.create_task(client.get("/", headers=bearer("t")))
            await eventually(lambda: idp.calls["/introspect"] == 1)
            await asked(gateway).aclose()
            got = await waiting
            idp.gate.set()

    assert got.status_code == 503


async def test_scopes_of_answers(serve: Serve, key: SigningKey) -> None:
    """Answers carry scopes and claims like tokens do."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.tokens["a"] = active(scope="a b", tenant="acme")
        idp.tokens["b"] = active(scope="b", tenant="acme")
        auth = ", scopes: [a], require: 'claims.tenant == \"acme\"'"
        async with serve(config(idp, upstream, auth=auth)) as gateway, gateway.client() as client:
            got = [(await client.get("/", headers=bearer(each))).status_code for each in "ab"]

    assert got == [200, 403]
