"""Webhooks: verdicts, the bytes that go on, and deliveries that come again, on a real store."""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.model_key import WebhookIdentity
from gateway.errors import BODY_TOO_LARGE, ClientError, ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.deliveries import Deliveries, Seen
from gateway.policies.auth.webhook import Webhooks, build
from gateway.policies.base import BuildContext
from tests.e2e.conftest import Serve, serve
from tests.store.servers import BINARIES, VALKEY, Server, opened, serving, stopped
from tests.support.gateway import RunningGateway, eventually, run_gateway
from tests.support.scripted import Peer, ScriptedUpstream, echo, respond

__all__ = ["serve"]

Make = Callable[..., Exchange]
SECRET = "hush-hush"
NUMBERS = itertools.count(1)


def identity(context: BuildContext, **config: Any) -> Webhooks:
    config = {"type": "webhook", "scheme": "github", "secret": SECRET, "remember": "0s", **config}
    return build("hooks", WebhookIdentity.model_validate(config), context)


def github(body: bytes, secret: str = SECRET, delivery: str = "") -> dict[str, str]:
    digest = hmac.digest(secret.encode(), body, "sha256").hex()
    delivery = delivery or f"d{next(NUMBERS)}"
    return {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": delivery}


def slack(body: bytes, at: float) -> dict[str, str]:
    digest = hmac.digest(SECRET.encode(), b"v0:%d:%b" % (at, body), "sha256").hex()
    return {"x-slack-signature": f"v0={digest}", "x-slack-request-timestamp": str(int(at))}


async def judge(hooks: Webhooks, exchange: Exchange) -> Any:
    verdict = hooks.authenticate(exchange)
    if verdict is None or isinstance(verdict, Principal | Rejection):
        return verdict
    return await verdict


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_signed_body_that_streams(context: BuildContext, make_exchange: Make) -> None:
    """The signature covers all pieces, and the whole goes on."""
    exchange = make_exchange(
        "POST", *github(b"one two").items(), body=None, stream=pieces(b"one ", b"two")
    )

    found = await judge(identity(context), exchange)

    assert isinstance(found, Principal)
    assert (found.consumer, found.identity) == ("hooks", "hooks")
    assert found.claims["scheme"] == "github"
    assert exchange.request.body == b"one two"


async def test_nothing_signed(context: BuildContext, make_exchange: Make) -> None:
    """Nothing of this kind was sent, so that another identity may be asked; no body is read."""
    stream = pieces(b"never read")
    exchange = make_exchange("POST", body=None, stream=stream)

    assert await judge(identity(context), exchange) is None
    assert [piece async for piece in stream] == [b"never read"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"x-hub-signature-256": "nonsense"}, "does not begin"),
        ({"x-hub-signature-256": "sha256=zz"}, "is no hex"),
        (github(b"other"), "does not match"),
        (github(b"one", "wrong"), "does not match"),
    ],
)
async def test_bad_signatures(
    context: BuildContext, make_exchange: Make, fields: dict[str, str], reason: str
) -> None:
    """401, and why; nothing that was expected is told."""
    found = await judge(identity(context), make_exchange("POST", *fields.items(), body=b"one"))

    assert isinstance(found, Rejection)
    assert found.kind.status == 401
    assert reason in found.detail and "hush" not in found.detail


@pytest.mark.parametrize(
    ("age", "passes"), [(299, True), (301, False), (-299, True), (-301, False)]
)
async def test_the_window(
    context: BuildContext, make_exchange: Make, age: int, passes: bool
) -> None:
    """Five minutes on either side."""
    exchange = make_exchange("POST", *slack(b"x", time.time() - age).items(), body=b"x")
    found = await judge(identity(context, scheme="slack"), exchange)

    assert isinstance(found, Principal) is passes
    if not passes:
        assert "too far" in found.detail


async def test_a_body_beyond_the_bound(context: BuildContext, make_exchange: Make) -> None:
    """No more is held than was allowed; it ends as 413."""
    hooks = identity(context, max_body="8B")
    exchange = make_exchange("POST", *github(b"x" * 9).items(), body=None, stream=pieces(b"x" * 9))

    with pytest.raises(ClientError) as caught:
        await judge(hooks, exchange)
    assert caught.value.kind is BODY_TOO_LARGE


async def test_a_large_body_is_hashed_beside_the_loop(
    context: BuildContext, make_exchange: Make
) -> None:
    """With the same outcome."""
    body = b"x" * 3_000_000
    good = make_exchange("POST", *github(body).items(), body=body)
    bad = make_exchange("POST", *github(body).items(), body=body + b"x")

    assert isinstance(await judge(identity(context), good), Principal)
    assert isinstance(await judge(identity(context), bad), Rejection)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scheme": "standard", "secret": "whsec_***"}, r"secret\[0\]: expected whsec_"),
        ({"scheme": "hmac", "header": "X-Sig", "payload": "{timestamp}{body}"}, "need each other"),
    ],
)
def test_configuration_that_can_not_work(
    context: BuildContext, config: dict[str, Any], message: str
) -> None:
    """Said when it is read, without the secret."""
    with pytest.raises(ConfigError, match=message) as caught:
        identity(context, **config)
    assert "***" not in str(caught.value)


# Deliveries that come again. The real store, and exchanges that end as the test says.


@pytest.mark.parametrize("binary", BINARIES)
async def test_claims(binary: str, tmp_path: Path, make_exchange: Make) -> None:
    """Refused while the first is under way and once it was taken; heard again if it failed."""
    async with serving(binary, tmp_path) as server, opened(server.unix, tmp_path) as store:
        deliveries = Deliveries(store, "hooks", 60.0, random.Random(1))

        async def end(exchange: Exchange, status: int) -> None:
            exchange.response_status = status
            for hook in exchange.on_finish:
                hook(exchange)
            await deliveries.aclose()

        first, second, third, fourth = (make_exchange() for _ in range(4))
        assert await deliveries.take(first, b"a") is Seen.NEW
        assert await deliveries.take(second, b"a") is Seen.IN_FLIGHT
        assert await deliveries.take(make_exchange(), b"b") is Seen.NEW
        await end(second, 409)
        assert await deliveries.take(make_exchange(), b"a") is Seen.IN_FLIGHT
        await end(first, 503)
        assert await deliveries.take(third, b"a") is Seen.NEW
        await end(third, 202)
        assert await deliveries.take(fourth, b"a") is Seen.DONE
        await end(fourth, 409)
        assert await deliveries.take(make_exchange(), b"a") is Seen.DONE

        elsewhere = make_exchange()
        elsewhere.route = "another"
        assert await deliveries.take(elsewhere, b"a") is Seen.NEW
        (key,) = [k for k in await store.call("KEYS", "*") if await store.call("GET", k) == b"done"]
        assert 0 < await store.call("PTTL", key) <= 60_000


CONFIG = """\
store: {{url: "unix://{socket}", timeout: 500ms}}
identities:
  hooks: {{type: webhook, scheme: {scheme}, secret: "{secret}"{more}}}
upstreams:
  api: {{targets: ["{url}"]}}
routes:
  - {{name: hook, match: {{path: /hook}}, upstream: api, auth: {{any: [hooks]}},
     body: {{max: 1MiB}}}}
"""


@asynccontextmanager
async def hooked(
    folder: Path, upstream: ScriptedUpstream, store: Server, scheme: str = "github", **more: str
) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    """A gateway with a route for webhooks, and a client of it."""
    options = "".join(f", {name}: {value}" for name, value in more.items() if name != "secret")
    text = CONFIG.format(
        socket=store.socket,
        scheme=scheme,
        secret=more.get("secret", SECRET),
        url=upstream.url,
        more=options,
    )
    async with run_gateway(folder, text) as gateway, gateway.client() as client:
        yield gateway, client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real store for the module."""
    server = Server(VALKEY, tmp_path_factory.mktemp("store"))
    server.start()
    try:
        asyncio.run(server.ready())
        yield server
    finally:
        server.kill()


async def test_exact_bytes(serve: Serve, tmp_path: Path) -> None:
    """What is signed is what goes on, byte for byte, with a length and chunked, on both servers."""
    body = b'{ "a" : 1.0,\r\n"b":"\xff\x00" }'
    text = CONFIG.format(socket="/none", scheme="github", secret=SECRET, url="%s",
                         more=", remember: 0s").replace("\nstore:", "\n")  # fmt: skip

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:7]
        yield body[7:]

    async with ScriptedUpstream(echo) as upstream:
        async with serve(text % upstream.url) as gateway, gateway.client() as client:
            whole = await client.post("/hook", content=body, headers=github(body))
            chunked = await client.post("/hook", content=chunks(), headers=github(body))
            changed = await client.post("/hook", content=body + b" ", headers=github(body))
            large = await client.post("/hook", content=b"x" * 1_100_000, headers=github(b"x"))

    assert [got.status_code for got in (whole, chunked, changed, large)] == [200, 200, 401, 413]
    assert [request.body for request in upstream.requests] == [body, body]
    assert upstream.requests[1].get("content-length") == str(len(body))


async def test_a_repeated_delivery(tmp_path: Path, store: Server) -> None:
    """The second time 409; another id is another delivery; one that failed is heard again."""
    statuses = iter([500, 200, 200])

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(respond(b"ok", f"{next(statuses)} X"))

    async with ScriptedUpstream(script) as upstream:
        async with hooked(tmp_path, upstream, store) as (gateway, client):

            async def send(delivery: str) -> httpx.Response:
                got = await client.post(
                    "/hook", content=b"x", headers=github(b"x", SECRET, delivery)
                )
                await settled(gateway)
                return got

            answers = [await send(each) for each in ("a", "a", "a", "b", "b")]

    assert [got.status_code for got in answers] == [500, 200, 409, 200, 409]
    assert answers[2].json()["code"] == "webhook_replayed"
    assert len(upstream.requests) == 3


async def settled(gateway: RunningGateway) -> None:
    """Wait until what was to be noted about deliveries is noted."""
    for key, each in gateway.runtime._shared.items():
        if key[0] == "identity" and isinstance(each, Webhooks) and each._deliveries is not None:
            notes = each._deliveries._notes
            await eventually(lambda: not notes)  # noqa: B023 - waited for at once


async def test_one_at_a_time(tmp_path: Path, store: Server) -> None:
    """Of twenty equal deliveries at once one goes on; the others are asked to come later."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.send(respond(b"ok"))

    headers = github(b"x")
    async with ScriptedUpstream(script) as upstream:
        async with hooked(tmp_path, upstream, store) as (_, client):
            tasks = [
                asyncio.create_task(client.post("/hook", content=b"x", headers=headers))
                for _ in range(20)
            ]
            await eventually(lambda: sum(task.done() for task in tasks) == 19)
            release.set()
            answers = await asyncio.gather(*tasks)

    assert sorted(got.status_code for got in answers) == [200] + [409] * 19
    assert len(upstream.requests) == 1
    refused = next(got for got in answers if got.status_code == 409)
    assert int(refused.headers["retry-after"]) > 0


async def test_a_sender_that_leaves_is_heard_again(tmp_path: Path, store: Server) -> None:
    """Its claim ends with the exchange, not after a minute."""
    arrived = asyncio.Event()

    async def wait(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.until_gone()

    async def serve_it(peer: Peer) -> None:
        await peer.request()
        await peer.send(respond(b"ok"))

    headers = github(b"x")
    async with ScriptedUpstream(wait, serve_it) as upstream:
        async with hooked(tmp_path, upstream, store) as (gateway, client):
            task = asyncio.create_task(client.post("/hook", content=b"x", headers=headers))
            await arrived.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await gateway.quiet()
            await settled(gateway)
            got = await client.post("/hook", content=b"x", headers=headers)

    assert got.status_code == 200


async def test_an_id_is_needed(tmp_path: Path, store: Server) -> None:
    """Leaving out the unsigned id is no way around the memory."""
    headers = github(b"x")
    del headers["x-github-delivery"]
    async with ScriptedUpstream(echo) as upstream:
        async with hooked(tmp_path, upstream, store) as (_, client):
            got = await client.post("/hook", content=b"x", headers=headers)

    assert (got.status_code, got.json()["detail"]) == (401, "the delivery has no id")


async def test_every_scheme_end_to_end(tmp_path: Path, store: Server) -> None:
    """Each takes its own, once."""
    now = int(time.time())
    body = b'{"id": "evt_%d"}' % now
    key = b"key of the standard scheme"
    standard = base64.b64encode(hmac.digest(key, b"m%d.%d." % (now, now) + body, "sha256")).decode()
    stripe = hmac.digest(SECRET.encode(), b"%d." % now + body, "sha256").hex()
    shopify = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
    own = hmac.digest(SECRET.encode(), b"%d|" % now + body, "sha512").hex()
    sent: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "standard": (
            {"webhook-id": f"m{now}", "webhook-timestamp": str(now),
             "webhook-signature": f"v1,{standard}"},
            {"secret": "whsec_" + base64.b64encode(key).decode()},
        ),
        "stripe": ({"stripe-signature": f"t={now},v1={stripe}"}, {}),
        "slack": (slack(body, now), {}),
        "shopify": ({"x-shopify-hmac-sha256": shopify, "x-shopify-webhook-id": f"s{now}"}, {}),
        "hmac": (
            {"x-own": own, "x-time": str(now)},
            {"header": "X-Own", "timestamp_header": "X-Time", "algorithm": "sha512",
             "payload": '"{{timestamp}}|{{body}}"'.replace("{{", "{").replace("}}", "}")},
        ),
    }  # fmt: skip
    async with ScriptedUpstream(echo) as upstream:
        for scheme, (headers, options) in sent.items():
            async with hooked(tmp_path, upstream, store, scheme, **options) as (gateway, client):
                got = await client.post("/hook", content=body, headers=headers)
                await settled(gateway)
                again = await client.post("/hook", content=body, headers=headers)
            assert (scheme, got.status_code, again.status_code) == (scheme, 200, 409)


async def test_without_the_store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refused with 503, within the store's time and no 401; taken where `open` says so."""
    folder = tmp_path_factory.mktemp("stalled")
    async with serving(VALKEY, folder) as store, ScriptedUpstream(echo) as upstream:
        async with hooked(tmp_path, upstream, store) as (_, client):
            assert (await client.post("/hook", content=b"x", headers=github(b"x"))).is_success
            with stopped(store):
                began = time.monotonic()
                stalled = await client.post("/hook", content=b"x", headers=github(b"x"))
                took = time.monotonic() - began
                bad = await client.post("/hook", content=b"x", headers=github(b"x", "wrong"))

            async def recovered() -> bool:
                return (await client.post("/hook", content=b"x", headers=github(b"x"))).is_success

            async with asyncio.timeout(20):
                while not await recovered():
                    await asyncio.sleep(0.05)
        async with hooked(tmp_path, upstream, store, on_store_error="open") as (gateway, client):
            store.signal(signal.SIGKILL)
            passed = await client.post("/hook", content=b"x", headers=github(b"x"))
            reported = gateway.metric("gateway_policy_reported_total", policy="auth")

    assert (stalled.status_code, stalled.json()["code"]) == (503, "store_unavailable")
    assert took < 3.0
    assert bad.status_code == 401
    assert passed.status_code == 200
    assert reported == 1
