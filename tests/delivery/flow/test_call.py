"""One call of a flow: what is sent, and what its answer means. The upstream is a handler."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.delivery.event import Event, Head, Record
from gateway.delivery.flow.answers import FLOW_ROOTS, Answers
from gateway.delivery.flow.call import Attempted, Called, Caller, CallPlan, Succeeded
from gateway.delivery.flow.progress import Kept
from gateway.delivery.mapping import Mapping
from gateway.delivery.outcome import Failed, Paused, Reason
from gateway.delivery.sign import Signer
from gateway.delivery.target import make_exchange
from gateway.errors import CIRCUIT_OPEN, RESPONSE_INCOMPLETE, UpstreamError
from gateway.expressions import Expression
from gateway.message import Exchange, Response
from gateway.observability.trace import IdSource
from gateway.routing.template import Template

HEAD = Head(
    route="r", method="POST", path="/in", query=b"q=1", host="h", consumer="c", identity="i",
    headers=[
        (b"content-type", b"text/plain"), (b"content-digest", b"x"), (b"accept-encoding", b"gzip"),
    ],
    params={"region": "eu"}, raw_params={"region": "eu"}, tier="", correlation_id="c-1", trace=None,
    received_at=1.0, generation=1, key='k"',
)  # fmt: skip
EVENT = Event("e-1", HEAD, b'{"id": 7, "list": [1]}', 1.0)
WHICH = Attempted("a", "a", 2, 100)


class Upstream:
    """Keeps what it is asked, and answers what it is told."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or Response(200, [], b"{}")
        self.asked: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> Response:
        self.asked.append(exchange)
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Response = self.answer
        return answer


async def call(upstream: Upstream, signer: Signer | None = None, **plan: Any) -> Called:
    ids = IdSource(random.Random(1))
    caller = Caller(ManualClock(), ids, signer)
    made = replace(CallPlan(upstream), **plan)
    answers = Answers(make_exchange(EVENT, Record(), 0.0, ids))
    return await caller.call(made, EVENT, Record(), answers, WHICH)


def mapping(template: Any) -> Mapping:
    return Mapping(template, FLOW_ROOTS)


async def test_without_more_it_is_the_event() -> None:
    """With a key and a number of its own."""
    upstream = Upstream()
    assert await call(upstream) == Succeeded(200)
    request = upstream.asked[0].request
    assert (request.method, request.path, request.query) == ("POST", "/in", b"q=1")
    assert request.body == EVENT.body
    assert request.headers.get(b"content-type") == b"text/plain"
    assert request.headers.get(b"idempotency-key") == b'"k\\":a"'
    assert request.headers.get(b"x-lockgate-attempt") == b"2"


async def test_what_a_plan_says_stands_instead() -> None:
    """Each part by itself; what told of the old body is gone with it."""
    upstream = Upstream()
    await call(
        upstream,
        method="PUT",
        path=Template("/x/{region}/{id}"),
        params=mapping({"id": "=body.id"}),
        query=mapping({"a b": "=body.id", "none": "=null", "yes": "=true"}),
        headers=mapping({"X-Id": "=string(body.id)"}),
        body=mapping({"id": "=body.id"}),
    )
    request = upstream.asked[0].request
    assert (request.method, request.path) == ("PUT", "/x/eu/7")
    assert request.query == b"a%20b=7&yes=true"
    assert request.headers.get(b"x-id") == b"7"
    assert (request.body, request.headers.get(b"content-length")) == (b'{"id":7}', b"8")
    assert request.headers.get(b"content-type") == b"application/json"
    assert b"content-digest" not in request.headers


@pytest.mark.parametrize(
    ("plan", "length"),
    [({"method": "GET"}, None), ({"method": "DELETE"}, None), ({"no_body": True}, b"0")],
)
async def test_no_body(plan: dict[str, Any], length: bytes | None) -> None:
    """For methods without one, and where the step says so."""
    upstream = Upstream()
    await call(upstream, **plan)
    request = upstream.asked[0].request
    assert (request.body, request.headers.get(b"content-length")) == (b"", length)
    assert b"content-type" not in request.headers


@pytest.mark.parametrize(
    "plan",
    [
        {"headers": mapping({"x": "='a\\nb'"})},
        {"headers": mapping({"x": "=body.list"})},
        {"query": mapping({"x": "=body.nothing"})},
        {"path": Template("/{id}"), "params": mapping({"id": "=''"})},
        {"body": mapping({"x": "=body.nothing"})},
    ],
)
async def test_what_can_t_be_made_is_not_sent(plan: dict[str, Any]) -> None:
    """The event is invalid for this step."""
    upstream = Upstream()
    found = await call(upstream, **plan)
    assert isinstance(found, Failed)
    assert (found.permanent, found.code, found.reason) == (True, "mapping_failed", Reason.INVALID)
    assert upstream.asked == []


async def test_each_call_is_signed_as_a_message_of_its_own() -> None:
    """Receivers tell messages apart by their ids."""
    upstream = Upstream()
    await call(upstream, Signer(["secret"]))
    headers = upstream.asked[0].request.headers
    assert headers.get(b"webhook-id") == b"e-1.a"
    assert headers.get(b"webhook-signature") is not None


@pytest.mark.parametrize(
    ("status", "expect", "found"),
    [
        (404, {404}, Succeeded(404)),
        (503, {503}, Succeeded(503)),
        (200, {201}, Failed(True, 200, "unexpected_status", answer=b"text")),
        (404, {201}, Failed(True, 404, answer=b"text")),
        (503, {201}, Failed(False, 503, answer=b"text")),
    ],
)
async def test_what_is_expected_is_success(status: int, expect: set[int], found: Called) -> None:
    """And nothing else; only what time may help with is tried again."""
    upstream = Upstream(Response(status, [], b"text"))
    assert await call(upstream, expect=frozenset(expect)) == found


async def test_half_an_answer_is_none() -> None:
    """Not even one that was expected."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise UpstreamError(RESPONSE_INCOMPLETE)

    found = await call(Upstream(Response(404, [], None, broken())), expect=frozenset({404}))
    assert found == Failed(False, 404, "response_incomplete")


async def test_parts_that_are_needed_are_kept() -> None:
    """If there is room for them, and they can be read."""
    fields = [(b"location", b"/7"), (b"x", b"1"), (b"x", b"2")]
    upstream = Upstream(Response(201, fields, b'{"id":7}'))
    found = await call(upstream, keeps=frozenset({"body", "headers"}))
    assert found == Succeeded(201, Kept(b'{"id":7}', {"location": "/7", "x": "1, 2"}))
    assert upstream.asked[0].request.headers.get(b"accept-encoding") == b"identity"

    found = await call(Upstream(Response(200, [], b"x" * 101)), keeps=frozenset({"body"}))
    assert found == Succeeded(200, unusable="the answer is longer than 100 bytes")
    zipped = Response(200, [(b"content-encoding", b"gzip")], b"\x1f")
    found = await call(Upstream(zipped), keeps=frozenset({"body"}))
    assert found == Succeeded(200, unusable="the answer's body is encoded")
    assert await call(Upstream(Response(200, [], b"x" * 101))) == Succeeded(200)


@pytest.mark.parametrize(("body", "detail"), [(b'{"ok":false}', "not hold"), (b"{}", "no 'ok'")])
async def test_an_answer_that_does_not_fit_yet(body: bytes, detail: str) -> None:
    """Is asked for again."""
    upstream = Upstream(Response(200, [], body))
    found = await call(upstream, until=Expression("steps.a.body.ok", FLOW_ROOTS))
    assert isinstance(found, Failed)
    assert (found.permanent, found.code, found.status) == (False, "not_yet", 200)
    assert detail in found.detail


async def test_a_target_that_is_spared_is_no_failure() -> None:
    """Nothing was sent."""
    assert isinstance(await call(Upstream(UpstreamError(CIRCUIT_OPEN))), Paused)
