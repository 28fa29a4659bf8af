"""Asynchronous routes from outside: accepted, delivered, told of."""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from gateway.delivery.queued import Lane
from tests.e2e.conftest import Serve
from tests.e2e.deliveries import (
    clean,
    config,
    look,
    queue_of,
    rows,
    send,
    settled,
    store_in,
)
from tests.support.gateway import eventually, run_gateway
from tests.support.inbox import Inbox
from tests.support.scripted import ScriptedUpstream

ENVIRON = {"ONE": "key-of-one-0123456789", "TWO": "key-of-two-0123456789"}
KEYS = f"""\
identities:
  partners:
    type: api_key
    header: X-API-Key
    keys:
      - {{consumer: one, hash: "sha256:{sha256(ENVIRON["ONE"].encode()).hexdigest()}"}}
      - {{consumer: two, hash: "sha256:{sha256(ENVIRON["TWO"].encode()).hexdigest()}"}}
"""


ONLY_ACCEPTS = "server: {listen: '127.0.0.1:0', admin: null, deliver: false}\n"


async def test_accepted_delivered_told(serve: Serve, tmp_path: Path) -> None:
    """202 with id, correlation id and status URL; one request upstream; then the status says so."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        got = await client.post(
            "/hooks?x=1",
            json={"a": 1},
            headers={
                "X-Correlation-ID": "c-1", "X-Own": "kept", "Authorization": "Bearer secret",
                "Cookie": "a=b", "X-API-Key": "secret", "Connection": "X-Hop", "X-Hop": "1",
            },
        )  # fmt: skip

        assert got.status_code == 202
        body = got.json()
        event = body["event_id"]
        assert UUID(event).version == 7
        assert got.headers["location"] == body["status_url"] == f"/hooks/{event}"
        assert got.headers["x-correlation-id"] == body["correlation_id"] == "c-1"
        assert (body["state"], body["targets"]) == ("accepted", {"api": "queued"})
        assert "duplicate" not in body
        found = await settled(client, event)
        assert found["state"] == "delivered"
        assert found["correlation_id"] == "c-1"
        (told,) = found["targets"]
        assert told == {"target": "api", "state": "delivered", "attempts": 1, "status": 200}

        (sent,) = inbox.got
        assert (sent.method, sent.target, sent.body) == ("POST", "/hooks?x=1", b'{"a":1}')
        assert sent.get("idempotency-key") == f'"{event}"'
        assert sent.get("x-lockgate-event") == event
        assert sent.get("x-lockgate-attempt") == "1"
        assert sent.get("x-correlation-id") == "c-1"
        assert sent.get("x-own") == "kept"
        for name in ("authorization", "cookie", "x-api-key", "x-hop", "connection"):
            assert sent.get(name) is None, name
        async with queue_of(store) as queue:
            assert b"secret" not in b"".join((await queue.fields(event)).values())
        assert rows(gateway, "accepted_total", result="accepted") == 1
        assert rows(gateway, "attempts_total", result="delivered") == 1
        assert rows(gateway, "outcome_seconds") == rows(gateway, "attempt_seconds") == 1
        assert rows(gateway, "in_flight") == 0
        await gateway.quiet()
        await clean(store)


async def test_the_status_is_for_its_sender(serve_lean: Serve, tmp_path: Path) -> None:
    """Somebody else's event, another route's, and none at all are the same 404."""
    inbox = Inbox()
    other = """\
  - name: others
    match: {path: /others, methods: [POST]}
    auth: {any: [partners]}
    upstream: api
    delivery: {}
"""
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(
            config(upstream, store, route="    auth: {any: [partners]}\n" + other, extra=KEYS),
            environ=ENVIRON,
        ) as gateway,
        gateway.client() as client,
    ):
        one, two = ({"X-API-Key": ENVIRON[name]} for name in ("ONE", "TWO"))
        event = (await send(client, **{"X-API-Key": ENVIRON["ONE"]}))["event_id"]

        async def ask(path: str, headers: dict[str, str]) -> int:
            return (await client.get(path, headers=headers)).status_code

        assert await ask(f"/hooks/{event}", one) == 200
        assert await ask(f"/hooks/{event}", two) == 404
        assert await ask(f"/hooks/{event}", {}) == 401
        assert await ask(f"/others/{event}", one) == 404
        assert await ask("/hooks/nothing", one) == 404
        assert await ask(f"/hooks/{event}%00", one) in (400, 404)
        assert await ask(f"/hooks/{'x' * 3000}", one) == 404
        # What the gateway writes of the key is nothing, and the event is delivered without it.
        await inbox.until(1)
        assert inbox.field("x-api-key") == [None]


async def test_waiting_for_the_outcome(serve: Serve, tmp_path: Path) -> None:
    """`Prefer: wait` answers 200 once it is settled, and 202 if that takes longer."""
    inbox = Inbox()
    inbox.go.clear()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve(config(upstream, store, "{wait: 9s}")) as gateway,
        gateway.client() as client,
    ):
        slow = await client.post("/hooks", headers={"Prefer": "wait=0"})
        assert (slow.status_code, slow.json()["state"]) == (202, "accepted")
        assert slow.headers["preference-applied"] == "wait=0"
        waiting = asyncio.create_task(
            client.post("/hooks", headers={"Prefer": "respond-async, wait=100"})
        )
        gone = asyncio.create_task(client.post("/hooks", headers={"Prefer": "wait=9"}))
        await inbox.until(3)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        inbox.go.set()
        got = await waiting
        assert (got.status_code, got.json()["state"]) == (200, "delivered")
        assert got.headers["preference-applied"] == "wait=9"
        assert (await client.post("/hooks", headers={"Prefer": "wait=x"})).status_code == 202
        await gateway.quiet()
        (dispatcher,) = (each for _, each in gateway.runtime.known("delivery"))
        assert dispatcher._watches == {}
        assert rows(gateway, "attempts_total", result="delivered") >= 3


@pytest.mark.parametrize(
    ("rule", "same", "reused"),
    [
        ("header", {"a": 1}, {"a": 2}),
        ("body.id", {"a": 2}, None),
        ("'hash(body.id, headers.X-Id)'", {"a": 2}, None),
    ],
)
async def test_one_key_one_event(
    serve_lean: Serve,
    tmp_path: Path,
    rule: str,
    same: dict[str, int],
    reused: dict[str, int] | None,
) -> None:
    """Repetitions get 202 and the first one's id; a header's key for another body is refused."""
    inbox = Inbox()
    route = f"    idempotency: {{key: {rule}, required: true}}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(config(upstream, store, route=route)) as gateway,
        gateway.client() as client,
    ):
        fields = {"idempotency_key": '"a\\"b"', "x_id": "1"}
        first, second = await asyncio.gather(
            send(client, {"id": "e", "a": 1}, **fields), send(client, {"id": "e", "a": 1}, **fields)
        )
        third = await send(client, {"id": "e", **same}, **fields)
        assert first["event_id"] == second["event_id"] == third["event_id"]
        assert third["duplicate"] is True
        assert sorted([first.get("duplicate", False), second.get("duplicate", False)]) == [
            False, True,
        ]  # fmt: skip
        assert third["status_url"] == first["status_url"]
        headers = {"Idempotency-Key": fields["idempotency_key"], "X-Id": "1"}
        if reused is not None:
            got = await client.post("/hooks", json={"id": "e", **reused}, headers=headers)
            assert (got.status_code, got.json()["code"]) == (422, "idempotency_key_reused")
            assert rows(gateway, "accepted_total", result="idempotency_key_reused") == 1
            missing = await client.post("/hooks", json={})
            assert missing.json()["code"] == "idempotency_key_missing"
        await settled(client, first["event_id"])
        assert len(inbox.got) == 1
        if rule == "header":
            assert inbox.field("idempotency-key") == ['"a\\"b"']
        assert rows(gateway, "accepted_total", result="duplicate") == 2


def signed(body: bytes, message: str) -> dict[str, str]:
    """What a sender puts on its webhook, by Standard Webhooks."""
    secret = b"a-secret-of-some-length-0123456789"
    stamp = str(int(time.time()))
    content = f"{message}.{stamp}.".encode() + body
    value = b64encode(hmac.new(secret, content, sha256).digest()).decode()
    return {
        "webhook-id": message, "webhook-timestamp": stamp, "webhook-signature": f"v1,{value}",
        "content-type": "application/json",
    }  # fmt: skip


WEBHOOK = 'identities: {sender: {type: webhook, scheme: standard, secret: "${env:SECRET}"}}\n'
SECRET = {"SECRET": "whsec_" + b64encode(b"a-secret-of-some-length-0123456789").decode()}


async def test_signed_webhooks(serve_lean: Serve, tmp_path: Path) -> None:
    """A delivery that comes twice is one event; a bad signature is none; 413 and 422 as ever."""
    inbox = Inbox()
    route = "    auth: {any: [sender]}\n    body: {max: 1KiB}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(
            config(upstream, store, "{ordered_by: body.order}", route=route, extra=WEBHOOK),
            environ=SECRET,
        ) as gateway,
        gateway.client() as client,
    ):

        async def post(body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
            got = await client.post("/hooks", content=body, headers=headers)
            return got.status_code, got.json()

        body = b'{"order": 7}'
        code, first = await post(body, signed(body, "m-1"))
        assert (code, "duplicate" in first) == (202, False)
        code, again = await post(body, signed(body, "m-1"))
        assert (code, again["duplicate"], again["event_id"]) == (202, True, first["event_id"])
        code, other = await post(body, signed(body, "m-2"))
        assert other["event_id"] != first["event_id"]
        assert (await post(body, signed(b"{}", "m-3")))[0] == 401
        assert (await post(b"x" * 2000, signed(b"x" * 2000, "m-4")))[0] == 413
        for bad in (b"{}", b"\xff", b"[" * 900):
            code, refusal = await post(bad, signed(bad, f"b-{len(bad)}"))
            assert (code, refusal["code"]) == (422, "invalid_body")
        # What was refused binds no id.
        code, _ = await post(body, signed(body, "b-2"))
        assert code == 202
        await inbox.until(3)
        # The sender's proof is not the target's.
        assert inbox.field("webhook-signature") == [None] * 3


async def test_a_replayed_webhook_with_another_key(serve_lean: Serve, tmp_path: Path) -> None:
    """The key is not signed: changing it makes no new event of a delivery that was taken."""
    inbox = Inbox()
    route = "    auth: {any: [sender]}\n    idempotency: {}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(config(upstream, store, route=route, extra=WEBHOOK), environ=SECRET) as gateway,
        gateway.client() as client,
    ):
        headers = signed(b"{}", "m-1")
        answers = [
            await client.post("/hooks", content=b"{}", headers={**headers, "Idempotency-Key": key})
            for key in ("k-1", "k-2", "k-1")
        ]
        assert [got.status_code for got in answers] == [202] * 3
        assert len({got.json()["event_id"] for got in answers}) == 1
        renewed = await client.post(
            "/hooks", content=b"{}", headers={**signed(b"{}", "m-2"), "Idempotency-Key": "k-1"}
        )
        assert renewed.json()["event_id"] == answers[0].json()["event_id"]


async def test_invalid_ones_are_quarantined(serve_lean: Serve, tmp_path: Path) -> None:
    """202 and a dead letter for each target, with what was wrong; nothing is sent."""
    inbox = Inbox()
    schema = '{"type": "object", "required": ["order"]}'
    route = f"    validate: {{request: {{body: {schema}}}, on_invalid: quarantine}}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(config(upstream, store, "{ordered_by: body.order}", route=route)) as gateway,
        gateway.client() as client,
    ):
        bad = await send(client, {"x": 1})
        good = await send(client, {"order": 1})
        assert (bad["state"], bad["targets"]) == ("quarantined", {"api": "dead"})
        found = await look(client, bad["event_id"])
        assert found["state"] == "failed"
        assert found["targets"][0]["reason"] == "invalid"
        assert (await settled(client, good["event_id"]))["state"] == "delivered"
        assert len(inbox.got) == 1
        assert rows(gateway, "accepted_total", result="quarantined") == 1
        async with queue_of(store) as queue:
            assert await queue.store.call("ZCARD", queue.key("dead", "hooks")) == 1


async def test_a_quarantine_that_only_reports(serve_lean: Serve, tmp_path: Path) -> None:
    """In report mode what is invalid is delivered, and counted."""
    inbox = Inbox()
    schema = '{"type": "object", "required": ["order"]}'
    route = f"    validate: {{request: {{body: {schema}}}, on_invalid: quarantine, mode: report}}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(config(upstream, store, route=route)) as gateway,
        gateway.client() as client,
    ):
        event = await send(client, {"x": 1})
        assert event["state"] == "accepted"
        assert (await settled(client, event["event_id"]))["state"] == "delivered"
        assert inbox.bodies() == [{"x": 1}]


async def test_upgrades_are_refused(serve_lean: Serve, tmp_path: Path) -> None:
    """Nothing can be kept of a WebSocket."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve_lean(config(upstream, store).replace("methods: [POST]", "methods: [GET]")) as gateway,
        gateway.raw() as client,
    ):
        got = await client.ask(
            b"GET /hooks HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert 400 <= got.status < 500
        assert not inbox.got
        assert rows(gateway, "accepted_total") == 0


async def test_the_client_leaves_while_it_is_kept(serve: Serve, tmp_path: Path) -> None:
    """After any number of turns: what was kept is delivered, the rest was never there."""
    inbox = Inbox()
    data = b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        serve(config(upstream, store)) as gateway,
        queue_of(store) as queue,
    ):
        for turns in range(25):
            async with gateway.raw() as client:
                client.writer.write(data)
                for _ in range(turns):
                    await asyncio.sleep(0)
                client.reset()
        await gateway.quiet()

        async def depth() -> int:
            return (await queue.depth(Lane("hooks", "api")))[0]

        async with asyncio.timeout(20):
            while await depth():
                await asyncio.sleep(0.01)
        kept = await queue.store.call("KEYS", queue.key("event", "*"))
        await eventually(lambda: len(inbox.got) == len(kept))
        assert len(set(inbox.field("x-lockgate-event"))) == len(kept) > 0
        for key in kept:
            assert await queue.store.call("HGET", key, "s:api") == b"d"
        await clean(store)


async def test_what_newer_gateways_wrote_stays(tmp_path: Path) -> None:
    """An event that can't be read is put off, and nothing of it is changed; others go on."""
    inbox = Inbox()
    async with store_in(tmp_path) as store, ScriptedUpstream(inbox) as upstream:
        async with queue_of(store) as queue:
            async with (
                run_gateway(tmp_path, ONLY_ACCEPTS + config(upstream, store)) as gateway,
                gateway.client() as client,
            ):
                strange = (await send(client))["event_id"]
                key = queue.key("event", strange)
                await queue.store.call("HSET", key, "head", b"\x93\x01\x02\x03")
                before = await queue.fields(strange)
                await send(client)
                assert not inbox.got, "this gateway leaves delivering to others"
            async with run_gateway(tmp_path, config(upstream, store)) as gateway:
                async with gateway.client() as client:
                    await inbox.until(1)
                    await eventually(lambda: rows(gateway, "in_flight") == 0)
                    assert (await client.get(f"/hooks/{strange}")).status_code == 404
                after = await queue.fields(strange)
                assert after.pop(b"f:api") == b"1"
                assert (after.pop(b"s:api"), before.pop(b"s:api")) == (b"w", b"q")
                assert after == before
                assert await queue.store.call("ZCARD", queue.key("later", "hooks/api")) == 1
    assert len(inbox.got) == 1
