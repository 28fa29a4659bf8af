"""Several targets, their order, what they are sent, and who is told at the end."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections import defaultdict
from pathlib import Path

from gateway.delivery.queued import Lane
from tests.e2e.deliveries import (
    as_text,
    clean,
    config,
    look,
    queue_of,
    rows,
    send,
    settled,
    store_in,
    target,
)
from tests.support.gateway import eventually, run_gateway
from tests.support.inbox import Inbox, status
from tests.support.scripted import ScriptedUpstream

CALLBACK = Lane("hooks", "callback")


def two_more(crm: ScriptedUpstream) -> str:
    """Another upstream, as a further key of the first one's line."""
    return f'timeout: 3s}}\n  crm: {{targets: ["{crm.url}"]'


async def test_targets_succeed_or_fail_alone(tmp_path: Path) -> None:
    """Each by its condition, with path, method and body; one that is down delays no other."""
    api, crm = Inbox(status(500)), Inbox()
    to = [
        "api",
        {"upstream": "crm", "path": "/in/box", "method": "PUT", "when": "body.total > 100",
         "body": {"id": "=body.id", "who": "=consumer", "from": "lockgate"}},
        {"name": "copy", "upstream": "crm", "when": "body.total < 10"},
    ]  # fmt: skip
    options = as_text({"to": to, "attempts": 2, "schedule": ["1h"]})
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(api) as one,
        ScriptedUpstream(crm) as two,
        run_gateway(tmp_path, config(one, store, options, api=two_more(two))) as gateway,
        gateway.client() as client,
    ):
        large = await send(client, {"id": 1, "total": 500})
        small = await send(client, {"id": 2, "total": 1})
        strange = await send(client, {"id": 3, "total": "many"})
        assert large["targets"] == {"api": "queued", "crm": "queued", "copy": "skipped"}
        assert small["targets"] == {"api": "queued", "crm": "skipped", "copy": "queued"}
        assert strange["targets"] == {"api": "queued", "crm": "dead", "copy": "dead"}
        await crm.until(2)
        await api.until(3)
        sent = {request.target: request for request in crm.got}
        assert set(sent) == {"/in/box", "/hooks"}
        put = sent["/in/box"]
        assert (put.method, put.get("content-type")) == ("PUT", "application/json")
        assert json.loads(put.body) == {"id": 1, "who": "", "from": "lockgate"}
        assert sent["/hooks"].body == b'{"id":2,"total":1}'
        await eventually(lambda: rows(gateway, "attempts_total", result="retried") == 3)
        told = {each["target"]: each for each in (await look(client, large["event_id"]))["targets"]}
        assert [told[name]["state"] for name in ("api", "crm", "copy")] == [
            "waiting", "delivered", "skipped",
        ]  # fmt: skip
        assert (await target(client, strange["event_id"], "crm"))["code"] == "condition_failed"


async def test_mappings_that_fail(tmp_path: Path) -> None:
    """A dead letter at once, for a later attempt would fail as well."""
    inbox = Inbox()
    options = as_text({"to": [{"upstream": "api", "body": {"id": "=body.id"}}]})
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path, config(upstream, store, options)) as gateway,
        gateway.client() as client,
    ):
        (told,) = (await settled(client, (await send(client, {"no": 1}))["event_id"]))["targets"]
        assert (told["reason"], told["code"]) == ("invalid", "mapping_failed")
        compressed = {"content-encoding": "x-own", "content-digest": "a=:b:"}
        await client.post("/hooks", json={"id": 7}, headers=compressed)
        await inbox.until(1)
        assert inbox.bodies() == [{"id": 7}]
        assert inbox.field("content-encoding") == inbox.field("content-digest") == [None]


async def test_order_under_retries_and_two_gateways(tmp_path: Path) -> None:
    """One after another for each order id, whoever delivers; the orders beside one another."""
    inbox = Inbox()
    inbox.reply = lambda _, number: status(500 if number % 3 == 0 else 200)
    options = "{ordered_by: body.order, schedule: [5ms], attempts: 50, concurrency: 6}"
    for name in "ab":
        (tmp_path / name).mkdir()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path / "a", config(upstream, store, options), instance="a") as one,
        run_gateway(tmp_path / "b", config(upstream, store, options), instance="b") as two,
        one.client() as client,
        two.client() as other,
    ):
        events = []
        for number in range(8):
            for order in ("x", "y", "z"):
                via = client if number % 2 else other
                event = await send(via, {"order": order, "number": number})
                events.append(event["event_id"])
        for event in events:
            assert (await settled(client, event))["state"] == "delivered"
        seen: dict[str, list[int]] = defaultdict(list)
        for body in inbox.bodies():
            seen[body["order"]].append(body["number"])
        for numbers in seen.values():
            # Repeated, but never one before another that came earlier.
            assert numbers == sorted(numbers)
            assert set(numbers) == set(range(8))
        shares = [rows(each, "attempts_total", result="delivered") for each in (one, two)]
        assert sum(shares) == 24
        assert min(shares) > 0
        await clean(store)
        async with queue_of(store) as queue:
            assert await queue.store.call("KEYS", queue.key("order", "*")) == []


async def test_gateways_share_the_load(tmp_path: Path) -> None:
    """What one accepts the other may deliver; each event is delivered once."""
    inbox = Inbox()
    for name in "ab":
        (tmp_path / name).mkdir()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(tmp_path / "a", config(upstream, store, "{concurrency: 1}")) as one,
        run_gateway(tmp_path / "b", config(upstream, store, "{concurrency: 1}")) as two,
        one.client() as client,
    ):
        inbox.go.clear()
        events = {(await send(client))["event_id"] for _ in range(10)}
        await inbox.until(2)
        assert rows(one, "in_flight") == rows(two, "in_flight") == 1
        inbox.go.set()
        await inbox.until(10)
        assert set(inbox.field("x-lockgate-event")) == events
        await eventually(lambda: rows(one, "in_flight") + rows(two, "in_flight") == 0)
        assert len(inbox.got) == 10
        await clean(store)


async def test_the_callback(tmp_path: Path) -> None:
    """Told once all is settled, by a signed POST that is repeated until it is taken."""
    inbox, caller = Inbox(status(404)), Inbox(status(500), status(200))
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        ScriptedUpstream(caller) as back,
    ):
        options = as_text({
            "schedule": ["10ms"], "callback": {"url": f"{back.url}/done"}, "max_total": "5s",
            "sign": {"secret": "${env:SECRET}"},
        })  # fmt: skip
        secret = {"SECRET": "whsec_" + b64encode(b"0123456789abcdef0123456789").decode()}
        async with (
            run_gateway(tmp_path, config(upstream, store, options), environ=secret) as gateway,
            gateway.client() as client,
        ):
            event = (await send(client))["event_id"]
            await caller.until(2)
            first, second = caller.got
            assert (first.method, first.target) == ("POST", "/done")
            assert first.body == second.body
            told = json.loads(second.body)
            assert (told["event_id"], told["state"]) == (event, "failed")
            assert told["targets"][0]["reason"] == "permanent"
            assert first.get("idempotency-key") == f'"{event}.callback"'
            assert first.get("webhook-id") == f"{event}.callback"
            assert first.get("x-correlation-id") == told["correlation_id"]
            await eventually(
                lambda: rows(gateway, "attempts_total", target="callback", result="delivered") == 1
            )
            assert len((await look(client, event))["targets"]) == 1, "it is no target of theirs"
            await clean(store, CALLBACK)
    assert len(caller.got) == 2


async def test_targets_can_prove_the_sender(tmp_path: Path) -> None:
    """What is signed here is accepted by a gateway that asks for it, each attempt anew."""
    secret = {"SECRET": "whsec_" + b64encode(b"0123456789abcdef0123456789").decode()}
    inbox = Inbox()
    for name in "ab":
        (tmp_path / name).mkdir()
    async with store_in(tmp_path) as store, ScriptedUpstream(inbox) as upstream:
        receiving = f"""\
store: {{url: "{store.unix}", key_prefix: other}}
identities: {{sender: {{type: webhook, scheme: standard, secret: "${{env:SECRET}}"}}}}
upstreams: {{api: {{targets: ["{upstream.url}"]}}}}
routes:
  - {{name: in, match: {{path: "/{{rest:path}}"}}, upstream: api, auth: {{any: [sender]}}}}
"""
        async with run_gateway(tmp_path / "b", receiving, environ=secret, instance="b") as receiver:
            text = config(upstream, store, '{sign: {secret: "${env:SECRET}"}}')
            text = text.replace(upstream.url, receiver.url)
            async with (
                run_gateway(tmp_path / "a", text, environ=secret) as gateway,
                gateway.client() as client,
            ):
                before = time.time()
                event = await send(client, {"x": 1}, **{"webhook-signature": "v1,forged"})
                found = await settled(client, event["event_id"])
                assert found["state"] == "delivered"
                (got,) = inbox.got
                assert got.get("webhook-id") == event["event_id"]
                assert int(got.get("webhook-timestamp") or 0) >= int(before)


async def test_fields_that_connection_names(tmp_path: Path) -> None:
    """They end here; but nobody can name away what the gateway writes."""
    inbox = Inbox()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(inbox) as upstream,
        run_gateway(
            tmp_path,
            config(
                upstream,
                store,
                '{sign: {secret: "${env:S}"}}',
                route="    rewrite: {host: preserve}",
            ),
            environ={"S": "text"},
        ) as gateway,
        gateway.raw() as client,
    ):
        got = await client.ask(
            b"POST /hooks HTTP/1.1\r\nHost: public.internal\r\nContent-Length: 2\r\n"
            b"Content-Type: text/x\r\nX-Hop: 1\r\nX-Lockgate-Event: mine\r\nTE: trailers\r\n"
            b"Connection: X-Hop, Idempotency-Key, Webhook-Signature, X-Lockgate-Event, TE, "
            b"Content-Type, Traceparent\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n{}"
        )
        assert got.status == 202
        event = json.loads(got.body)["event_id"]
        await inbox.until(1)
        (sent,) = inbox.got
        assert sent.get("x-hop") is None
        assert sent.get("x-lockgate-event") == event
        assert sent.get("idempotency-key") == f'"{event}"'
        assert (sent.get("webhook-signature") or "").startswith("v1,")
        assert sent.get("content-type") == "text/x"
        assert sent.get("traceparent")
        assert sent.get("host") == "public.internal"
        assert "6.6.6.6" not in (sent.get("x-forwarded-for") or "")
