"""Whole gateways in front of an upstream, with an identity provider over HTTP beside them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.policies.auth.policy import AuthPolicy
from gateway.policies.auth.signed import SignedToken
from tests.policies.auth.attacks import ATTACKS
from tests.policies.auth.conftest import Serve
from tests.support.gateway import RunningGateway, eventually, routes
from tests.support.idp import IdentityProvider, SigningKey
from tests.support.scripted import ScriptedUpstream, echo


def config(
    idp: IdentityProvider, upstream: ScriptedUpstream, identity: str = "", auth: str = ""
) -> str:
    """One route that takes staff."""
    more = f", {auth}" if auth else ""
    return idp.staff(identity) + routes(upstream.url, options=f"auth: {{any: [staff]{more}}}")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def remembered(gateway: RunningGateway) -> SignedToken:
    """The identity that the first route asks."""
    for policy in gateway.snapshot.routes[0].policies:
        if isinstance(policy, AuthPolicy):
            identity = policy._identities[0]
            assert isinstance(identity, SignedToken)
            return identity
    raise AssertionError


async def test_with_and_without_a_token(serve_both: Serve, key: SigningKey) -> None:
    """200 with a good token; 401 without one, and with a bad one, each with its challenge."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve_both(config(idp, upstream)) as gateway, gateway.client() as client:
            good = await client.get("/", headers=bearer(idp.token()))
            again = await client.get("/", headers=bearer(idp.token()))
            none = await client.get("/")
            bad = await client.get("/", headers=bearer(idp.token(exp=1)))
            query = await client.get("/", params={"access_token": idp.token()})
            lines = await gateway.lines(5)

    assert [good.status_code, again.status_code] == [200, 200]
    assert (none.status_code, none.json()["code"]) == (401, "missing_credentials")
    assert none.headers.get_list("www-authenticate") == ['Bearer realm="staff"']
    assert (bad.status_code, bad.json()["code"]) == (401, "invalid_credentials")
    assert bad.json()["detail"] == "the token has expired"
    assert bad.headers["www-authenticate"] == (
        'Bearer realm="staff", error="invalid_token", error_description="the token has expired"'
    )
    assert query.json()["code"] == "missing_credentials"
    assert [line.get("consumer") for line in lines] == ["web", "web", None, None, None]
    assert len(upstream.requests) == 2


async def test_attacks(serve_both: Serve, key: SigningKey, strange: SigningKey) -> None:
    """No hostile token reaches the upstream, none is a 500, none makes the gateway call anyone."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve_both(config(idp, upstream)) as gateway, gateway.client() as client:
            assert (await client.get("/", headers=bearer(idp.token()))).status_code == 200
            for name, attack in ATTACKS.items():
                got = await client.get("/", headers=bearer(attack(idp, strange)))

                assert got.status_code == 401, name
                assert got.json()["code"] == "invalid_credentials", name
    assert len(upstream.requests) == 1
    assert set(idp.calls) == {"/.well-known/openid-configuration", "/keys"}
    assert idp.calls["/keys"] == 2, "an unknown kid is looked for once, then not again for a while"


async def test_several_authorization_fields(serve: Serve, key: SigningKey) -> None:
    """On the wire, too."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream)) as gateway, gateway.raw() as client:
            line = b"Authorization: Bearer " + idp.token().encode() + b"\r\n"
            got = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + line + b"\r\n")

    assert got.status == 401
    assert upstream.requests == []


async def test_the_start_does_not_wait(serve: Serve, key: SigningKey) -> None:
    """Provider down at the start: 503 with Retry-After, never 401; good as soon as it is there."""
    idp = IdentityProvider(key)
    await idp.start()
    await idp.stop()
    async with ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            down = await client.get("/", headers=bearer(idp.token()))
            without = await client.get("/")
            garbage = await client.get("/", headers=bearer("a.b.c"))
            await idp.start()
            up = down
            async with asyncio.timeout(10):
                while up.status_code == 503:
                    await asyncio.sleep(0.05)
                    up = await client.get("/", headers=bearer(idp.token()))
            assert gateway.metric("gateway_identity_provider_calls_total", result="failed") >= 1
            assert gateway.metric("gateway_identity_provider_calls_total", result="ok") == 1
    await idp.stop()

    assert (down.status_code, down.json()["code"]) == (503, "identity_unavailable")
    assert int(down.headers["retry-after"]) >= 1
    assert "www-authenticate" not in down.headers
    assert without.status_code == 401
    assert garbage.status_code == 401
    assert up.status_code == 200


async def test_requests_wait_for_the_first_keys(serve: Serve, key: SigningKey) -> None:
    """While the first fetch is under way, requests wait for it, and all of them make one."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.gate = asyncio.Event()
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            waiting = [
                asyncio.create_task(client.get("/", headers=bearer(idp.token(jti=str(n)))))
                for n in range(10)
            ]
            await eventually(lambda: gateway.metric("gateway_requests_in_flight") == 10)
            waiting[0].cancel()
            await eventually(lambda: gateway.metric("gateway_requests_in_flight") == 9)
            idp.gate.set()
            got = await asyncio.gather(*waiting[1:])

    assert {each.status_code for each in got} == {200}
    assert idp.calls["/keys"] == 1


async def test_a_slow_provider_is_given_up(serve: Serve, key: SigningKey) -> None:
    """The time limit of one call bounds what a request waits for."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.gate = asyncio.Event()
        async with serve(config(idp, upstream, "timeout: 100ms")) as gateway:
            async with gateway.client() as client:
                got = await client.get("/", headers=bearer(idp.token()))
        idp.gate.set()

    assert (got.status_code, got.json()["code"]) == (503, "identity_unavailable")


async def test_a_request_waits_so_long_and_no_longer(serve: Serve, key: SigningKey) -> None:
    """Two slow calls, each within its limit: the request is not kept for both; the next is fine."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream, "timeout: 1s")) as gateway:
            await eventually(lambda: idp.calls["/keys"] == 1)
            idp.delay = 0.7
            await gateway.reload(config(idp, upstream, "timeout: 1001ms"))
            async with gateway.client() as client:
                first = await client.get("/", headers=bearer(idp.token()))
                await eventually(lambda: remembered(gateway)._source.keys is not None)
                second = await client.get("/", headers=bearer(idp.token()))

    assert (first.status_code, first.json()["code"]) == (503, "identity_unavailable")
    assert first.headers["retry-after"] == "1"
    assert second.status_code == 200


async def test_closing_while_requests_wait(serve: Serve, key: SigningKey) -> None:
    """A fetch that is cut answers nobody, and cancels nobody: 503."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        idp.gate = asyncio.Event()
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            waiting = asyncio.create_task(client.get("/", headers=bearer(idp.token())))
            await eventually(lambda: gateway.metric("gateway_requests_in_flight") == 1)
            await remembered(gateway)._source.aclose()
            got = await waiting
            idp.gate.set()

    assert got.status_code == 503


@pytest.mark.parametrize("trouble", ["status", "issuer", "garbage", "empty", "private", "large"])
async def test_a_provider_that_talks_nonsense(
    serve: Serve, key: SigningKey, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it answers can't be used: 503, and the log says why."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        if trouble == "status":
            idp.status = 500
        elif trouble == "issuer":
            idp.issuer_says = "https://evil.test"
        elif trouble == "garbage":
            idp.body = b"<html>"
        elif trouble == "empty":
            idp.published = []
        elif trouble == "private":
            idp.published = [key.private_jwk()]
        else:
            idp.body = b"[" * (2 * 1024 * 1024)
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            got = await client.get("/", headers=bearer(idp.token()))

    assert (got.status_code, got.json()["code"]) == (503, "identity_unavailable")
    expected = {"status": "answered 500", "issuer": "another issuer", "garbage": "not JSON",
                "empty": "no key", "private": "private key", "large": "larger than"}  # fmt: skip
    assert expected[trouble] in caplog.text


@pytest.mark.parametrize("path", ["", "/realms/a"])
async def test_discovery_by_rfc_8414(serve: Serve, key: SigningKey, path: str) -> None:
    """Without an OpenID configuration, the metadata of RFC 8414 is found, path and all."""
    async with IdentityProvider(key, path=path) as idp, ScriptedUpstream(echo) as upstream:
        idp.oidc = False
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            got = await client.get("/", headers=bearer(idp.token()))

    assert got.status_code == 200
    assert idp.calls[f"/.well-known/oauth-authorization-server{path}"] == 1


async def test_a_rotated_key_is_found(serve: Serve, key: SigningKey) -> None:
    """A token of a new key is accepted at once; one of the old key no more."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream, f'jwks: "{idp.jwks_url}"')) as gateway:
            async with gateway.client() as client:
                old = idp.token()
                first = await client.get("/", headers=bearer(old))
                idp.rotate("k2")
                new = [await client.get("/", headers=bearer(idp.token())) for _ in range(2)]
                withdrawn = await client.get("/", headers=bearer(old))

    assert first.status_code == 200
    assert [each.status_code for each in new] == [200, 200]
    assert (withdrawn.status_code, withdrawn.json()["code"]) == (401, "invalid_credentials")
    assert idp.calls == {"/keys": 2}


async def test_unknown_kids_do_not_flood_the_provider(
    serve: Serve, key: SigningKey, strange: SigningKey
) -> None:
    """Many made-up key names at once: one question."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            await client.get("/", headers=bearer(idp.token()))
            tokens = [idp.token(strange, header={"kid": f"x{n}"}) for n in range(30)]
            got = await asyncio.gather(*(client.get("/", headers=bearer(t)) for t in tokens))

    assert {each.status_code for each in got} == {401}
    assert {each.json()["detail"] for each in got} == {"the token's key is not known"}
    assert idp.calls["/keys"] == 2


async def test_keys_are_refreshed_before_they_expire(serve: Serve, key: SigningKey) -> None:
    """In the background: no request waits, and a withdrawn key is gone soon."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream, "refresh: 100ms")) as gateway:
            async with gateway.client() as client:
                token = idp.token()
                assert (await client.get("/", headers=bearer(token))).status_code == 200
                idp.rotate("k2")
                await eventually(lambda: len(remembered(gateway).remembered) == 0)
                got = await client.get("/", headers=bearer(token))

    assert got.status_code == 401
    assert idp.calls["/.well-known/openid-configuration"] == 1


async def test_the_last_keys_serve_for_a_while(serve: Serve, key: SigningKey) -> None:
    """Provider gone: the last keys serve through the grace, then it is 503, until it is back."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        options = "refresh: 200ms, grace: 600ms"
        async with serve(config(idp, upstream, options)) as gateway, gateway.client() as client:
            token = idp.token()
            assert (await client.get("/", headers=bearer(token))).status_code == 200
            await idp.stop()
            failed = {"name": "gateway_identity_provider_calls_total", "result": "failed"}
            await eventually(lambda: gateway.metric(**failed) >= 1)
            in_grace = await client.get("/", headers=bearer(idp.token(jti="2")))
            unknown = await client.get("/", headers=bearer(idp.token(header={"kid": "new"})))
            await eventually(lambda: remembered(gateway)._source.keys is None)
            after = await client.get("/", headers=bearer(token))
            await idp.start()
            await eventually(lambda: remembered(gateway)._source.keys is not None)
            again = await client.get("/", headers=bearer(token))

    assert in_grace.status_code == 200
    assert (unknown.status_code, unknown.json()["code"]) == (503, "identity_unavailable")
    assert (after.status_code, after.json()["code"]) == (503, "identity_unavailable")
    assert again.status_code == 200


async def test_keys_in_a_file(serve: Serve, key: SigningKey, tmp_path: Any) -> None:
    """A JWKS file is read at the start, and again when it changes."""
    file = tmp_path / "keys.json"
    idp = IdentityProvider(key)
    file.write_text(json.dumps({"keys": idp.published}))
    async with ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream, "jwks: keys.json")) as gateway:
            async with gateway.client() as client:
                first = await client.get("/", headers=bearer(idp.token()))
                old = idp.token()
                idp.rotate("k2")
                file.write_text(json.dumps({"keys": idp.published}))
                second = await client.get("/", headers=bearer(idp.token()))
                third = await client.get("/", headers=bearer(old))
                file.write_text("{")
                with pytest.raises(ConfigError, match=r"keys\.json"):
                    await gateway.reload(config(idp, upstream, "jwks: keys.json, leeway: 1s"))
                broken = await client.get("/", headers=bearer(idp.token()))

    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 401]
    assert broken.status_code == 200


async def test_a_reload_keeps_keys_and_tokens(serve: Serve, key: SigningKey) -> None:
    """What did not change is kept; a changed identity keeps the keys, not what it had accepted."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(idp, upstream)) as gateway, gateway.client() as client:
            token = idp.token()
            await client.get("/", headers=bearer(token))
            before = remembered(gateway)
            await gateway.reload(config(idp, upstream) + "# another generation\n")
            assert remembered(gateway) is before
            assert len(before.remembered) == 1
            # The old generation drains, which must not close what the new one uses.
            await eventually(lambda: len(gateway.runtime._live) == 1)
            await idp.stop()
            kept = await client.get("/", headers=bearer(token))
            await gateway.reload(
                config(idp, upstream, "audience: other-api").replace("audience: orders-api, ", "")
            )
            assert remembered(gateway) is not before
            refused = await client.get("/", headers=bearer(token))

    assert kept.status_code == 200
    assert (refused.status_code, refused.json()["detail"]) == (
        401,
        "the token is for another audience",
    )
    assert idp.calls["/keys"] == 1


async def test_tiers_follow_the_configuration(serve: Serve, key: SigningKey) -> None:
    """The consumer's tier is joined, and a remembered token does not keep an old one."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        text = config(idp, upstream)
        async with serve(text + "consumers: {web: {tier: gold}}\n") as gateway:
            async with gateway.client() as client:
                token = idp.token()
                tiers = []
                for tier in ("gold", "lead"):
                    await gateway.reload(text + f"consumers: {{web: {{tier: {tier}}}}}\n")
                    await client.get("/", headers=bearer(token))
                    (entry,) = remembered(gateway).remembered.young.values()
                    tiers.append(entry.principal.tier)

    assert tiers == ["gold", "lead"]


async def test_two_gateways_in_one_process(serve: Serve, key: SigningKey, tmp_path: Any) -> None:
    """They share nothing: each asks for itself, and one's end is not the other's."""
    from tests.support.gateway import run_gateway

    (tmp_path / "other").mkdir()
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        text = config(idp, upstream)
        async with serve(text) as one, one.client() as client:
            async with run_gateway(tmp_path / "other", text) as two, two.client() as other:
                token = idp.token()
                got = [await each.get("/", headers=bearer(token)) for each in (client, other)]
            got.append(await client.get("/", headers=bearer(idp.token(jti="3"))))

    assert [each.status_code for each in got] == [200, 200, 200]
    assert idp.calls["/keys"] == 2


async def test_claims_for_the_upstream(serve_both: Serve, key: SigningKey) -> None:
    """Asked for, they are told; what clients send under these names goes nowhere, on any route."""
    identity_fields = (
        "forward_claims: {X-Tenant: tenant, X-Roles: roles}, forward_consumer: X-Consumer"
    )
    sent = {
        "X-Tenant": "evil", "X_Tenant": "evil", "x-TENANT": "evil", "X.Roles": "evil",
        "X-Roles": "evil", "X-Consumer": "evil", "X_Consumer": "evil", "X-Mine": "kept",
        "Connection": "keep-alive, X-Tenant, x-consumer",
    }  # fmt: skip
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        text = (
            idp.staff()
            + f"""
upstreams: {{api: {{targets: ["{upstream.url}"]}}}}
routes:
  - {{name: open, match: {{path: /open}}, upstream: api}}
  - name: closed
    match: {{path: /closed}}
    upstream: api
    auth: {{any: [staff], {identity_fields}, hide_credentials: true}}
"""
        )
        async with serve_both(text) as gateway, gateway.client() as client:
            token = bearer(idp.token(tenant="acme", roles=["a", "b"]))
            await client.get("/closed", headers={**sent, **token})
            await client.get("/open", headers={**sent, **token})

    closed, opened = upstream.requests
    assert closed.get_all("x-tenant") == ["acme"]
    assert closed.get_all("x-roles") == ["a, b"]
    assert closed.get_all("x-consumer") == ["web"]
    assert closed.get("authorization") is None
    assert opened.get("authorization") is not None
    for request in (closed, opened):
        assert b"evil" not in request.raw
        assert request.get("x-mine") == "kept"
    assert opened.get("x-tenant") is None


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00b", "\x7f", None, ""])
async def test_claims_that_no_field_can_hold(serve: Serve, key: SigningKey, value: Any) -> None:
    """Control characters end in no header: the field is left out."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        auth = "forward_claims: {X-Name: name}"
        async with serve(config(idp, upstream, auth=auth)) as gateway, gateway.client() as client:
            got = await client.get("/", headers={**bearer(idp.token(name=value)), "X-Name": "root"})

    assert got.status_code == 200
    assert upstream.requests[0].get("x-name") is None
    assert upstream.requests[0].get("x-evil") is None


async def test_scopes_and_rules(serve_both: Serve, key: SigningKey) -> None:
    """401 asks who you are, 403 says that you may not: scopes, claims, and a rule over the path."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        text = (
            idp.staff()
            + f"""
upstreams: {{api: {{targets: ["{upstream.url}"]}}}}
routes:
  - {{name: all, match: {{path: /all}}, upstream: api, auth: {{any: [staff], scopes: [a, b]}}}}
  - {{name: one, match: {{path: /one}}, upstream: api, auth: {{any: [staff], scopes_any: [a, c]}}}}
  - name: claim
    match: {{path: /claim}}
    upstream: api
    auth: {{any: [staff], claims: {{org.id: [7, 8]}}}}
  - name: rule
    match: {{path: "/t/{{tenant}}"}}
    upstream: api
    auth: {{any: [staff], require: "claims.tenant == params.tenant && request.method in ['GET']"}}
"""
        )
        async with serve_both(text) as gateway, gateway.client() as client:

            async def ask(path: str, method: str = "GET", **claims: Any) -> tuple[int, str]:
                got = await client.request(method, path, headers=bearer(idp.token(**claims)))
                if got.status_code == 403 and "www-authenticate" in got.headers:
                    assert 'error="insufficient_scope"' in got.headers["www-authenticate"]
                return got.status_code, got.json()["code"] if got.status_code != 200 else ""

            ok = (200, "")
            assert await ask("/all", scope="b c a") == ok
            assert await ask("/all", scope="a") == (403, "insufficient_scope")
            assert await ask("/all", scope="a,b") == (403, "insufficient_scope")
            assert await ask("/one", scope="c") == ok
            assert await ask("/one", scope=["c", "d"]) == ok
            assert await ask("/one", scope="b") == (403, "insufficient_scope")
            assert await ask("/one", scope=None) == (403, "insufficient_scope")
            assert await ask("/claim", org={"id": 8}) == ok
            assert await ask("/claim", org={"id": "8"}) == (403, "not_permitted")
            assert await ask("/claim", org={"id": True}) == (403, "not_permitted")
            assert await ask("/claim") == (403, "not_permitted")
            assert await ask("/t/acme", tenant="acme") == ok
            assert await ask("/t/acme", tenant="other") == (403, "not_permitted")
            assert await ask("/t/acme", "POST", tenant="acme") == (403, "not_permitted")
            assert await ask("/t/acme") == (403, "not_permitted")
            assert await ask("/t/acme", tenant=2**62) == (403, "not_permitted")
            assert await ask("/t/acme", tenant=["acme"]) == (403, "not_permitted")
            needs = await client.get("/all", headers=bearer(idp.token(scope="")))

    assert needs.headers["www-authenticate"] == (
        'Bearer realm="staff", error="insufficient_scope", scope="a b"'
    )


async def test_report_mode(serve: Serve, key: SigningKey) -> None:
    """What would have been refused passes, and is counted; who calls is known all the same."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        auth = "mode: report, scopes: [admin]"
        async with serve(config(idp, upstream, auth=auth)) as gateway, gateway.client() as client:
            got = [
                await client.get("/"),
                await client.get("/", headers=bearer("a.b.c")),
                await client.get("/", headers=bearer(idp.token())),
            ]
            lines = await gateway.lines(3)

    assert [each.status_code for each in got] == [200, 200, 200]
    assert [line["reported"] for line in lines] == [
        ["auth:missing_credentials"], ["auth:invalid_credentials"], ["auth:insufficient_scope"],
    ]  # fmt: skip
    assert lines[2]["consumer"] == "web"


async def test_preflights_need_no_token(serve: Serve, key: SigningKey) -> None:
    """A preflight is answered before anyone is asked; refusals carry the CORS fields."""
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        text = idp.staff() + routes(
            upstream.url, options='auth: {any: [staff]}, cors: {origins: ["https://app.internal"]}'
        )
        async with serve(text) as gateway, gateway.client() as client:
            origin = {"Origin": "https://app.internal"}
            preflight = await client.options(
                "/", headers={**origin, "Access-Control-Request-Method": "GET"}
            )
            refused = await client.get("/", headers=origin)
            plain = await client.options("/", headers=origin)

    assert preflight.status_code == 204
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.internal"
    assert plain.status_code == 401


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("any: [stuff]", 'no identity "stuff"; did you mean "staff"'),
        ("any: []", "must not be empty"),
        ("any: [staff], require: 'claims.x =='", "at 1:12"),
        ("any: [staff], require: 'clams.x == 1'", 'unknown name "clams" at 1:1'),
        ("any: [staff], require: 'request.bogus == 1'", 'no "bogus"'),
        ("any: [staff], require: 'claims.x.lower() == 1'", 'unknown function "lower" at 1:10'),
        ("any: [staff], optional: true, scopes: [a]", "anonymous"),
        ("any: [staff], scopes: ['a b']", "scopes"),
        ("any: [staff], forward_claims: {Connection: sub}", "connection"),
    ],
)
async def test_configurations_that_can_not_be_meant(
    serve: Serve, key: SigningKey, auth: str, message: str
) -> None:
    """Refused when it is loaded, with the place and the reason."""
    idp = IdentityProvider(key)
    text = idp.staff() + routes("http://127.0.0.1:1", options=f"auth: {{{auth}}}")
    with pytest.raises(ConfigError, match=r"gateway\.yaml:[0-9]+:[0-9]+: routes\[0\]") as caught:
        async with serve(text):
            pass
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "identity",
    [
        "type: jwt, audience: a",
        "type: jwt, issuer: https://a.test",
        "type: jwt, issuer: https://a.test, audience: []",
        "type: jwt, issuer: https://a.test, audience: a, algorithms: [HS256]",
        "type: jwt, issuer: https://a.test, audience: a, algorithms: [none]",
        "type: jwt, issuer: name, audience: a",
        "type: jwt, issuer: https://a.test, audience: a, jwks: ftp://a.test/keys",
        "type: jwt, issuer: https://a.test, audience: a, jwks: missing.json",
        "type: introspection, url: not-a-url, client_id: a, client_secret: b",
        "type: introspection, url: https://u:p@a.test/, client_id: a, client_secret: b",
    ],
)
async def test_identities_that_can_not_work(serve: Serve, identity: str) -> None:
    """What is needed, and what is unsafe, is said when it is loaded."""
    text = f"identities: {{staff: {{{identity}}}}}\n" + routes(
        "http://127.0.0.1:1", options="auth: {any: [staff]}"
    )
    with pytest.raises(ConfigError):
        async with serve(text):
            pass
