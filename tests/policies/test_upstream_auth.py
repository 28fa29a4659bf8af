"""The gateway's own credentials, end to end: a real token endpoint, a real upstream."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.message import Headers
from gateway.policies.base import BuildContext
from gateway.policies.upstream_auth.config import UpstreamAuthConfig
from gateway.policies.upstream_auth.policy import UpstreamAuthPolicy, write
from gateway.policies.upstream_auth.source import TokenSource
from tests.e2e.conftest import Serve, serve
from tests.support.gateway import RunningGateway, eventually, load, run_gateway
from tests.support.scripted import Peer, Received, ScriptedUpstream, echo, respond

__all__ = ["serve"]


def build(context: BuildContext, **config: Any) -> UpstreamAuthPolicy:
    return UpstreamAuthPolicy.build(UpstreamAuthConfig.model_validate(config), context)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"type": "bearer", "token": "s3cret\r\nX: y"}, "token"),
        ({"type": "bearer", "token": "s3cret\n"}, "token"),
        ({"type": "header", "name": "X-Key", "value": "s3crét"}, "value"),
    ],
)
def test_what_no_field_takes(context: BuildContext, config: dict[str, str], path: str) -> None:
    """Refused when it is read, and not repeated."""
    with pytest.raises(ConfigError) as caught:
        build(context, **config)
    assert caught.value.path == path and "s3cr" not in str(caught.value)


def test_the_client_can_not_get_in_between() -> None:
    """Its own field, other spellings of it and Connection are no way to add or remove one."""
    headers = Headers(
        [(b"x-key", b"a"), (b"x_key", b"b"), (b"x.key", b"c"), (b"x-other", b"d"),
         (b"connection", b"X-Key, close, X-Other")]
    )  # fmt: skip
    write(headers, b"x-key", b"ours")

    assert sorted(headers.raw) == [
        (b"connection", b"close, x-other"), (b"x-key", b"ours"), (b"x-other", b"d"),
    ]  # fmt: skip
    assert headers.index[b"x-key"] == b"ours" and b"x_key" not in headers.index


def config(upstream: str, auth: str, extra: str = "") -> str:
    return f"""\
upstreams:
  api: {{targets: ["{upstream}"], auth: {auth}}}
defaults: {{timeout: 10s}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api}}
{extra}"""


@pytest.mark.parametrize(
    ("auth", "field", "value"),
    [
        ("{type: bearer, token: abc}", "authorization", "Bearer abc"),
        ("{type: basic, username: gw, password: 'pä:ss'}", "authorization",
         "Basic " + base64.b64encode("gw:pä:ss".encode()).decode()),
        ("{type: header, name: X-Key, value: abc}", "x-key", "abc"),
    ],
)  # fmt: skip
async def test_what_stands_fast(serve: Serve, auth: str, field: str, value: str) -> None:
    """The field is the gateway's, whatever the client sends."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream.url, auth)) as gateway:
        async with gateway.client() as client:
            await client.get("/x", headers={field: "mine", "Connection": field})

    assert upstream.requests[0].get_all(field) == [value]


class Provider:
    """A token endpoint. `issued` counts; `reply` is what it answers, in place of a token."""

    def __init__(self) -> None:
        self.issued = 0
        self.reply: bytes | None = None
        self.life: Any = 300
        self.requests: list[Received] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.requests.append(request)
            await self.gate.wait()
            reply = self.reply
            if reply is None:
                self.issued += 1
                token = {"access_token": f"t{self.issued}", "token_type": "Bearer"}
                reply = respond(json.dumps({**token, "expires_in": self.life}).encode())
            await peer.send(reply)


class Api:
    """An upstream that takes the tokens in `good`, or any, and says 401 to others."""

    def __init__(self, *good: str) -> None:
        self.good = good

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            token = (request.get("authorization") or "").removeprefix("Bearer ")
            fine = not self.good or token in self.good
            await peer.send(respond(token.encode(), "200 OK" if fine else "401 Unauthorized"))


def credentials(provider: ScriptedUpstream, **options: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in options.items())
    return (
        f'{{type: client_credentials, token_url: "{provider.url}/token", client_id: gw, '
        f"client_secret: s3cret, scopes: [orders]{more}}}"
    )


def source(gateway: RunningGateway) -> TokenSource:
    return next(e for k, e in gateway.runtime._shared.items() if k[0] == "upstream token")


async def test_one_token_for_all(serve: Serve) -> None:
    """Fetched once, before anyone asks; the client's own credentials go no further."""
    provider = Provider()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api()) as upstream:
        async with serve(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client(headers={"Authorization": "Bearer mine"}) as client:
                answers = await asyncio.gather(*(client.get("/x") for _ in range(20)))
            counted = gateway.metric("gateway_upstream_token_requests_total", outcome="success")

    assert {got.text for got in answers} == {"t1"}
    assert counted == 1
    (request,) = provider.requests
    assert request.body == b"grant_type=client_credentials&scope=orders"
    assert request.get("authorization") == "Basic " + base64.b64encode(b"gw:s3cret").decode()


async def test_a_provider_that_is_down(serve_one: Serve) -> None:
    """503, with Retry-After and no secret; back by itself. Nothing of it is a 401."""
    provider = Provider()
    provider.reply = respond(b'{"error": "invalid_client"}', "401 Unauthorized")
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api()) as upstream:
        async with serve_one(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client() as client:
                got = await client.get("/x")
                again = await client.get("/x")
                assert len(provider.requests) == 1  # not asked again for each request
                provider.reply = None
                source(gateway)._state.not_before = 0.0
                back = await client.get("/x")
            failed = gateway.metric("gateway_upstream_token_requests_total", outcome="failure")

    for refused in (got, again):
        assert refused.status_code == 503
        assert refused.json()["code"] == "upstream_credentials_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        assert "s3cret" not in refused.text and "idp" not in refused.text
    assert (back.status_code, back.text) == (200, "t1")
    assert failed == 1
    assert len(upstream.requests) == 1


async def test_a_provider_that_is_slow(serve_one: Serve) -> None:
    """Waiting for a token is part of the route's time; who waits is not a second call."""
    provider = Provider()
    provider.gate.clear()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api()) as upstream:
        text = config(upstream.url, credentials(idp)).replace("10s", "200ms")
        async with serve_one(text) as gateway:
            async with gateway.client() as client:
                answers = await asyncio.gather(*(client.get("/x") for _ in range(5)))
                await gateway.quiet()
                provider.gate.set()
                await eventually(lambda: source(gateway).current() is not None)
                good = await client.get("/x")

    assert {got.status_code for got in answers} == {504}
    assert good.text == "t1"
    assert len(provider.requests) == 1


async def test_a_token_that_the_upstream_refuses(serve_one: Serve) -> None:
    """A new one is fetched, and the request sent once more, whatever its method."""
    provider = Provider()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api("t2")) as upstream:
        async with serve_one(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client() as client:
                answers = await asyncio.gather(
                    *(client.post("/x", content=b"body") for _ in range(5))
                )
                after = await client.get("/x")
            await gateway.quiet()

    assert [(got.status_code, got.text) for got in [*answers, after]] == [(200, "t2")] * 6
    assert provider.issued == 2
    assert {request.body for request in upstream.requests} == {b"body", b""}


async def test_a_body_that_streamed_is_not_sent_again(serve_one: Serve) -> None:
    """Its 401 goes to the client; the next request has the new token."""
    provider = Provider()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0.05)
        yield b"two"

    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api("t2")) as upstream:
        async with serve_one(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client() as client:
                refused = await client.post("/x", content=chunks())
                await eventually(lambda: source(gateway).current() == "t2")
                good = await client.post("/x", content=chunks())

    assert (refused.status_code, good.status_code) == (401, 200)


async def test_an_upstream_that_refuses_everything(serve_one: Serve) -> None:
    """Its 401 passes, and the token endpoint is not asked again and again."""
    provider = Provider()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api("none")) as upstream:
        async with serve_one(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client() as client:
                answers = [await client.get("/x") for _ in range(10)]

    assert {got.status_code for got in answers} == {401}
    assert provider.issued == 2


async def test_a_reload_keeps_the_token(serve_one: Serve) -> None:
    """Whatever else changes; changed credentials begin anew, and the old ones are let go."""
    provider = Provider()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api()) as upstream:
        async with serve_one(config(upstream.url, credentials(idp))) as gateway:
            async with gateway.client() as client:
                first = await client.get("/x")
                more = "  - {name: more, match: {path: /more}, respond: {status: 204}}\n"
                await gateway.reload(config(upstream.url, credentials(idp), more))
                kept = await client.get("/x")
                changed = credentials(idp).replace("s3cret", "new-s3cret")
                await gateway.reload(config(upstream.url, changed))
                anew = await client.get("/x")
                await eventually(
                    lambda: sum(key[0] == "upstream token" for key in gateway.runtime._shared) == 1
                )

    assert [got.text for got in (first, kept, anew)] == ["t1", "t1", "t2"]


async def test_two_upstreams_with_the_same_credentials(serve_one: Serve) -> None:
    """Share the token."""
    provider = Provider()
    async with ScriptedUpstream(provider) as idp, ScriptedUpstream(Api()) as upstream:
        auth = credentials(idp)
        text = f"""\
upstreams:
  a: {{targets: ["{upstream.url}"], auth: {auth}}}
  b: {{targets: ["{upstream.url}"], auth: {auth}}}
  c: {{targets: ["{upstream.url}"]}}
routes:
  - {{name: a, match: {{path: /a}}, upstream: a, timeout: 5s}}
  - {{name: b, match: {{path: /b}}, upstream: b, timeout: 5s}}
  - {{name: c, match: {{path: /c}}, upstream: c, timeout: 5s}}
"""
        async with serve_one(text) as gateway, gateway.client() as client:
            found = [(await client.get(path)).text for path in ("/a", "/b", "/c")]

    assert found == ["t1", "t1", ""]
    assert provider.issued == 1


async def test_a_rotated_file(tmp_path: Path) -> None:
    """A file that a reference names is part of the configuration: changed, it is another one."""
    secret = tmp_path / "token"
    secret.write_text("one\n")
    async with ScriptedUpstream(echo) as upstream:
        text = config(upstream.url, '{type: bearer, token: "${file:token}"}')
        before = load(tmp_path, text).configuration
        assert secret in before.files
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            await client.get("/x")
            # As Kubernetes does: another file in its place.
            other = tmp_path / "token.new"
            other.write_text("two\n")
            other.replace(secret)
            assert load(tmp_path, text).configuration.fingerprint != before.fingerprint
            await gateway.reload(text)
            await client.get("/x")

    assert [request.get("authorization") for request in upstream.requests] == [
        "Bearer one", "Bearer two",
    ]  # fmt: skip


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    """Not in dumps, not in reprs; one that stands in the file is warned of, with its place."""
    text = config("http://a", "{type: basic, username: gw, password: s3cret}")
    loaded = load(tmp_path, text).configuration

    shown = loaded.gateway.model_dump_json() + repr(loaded.gateway)
    assert "s3cret" not in shown
    (warning,) = [each for each in loaded.warnings if "secret" in each.message]
    assert warning.path == "upstreams.api.auth.password"

    (tmp_path / "p").write_text("s3cret")
    text = config("http://a", '{type: basic, username: gw, password: "${file:p}"}')
    assert not [
        each for each in load(tmp_path, text).configuration.warnings if "secret" in str(each)
    ]


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("{}", "auth.type: required"),
        ("[]", "auth: expected a mapping"),
        ("{type: bearr, token: a}", "auth.type: unknown type; did you mean"),
        ("{type: [a]}", "auth.type: unknown type; one of client_credentials, bearer"),
        ("{type: bearer}", "auth.token: required"),
        ("{type: bearer, tokn: a}", 'auth.tokn: unknown key "tokn"'),
        ("{type: header, name: Host, value: a}", "auth.name: Host is written"),
        ("{type: basic, username: 'a:b', password: s3cret}", "auth.username"),
        ("{type: bearer, token: [s3cret]}", "auth.token"),
    ],
)
def test_errors_have_their_place(tmp_path: Path, auth: str, said: str) -> None:
    """With the path of the key, and without the secret."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config("http://a", auth))
    assert f"upstreams.api.{said}" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def serve_one(tmp_path: Path) -> Serve:
    """A gateway on our own protocol."""

    def begin(text: str) -> Any:
        return run_gateway(tmp_path, text)

    return begin
