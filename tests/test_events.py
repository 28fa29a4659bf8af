"""The robust flow that ships (config/routes/events.yaml), walked through every branch."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from gateway.admin.control import DeliveryCall
from gateway.delivery.audit_entry import Entry
from gateway.runtime import Runtime, load_configuration
from gateway.server.bind import bind
from gateway.server.local import LocalPlane
from tests.support.gateway import RunningGateway, eventually
from tests.support.scripted import OK, Peer, Received, ScriptedUpstream, answer, respond

ROOT = Path(__file__).resolve().parent.parent
# Only how long things take; a minute of waiting is not for tests.
FASTER = {"timeout: 3s": "timeout: 300ms", "base: 1s": "base: 20ms", "max: 20s": "max: 100ms"}
ORDER = {"event_id": "e-1", "lines": [{"sku": "A-1", "quantity": 3}]}
ENRICHED = {**ORDER, "channel": "web", "currency": "EUR", "priority": 3}
BUSY = respond(b"later", "503 Service Unavailable")
Status = dict[str, Any]


class Service:
    """The orders API: answers each call with the next of these, the last one again and again; None
    is no answer in time.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.calls: list[tuple[float, Received]] = []
        self._answers = answers

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            answer = self._answers[min(len(self.calls), len(self._answers) - 1)]
            self.calls.append((monotonic(), request))
            if answer is None:
                await peer.until_gone()
                return
            await peer.send(answer)

    def bodies(self) -> list[Any]:
        return [json.loads(request.body) for _, request in self.calls]

    def fields(self, name: str) -> list[str | None]:
        return [request.get(name) for _, request in self.calls]


class Flow:
    """The gateway with the shipped configuration, a client, and what the webhook was told."""

    def __init__(
        self, gateway: RunningGateway, client: httpx.AsyncClient, hook: ScriptedUpstream
    ) -> None:
        self.gateway = gateway
        self.client = client
        self._hook = hook

    async def send(self, event: object) -> httpx.Response:
        return await self.client.post("/v1/events/orders", json=event)

    async def kept(self, event: object) -> str:
        answer = await self.send(event)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["status_url"])

    async def outcome(self, event: object) -> Status:
        """How it ended for the orders API."""
        url = await self.kept(event)
        found: Status = {}

        async def settled() -> bool:
            found.update((await self.client.get(url)).json())
            return found["state"] != "accepted"

        await until(settled)
        [target] = found["targets"]
        return {"event": found["state"], **target}

    async def alert(self) -> dict[str, Any]:
        """The first alert."""
        await eventually(lambda: any(each.body for each in self._hook.requests))
        found: dict[str, Any] = json.loads(self._hook.requests[0].body)
        return found

    async def audit(self, correlation_id: str) -> list[str]:
        """What the audit says of a transaction, once its request is in it."""
        found: list[str] = []

        async def complete() -> bool:
            call = DeliveryCall("trace", {"correlation_id": correlation_id})
            told = await self.gateway.plane.delivery(call)
            found[:] = [_words(each) for each in told.data.entries]
            return any(each.startswith("call") for each in found)

        await until(complete)
        return found


def _words(entry: Entry) -> str:
    words = (entry.kind, entry.verdict, str(entry.status or ""))
    return " ".join(word for word in words if word)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20.0):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def flow(folder: Path, service: Service) -> AsyncIterator[Flow]:
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "plugins").symlink_to(ROOT / "plugins")
    file = folder / "config" / "routes" / "events.yaml"
    text = file.read_text()
    for old, new in FASTER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)
    async with ScriptedUpstream(service) as upstream, ScriptedUpstream(answer(OK)) as hook:
        environ = {
            "LOCKGATE_LISTEN": "127.0.0.1:0",
            "LOCKGATE_DATA": str(folder / "data"),
            "ORDERS_URL": upstream.url,
            "ALERTS_URL": f"{hook.url}/alerts",
        }
        loaded = load_configuration(folder / "config" / "gateway.yaml", environ)
        listen = loaded.configuration.gateway.server.listen
        plane = LocalPlane(Runtime(instance="test"), bind(listen, "test")[0], settle=lambda _: None)
        try:
            await plane.apply(loaded)
            gateway = RunningGateway(plane, folder)
            async with gateway.client() as client:
                yield Flow(gateway, client, hook)
        finally:
            await plane.aclose()


async def test_an_event_is_enriched_delivered_and_audited(tmp_path: Path) -> None:
    """The usual way: what is left out gets its default, what is there stays, all of it is audited;
    a repetition is answered with the first one's id and delivered once.
    """
    service = Service(OK)
    async with flow(tmp_path, service) as running:
        first = await running.client.post(
            "/v1/events/orders", json=ORDER, headers={"X-Correlation-ID": "walk-1"}
        )
        assert first.status_code == 202
        again = await running.outcome(ORDER)
        assert (again["event"], again["status"], again["attempts"]) == ("delivered", 200, 1)
        repeated = (await running.send(ORDER)).json()
        assert repeated["duplicate"] is True
        assert repeated["event_id"] == first.json()["event_id"]
        other = {**ORDER, "event_id": "e-2", "channel": "app", "currency": "USD", "priority": 1}
        await running.outcome(other)

        assert service.bodies() == [ENRICHED, other]
        assert [request.target for _, request in service.calls] == ["/orders", "/orders"]
        assert service.fields("x-correlation-id")[0] == "walk-1"
        trail = await running.audit("walk-1")
        assert sorted(trail) == ["accepted", "attempt delivered 200", "call 202"]


async def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Every violation in one answer; nothing is kept, nothing is sent."""
    service = Service(OK)
    async with flow(tmp_path, service) as running:
        bad = await running.send({"event_id": "", "lines": [], "surprise": 1})
        assert bad.status_code == 422
        assert bad.json()["code"] == "invalid_body"
        text = bad.text
        assert all(name in text for name in ("event_id", "lines", "surprise"))
        plain = await running.client.post("/v1/events/orders", content=b"{")
        assert plain.status_code == 415
        large = await running.send({**ORDER, "event_id": "x" * 70_000})
        assert large.status_code == 413
        assert running.gateway.metric("gateway_delivery_accepted_total") == 0
        assert service.calls == []


async def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    """No answer in time, a connection that breaks, 5xx: up to five retries, each with the same
    idempotency key and the number of its attempt.
    """
    service = Service(None, BUSY, BUSY, respond(b"", "500 Oops"), respond(b"", "408 Slow"), OK)
    async with flow(tmp_path, service) as running:
        found = await running.outcome(ORDER)

    assert (found["event"], found["attempts"], found["status"]) == ("delivered", 6, 200)
    assert service.fields("x-lockgate-attempt") == ["1", "2", "3", "4", "5", "6"]
    assert set(service.fields("idempotency-key")) == {'"e-1"'}
    assert service.bodies() == [ENRICHED] * 6
    # The call that got no answer was given up after its time, and not before.
    assert service.calls[1][0] - service.calls[0][0] >= 0.29


async def test_what_never_passes_is_given_up(tmp_path: Path) -> None:
    """After five retries it is a dead letter, with what was answered last, and somebody is told."""
    service = Service(BUSY)
    async with flow(tmp_path, service) as running:
        found = await running.outcome(ORDER)
        assert (found["event"], found["state"], found["reason"]) == ("failed", "dead", "exhausted")
        assert (found["attempts"], found["status"]) == (6, 503)
        assert len(service.calls) == 6
        told = await running.alert()
        assert (told["route"], told["reason"]) == ("events.order_placed", "exhausted")


async def test_rate_limits_are_waited_for(tmp_path: Path) -> None:
    """429 with Retry-After: not before that. One that asks for more time than there is, is given up
    at once.
    """
    limit = respond(b"", "429 Too Many Requests", b"Retry-After: 1")
    service = Service(limit, OK, respond(b"", "429 Too Many Requests", b"Retry-After: 61"))
    async with flow(tmp_path, service) as running:
        found = await running.outcome(ORDER)
        assert (found["event"], found["attempts"]) == ("delivered", 2)
        assert service.calls[1][0] - service.calls[0][0] >= 1.0

        found = await running.outcome({**ORDER, "event_id": "e-2"})
        assert (found["reason"], found["attempts"], found["status"]) == ("expired", 1, 429)


async def test_what_is_refused_for_good_is_a_dead_letter_at_once(tmp_path: Path) -> None:
    """A 4xx is not tried again: a dead letter, and somebody is told."""
    service = Service(respond(b'{"detail": "no such sku"}', "422 Unprocessable Content"))
    async with flow(tmp_path, service) as running:
        found = await running.outcome(ORDER)
        assert (found["event"], found["reason"], found["status"]) == ("failed", "permanent", 422)
        assert found["attempts"] == 1
        assert len(service.calls) == 1
        dead = "gateway_delivery_dead_letters_total"
        assert running.gateway.metric(dead, reason="permanent") == 1
        told = await running.alert()
        assert (told["reason"], told["count"], told["newest"]["status"]) == ("permanent", 1, 422)
        assert "no such sku" not in json.dumps(told)


async def test_no_false_promise_without_a_store(tmp_path: Path) -> None:
    """While the store is away the answer is 503 with Retry-After; once it is back the same event is
    kept and delivered.
    """
    service = Service(OK)
    async with flow(tmp_path, service) as running:
        engine = int((tmp_path / "data" / "lock").read_text().split()[1])
        os.kill(engine, signal.SIGSTOP)
        try:
            refused = await running.send(ORDER)
        finally:
            os.kill(engine, signal.SIGCONT)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]

        async def kept() -> bool:
            return (await running.send(ORDER)).status_code == 202

        await until(kept)
        assert (await running.outcome(ORDER))["event"] == "delivered"
        assert len({request.get("x-lockgate-event") for _, request in service.calls}) == 1
