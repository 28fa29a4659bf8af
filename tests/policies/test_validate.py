"""The validate policy: what it refuses and how, what it reads, what it puts back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.model import GatewayConfig, MatchConfig, RouteConfig
from gateway.config.model_route import RewriteConfig
from gateway.contracts.library import Library
from gateway.errors import (
    CLIENT_DISCONNECTED,
    REQUEST_TIMEOUT,
    UPSTREAM_RESET,
    ClientError,
    ConfigError,
    Refused,
    Rejection,
    UpstreamError,
)
from gateway.message import Exchange, Response
from gateway.policies.base import BuildContext
from gateway.policies.body import BodyConfig
from gateway.policies.validate import reading
from gateway.policies.validate.config import ValidateConfig
from gateway.policies.validate.policy import AnswerAround, RequestGuard, ValidatePolicy

Make = Callable[..., Exchange]
JSON = ("content-type", "application/json")
ITEM = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
DOCUMENT = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://api.example.com/base"}],
    "paths": {
        "/items/{id}": {
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
                {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}},
                {"name": "X-Tenant", "in": "header", "schema": {"type": "string", "maxLength": 3}},
                {"name": "session", "in": "cookie", "schema": {"type": "string", "minLength": 2}},
            ],
            "get": {"responses": {
                "200": {"content": {"application/json": {"schema": ITEM}}},
                "default": {"description": ""}}},
            "put": {
                "requestBody": {"required": True, "content": {
                    "application/json": {"schema": ITEM}, "text/plain": {}}},
                "responses": {},
            },
            "patch": {"requestBody": {"content": {"application/json": {"schema": ITEM}}}},
        }
    },
}  # fmt: skip


@pytest.fixture
def make_context(context: BuildContext, tmp_path: Path) -> Callable[..., BuildContext]:
    """A context with the contract `items`, the model `item`, and the route `test`."""

    def make(
        path: str = "/items/{id}", rewrite: str | None = None, **policies: Any
    ) -> BuildContext:
        (tmp_path / "items.json").write_text(json.dumps(DOCUMENT))
        route = RouteConfig(
            name="test",
            match=MatchConfig(path=path),
            upstream="u",
            rewrite=RewriteConfig(path=rewrite) if rewrite else None,
            policies=policies,
        )
        config = GatewayConfig.model_validate(
            {
                "models": {"item": {"schema": ITEM}},
                "contracts": {"items": {"openapi": str(tmp_path / "items.json")}},
            },
            context={"base_dir": tmp_path},
        ).model_copy(update={"routes": [route]})
        library = Library(config.models, config.contracts, tmp_path)
        assert library.errors == []
        return replace(context, config=config, library=library, base_dir=tmp_path)

    return make


def build(context: BuildContext, **config: Any) -> Any:
    """The policy of this configuration."""
    return ValidatePolicy.build(ValidateConfig.model_validate(config), context)


def guard(context: BuildContext, **config: Any) -> RequestGuard:
    """The policy, if it looks at requests alone."""
    made = build(context, **config)
    assert isinstance(made, RequestGuard)
    return made


async def pieces(*parts: bytes, end: BaseException | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if end is not None:
        raise end


def put(make: Make, data: bytes, *fields: tuple[str, str], path: str = "/items/1") -> Exchange:
    """PUT of a body."""
    exchange = make("PUT", *(fields or (JSON,)), body=data, path=path)
    exchange.raw_params = {"id": path.rpartition("/")[2]}
    return exchange


def told(rejection: Rejection | None) -> tuple[int, list[tuple[str, str, str]]]:
    """Status and violations of a refusal; 0 if there was none."""
    if rejection is None:
        return 0, []
    shown: Any = rejection.extensions.get("violations", [])
    return rejection.kind.status, [(v["in"], v["pointer"], v["keyword"]) for v in shown]


ONLY_REQUESTS = {"contract": "items", "response": None}
REQUESTS: list[tuple[str, str, bytes, list[tuple[str, str]], bytes, int, list[Any]]] = [
    # method, path, query, fields, body, status, violations
    ("GET", "/items/1", b"", [], b"", 0, []),
    ("HEAD", "/items/1", b"limit=3", [], b"", 0, []),
    ("GET", "/base/items/1", b"", [], b"", 0, []),
    ("GET", "/items/x", b"limit=10", [("x-tenant", "long")], b"", 400,
     [("path", "id", "type"), ("query", "limit", "maximum"), ("header", "X-Tenant", "maxLength")]),
    ("GET", "/items/1", b"", [("cookie", "a=b; session=x")], b"", 400,
     [("cookie", "session", "minLength")]),
    ("GET", "/items/1", b"limit=1&limit=2", [], b"", 400, [("query", "limit", "style")]),
    ("GET", "/items/1", b"%FF=1", [], b"", 400, [("query", "", "style")]),
    ("GET", "/items/1", b"unknown=1", [], b"", 0, []),
    ("GET", "/nowhere", b"", [], b"", 404, []),
    ("DELETE", "/items/1", b"", [], b"", 405, []),
    ("PUT", "/items/1", b"", [JSON], b'{"n":1}', 0, []),
    ("PUT", "/items/1", b"", [("content-type", "Application/JSON; charset=utf-8")], b'{"n":1}', 0,
     []),
    ("PUT", "/items/1", b"", [JSON], b'{"n":"x"}', 422, [("body", "/n", "type")]),
    ("PUT", "/items/1", b"limit=x", [JSON], b'{"n":"x"}', 400,
     [("query", "limit", "type"), ("body", "/n", "type")]),
    ("PUT", "/items/1", b"", [JSON], b"{", 400, [("body", "", "json")]),
    ("PUT", "/items/1", b"", [JSON], b'{"n":1,"n":2}', 400, [("body", "", "json")]),
    ("PUT", "/items/1", b"", [JSON], b'\xef\xbb\xbf{"n":1}', 400, [("body", "", "json")]),
    ("PUT", "/items/1", b"", [JSON], b'{"n":NaN}', 400, [("body", "", "json")]),
    ("PUT", "/items/1", b"", [JSON], b"", 400, [("body", "", "required")]),
    ("PUT", "/items/1", b"", [], b"", 400, [("body", "", "required")]),
    ("PUT", "/items/1", b"", [], b'{"n":1}', 415, []),
    ("PUT", "/items/1", b"", [("content-type", "application/xml")], b"<n/>", 415, []),
    ("PUT", "/items/1", b"", [("content-type", "nonsense")], b"{}", 415, []),
    ("PUT", "/items/1", b"", [("content-type", "application/json; charset=utf-16")], b"{}", 415,
     []),
    ("PUT", "/items/1", b"", [JSON, ("content-type", "text/plain")], b"{}", 400, []),
    ("PUT", "/items/1", b"", [JSON, JSON], b'{"n":1}', 0, []),
    ("PUT", "/items/1", b"", [JSON, ("content-encoding", "gzip")], b"\x1f\x8b", 415, []),
    ("PUT", "/items/1", b"", [JSON, ("content-encoding", "identity")], b'{"n":1}', 0, []),
    ("PUT", "/items/1", b"", [("content-type", "text/plain")], b"\xff anything", 0, []),
    ("PATCH", "/items/1", b"", [], b"", 0, []),
    ("PATCH", "/items/1", b"", [JSON], b"[]", 422, [("body", "", "type")]),
    # A body that the contract does not speak of is none of its business.
    ("GET", "/items/1", b"", [], b"anything", 0, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "query", "fields", "data", "status", "violations"), REQUESTS
)
async def test_requests(
    method: str,
    path: str,
    query: bytes,
    fields: list[tuple[str, str]],
    data: bytes,
    status: int,
    violations: list[Any],
    make_context: Callable[..., BuildContext],
    make_exchange: Make,
) -> None:
    """Every violation in one answer; 422 only for what a well-formed body says."""
    policy = guard(make_context("/{rest:path}"), **ONLY_REQUESTS)
    whole = make_exchange(method, *fields, path=path, query=query, body=data)
    assert told(await policy.check(whole)) == (status, violations)

    # The same in pieces, as it comes from other servers and with large bodies.
    if data:
        stream = pieces(data[:3], data[3:])
        piecewise = make_exchange(method, *fields, path=path, query=query, body=None, stream=stream)
        assert told(await policy.check(piecewise)) == (status, violations)
        if piecewise.request.stream is None:
            assert piecewise.request.body == data


async def test_refusals_say_what_is_taken(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """415 and 405 carry the fields that they owe."""
    policy = guard(make_context(), **ONLY_REQUESTS)

    rejection = await policy.check(put(make_exchange, b"x", ("content-type", "a/b")))
    assert rejection is not None
    assert rejection.headers == [(b"accept", b"application/json, text/plain")]
    rejection = await policy.check(put(make_exchange, b"x", ("content-encoding", "br")))
    assert rejection is not None
    assert rejection.headers == [(b"accept-encoding", b"identity")]
    rejection = await policy.check(make_exchange("POST", path="/items/1"))
    assert rejection is not None
    assert rejection.headers == [(b"allow", b"GET, PATCH, PUT")]


async def test_rules_of_the_route_itself(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """Schemas in place and models, for body, query, header fields and path."""
    policy = guard(
        make_context(),
        request={
            "body": {"model": "item"},
            "query": {
                "properties": {
                    "page": {"type": "integer", "minimum": 1},
                    "tag": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
                },
                "required": ["page"],
                "additionalProperties": False,
            },
            "headers": {
                "properties": {
                    "X-Count": {"type": "integer"},
                    "X-List": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["X-Count"],
            },
            "path": {"properties": {"id": {"type": "integer"}}},
        },
    )
    exchange = put(make_exchange, b'{"n":1}', JSON, ("x-count", "3"), ("x-list", "1, 2"))
    exchange.request.query = b"page=2&tag=a&tag=b"
    assert await policy.check(exchange) is None

    exchange = put(make_exchange, b'{"n":"x"}', JSON, ("x-list", "1,x"), path="/items/x")
    exchange.request.query = b"page=0&tag=a&tag=b&tag=c&more=1"
    status, violations = told(await policy.check(exchange))
    assert status == 400
    assert sorted(violations) == [
        ("body", "/n", "type"),
        ("header", "", "required"),
        ("header", "x-list/1", "type"),
        ("path", "id", "type"),
        ("query", "", "additionalProperties"),
        ("query", "page", "minimum"),
        ("query", "tag", "maxItems"),
    ]

    exchange = put(make_exchange, b'{"n":1}', JSON, ("x-count", "3"))
    exchange.request.query = b"page=1&page=2"
    status, violations = told(await policy.check(exchange))
    assert ("query", "page", "style") in violations


async def test_models_for_parameters(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """A model serves a query as well; its types are known."""
    policy = guard(make_context(), request={"query": {"model": "item"}})
    exchange = make_exchange(query=b"n=3")
    assert await policy.check(exchange) is None
    exchange.request.query = b"n=x"
    assert told(await policy.check(exchange)) == (400, [("query", "n", "type")])


@pytest.mark.parametrize(
    ("path", "rewrite", "client", "status"),
    [
        ("/v1/{x}", "/items/{x}", "/v1/7", 0),
        ("/v1/{x}", "/items/{x}", "/v1/y", 400),
        # The contract speaks of the outside.
        ("/items/{x}", "/internal/{x}", "/items/7", 0),
        ("/{rest:path}", "/base/{rest:path}", "/items/7", 0),
    ],
)
async def test_which_path_is_looked_up(
    path: str, rewrite: str, client: str, status: int,
    make_context: Callable[..., BuildContext], make_exchange: Make,
) -> None:  # fmt: skip
    """The path that the upstream gets, if the contract has such a one; else the client's."""
    policy = guard(make_context(path, rewrite), **ONLY_REQUESTS)
    exchange = make_exchange(path=client)
    name = "rest" if "rest" in path else "x"
    raw = client.rpartition("/")[2] if name == "x" else client[1:]
    exchange.raw_params = {name: raw}

    assert told(await policy.check(exchange))[0] == status


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"contract": "itmes"}, "contract"),
        ({"request": {"body": {"model": "itme"}}}, "request.body.model"),
        ({"request": {"query": {"model": 3}}}, "request.query.model"),
        ({"request": {"body": {"type": "x"}}}, "request.body"),
        ({"request": {"body": {"$ref": "models:nobody"}}}, "request.body"),
        ({"request": {"headers": {"pattern": "(?=x)", "type": "object"}}}, "request.headers"),
        ({"request": {"query": {"page": {"type": "integer"}}}}, "request.query"),
        ({"response": {"body": {"$ref": "https://example.com"}}}, "response.body"),
    ],
)
def test_what_can_not_be_built(
    config: Any, path: str, make_context: Callable[..., BuildContext]
) -> None:
    """Says where; a name that is close is offered."""
    with pytest.raises(ConfigError) as caught:
        build(make_context(), **config)
    assert caught.value.path == path
    if "itm" in str(config):
        assert "did you mean" in caught.value.message


def test_a_route_that_the_contract_does_not_describe(
    make_context: Callable[..., BuildContext],
) -> None:
    """Every request of it would be refused: that is a mistake of the configuration."""
    with pytest.raises(ConfigError, match="has no operation at /elsewhere"):
        build(make_context("/elsewhere"), contract="items")
    with pytest.raises(ConfigError, match="has no operation at /a or /elsewhere"):
        build(make_context("/elsewhere", "/a"), contract="items")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"request": None},
        {"response": {"mode": "report"}},
        {"contract": "items", "request": {"body": True}},
        {"contract": "items", "response": {"body": True}},
        {"contract": "items", "request": None, "response": None},
        {"contract": "items", "on_invalid": "drop"},
        {"request": {"body": "item"}},
        {"request": {"cookies": {}}},
    ],
)
def test_configurations_that_say_nothing_or_too_much(config: Any) -> None:
    """Are refused when they are read."""
    with pytest.raises(ValidationError):
        ValidateConfig.model_validate(config)


def test_shape_of_the_policy(make_context: Callable[..., BuildContext]) -> None:
    """A guard, unless answers are looked at."""
    context = make_context()
    assert isinstance(build(context, contract="items"), AnswerAround)
    assert isinstance(build(context, contract="items", request=None), AnswerAround)
    assert isinstance(build(context, contract="items", response=None), RequestGuard)
    assert isinstance(build(context, request={"body": True}), RequestGuard)
    assert isinstance(build(context, response={"body": True}), AnswerAround)


def test_schemas_are_compiled_once(make_context: Callable[..., BuildContext]) -> None:
    """Routes that say the same share what was compiled."""
    context = make_context()
    config = {"request": {"body": {"type": "object"}}}
    made: list[tuple[object, ...]] = []

    def shared(key: tuple[object, ...], factory: Callable[[], Any]) -> Any:
        made.append(key)
        return context.shared(key, factory)

    counting = replace(context, shared=shared)
    build(counting, **config)
    build(counting, **config)
    assert len(made) == 2
    assert made[0] == made[1]


# --------------------------------------------------------------------------------- reading bodies


async def test_a_body_beyond_the_limit(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """413; nothing of it is lost for whoever lets it pass all the same."""
    policy = guard(make_context(body=BodyConfig(max=10)), **ONLY_REQUESTS)
    exchange = put(make_exchange, b"")
    exchange.request.body = None
    exchange.request.stream = pieces(b"123456", b"7890ab", b"cdef")

    rejection = await policy.check(exchange)
    assert rejection is not None
    assert rejection.kind.status == 413
    stream = exchange.request.stream
    assert stream is not None
    assert b"".join([piece async for piece in stream]) == b"1234567890abcdef"

    rejection = await policy.check(put(make_exchange, b"x" * 11))
    assert rejection is not None
    assert rejection.kind.status == 413


async def test_the_limit_is_the_servers_if_the_route_has_none(
    make_context: Callable[..., BuildContext],
) -> None:
    """And some bound if nobody has one."""
    context = make_context()
    assert guard(context, **ONLY_REQUESTS)._limit == context.server.limits.body
    limits = context.server.limits.model_copy(update={"body": None})
    unlimited = replace(context, server=context.server.model_copy(update={"limits": limits}))
    assert guard(unlimited, **ONLY_REQUESTS)._limit == 10 * 1024 * 1024


async def test_a_client_that_leaves_in_mid_body(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """Is what the stream says."""
    policy = guard(make_context(), **ONLY_REQUESTS)
    exchange = put(make_exchange, b"")
    gone = ClientError(CLIENT_DISCONNECTED)
    exchange.request.body, exchange.request.stream = None, pieces(b'{"n":', end=gone)

    with pytest.raises(ClientError) as caught:
        await policy.check(exchange)
    assert caught.value is gone


async def test_a_client_that_stalls_in_mid_body(
    make_context: Callable[..., BuildContext], make_exchange: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ends after the server's time for a body, where the server does not see to it."""
    monkeypatch.setattr(reading, "_SLACK_S", 0.01)
    policy = guard(make_context(), **ONLY_REQUESTS)
    policy._idle = 0.01
    exchange = put(make_exchange, b"")
    never = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    exchange.request.body, exchange.request.stream = None, stalled()
    with pytest.raises(ClientError) as caught:
        await policy.check(exchange)
    assert caught.value.kind is REQUEST_TIMEOUT


# ---------------------------------------------------------------------------------------- answers


def answer(
    data: bytes | None, *fields: tuple[bytes, bytes], status: int = 200,
    stream: AsyncIterator[bytes] | None = None,
) -> tuple[Response, list[str]]:  # fmt: skip
    """An answer, and a list that tells when it is closed."""
    given_fields = list(fields) or [(b"content-type", b"application/json")]
    response = Response(status, given_fields, data, stream)
    closed: list[str] = []
    response.on_close(lambda: closed.append("closed"))
    return response, closed


async def run(policy: AnswerAround, exchange: Exchange, response: Response) -> Response:
    """The answer that leaves."""

    async def forward(_: Exchange) -> Response:
        return response

    return await policy.handle(exchange, forward)


PASSING: list[tuple[bytes | None, list[tuple[bytes, bytes]], int]] = [
    (b'{"n":1}', [(b"content-type", b"application/json")], 200),
    (gzip.compress(b'{"n":1}', mtime=0), [(b"content-type", b"application/json"),
                                 (b"content-encoding", b"gzip")], 200),
    (b"anything", [(b"content-type", b"application/json"), (b"content-encoding", b"br")], 200),
    (b"", [], 204),
    (b"", [], 304),
    (b"<html>", [(b"content-type", b"text/html")], 500),
    (b"data: x\n\n", [(b"content-type", b"text/event-stream")], 200),
    (b"", [(b"content-length", b"0")], 200),
]  # fmt: skip


@pytest.mark.parametrize(("data", "fields", "status"), PASSING)
async def test_answers_that_pass(
    data: bytes | None, fields: list[tuple[bytes, bytes]], status: int,
    make_context: Callable[..., BuildContext], make_exchange: Make,
) -> None:  # fmt: skip
    """What meets the contract, what it does not speak of, what can't be looked into."""
    policy = build(make_context(), contract="items")
    response = Response(status, fields, data)

    assert await run(policy, make_exchange(path="/items/1"), response) is response
    assert response.body == data


FAILING: list[tuple[bytes, list[tuple[bytes, bytes]], str]] = [
    (b'{"n":"s3cret"}', [(b"content-type", b"application/json")], "/n (type)"),
    (gzip.compress(b'{"n":"s3cret"}', mtime=0), [(b"content-type", b"application/json"),
                                        (b"content-encoding", b"gzip")], "/n (type)"),
    (b"{", [(b"content-type", b"application/json")], "/ (json)"),
    (b'{"n":1,"n":2}', [(b"content-type", b"application/json")], "/ (json)"),
    (b"<html>", [(b"content-type", b"text/html")], "/ (content)"),
    (b"{}", [], "/ (content)"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "fields", "where"), FAILING)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_answers_that_fail(
    data: bytes, fields: list[tuple[bytes, bytes]], where: str, in_pieces: bool,
    make_context: Callable[..., BuildContext], make_exchange: Make,
) -> None:  # fmt: skip
    """502, the answer is let go of, the log knows where; the client is not told what."""
    policy = build(make_context(), contract="items")
    stream = pieces(data[:2], data[2:]) if in_pieces else None
    response, closed = answer(None if in_pieces else data, stream=stream)
    response.headers = fields
    exchange = make_exchange(path="/items/1")

    with pytest.raises(Refused) as caught:
        await run(policy, exchange, response)
    assert caught.value.rejection.kind.code == "response_contract_violated"
    assert caught.value.rejection.detail == ""
    assert exchange.error_detail == f"GET /items/{{id}}, status 200: {where}"
    assert closed == ["closed"]


async def test_answers_in_report_mode(
    make_context: Callable[..., BuildContext], make_exchange: Make, caplog: Any
) -> None:
    """They pass, are counted, and each kind of fault is logged once."""
    context = make_context()
    policy = build(context, contract="items", response={"mode": "report"})
    for _ in range(2):
        response, closed = answer(b'{"n":"s3cret"}')
        exchange = make_exchange(path="/items/1")
        assert await run(policy, exchange, response) is response
        assert exchange.reported == ["validate:response_contract_violated"]
        assert closed == []
    reported = context.metrics.route("test")._reported
    assert reported == {("validate", "response_contract_violated"): 2}
    assert caplog.text.count("breaks its contract") == 1
    assert "s3cret" not in caplog.text


async def test_answers_of_the_gateways_own_are_left_alone(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """A problem is none of the upstream's."""
    policy = build(make_context(), contract="items")
    response, _ = answer(b"<html>", (b"content-type", b"text/html"))
    response.error = UPSTREAM_RESET

    assert await run(policy, make_exchange(path="/items/1"), response) is response
    response.error = None
    assert await run(policy, make_exchange("HEAD", path="/items/1"), response) is response


async def test_answers_beyond_the_bound(
    make_context: Callable[..., BuildContext], make_exchange: Make, monkeypatch: Any
) -> None:
    """Stream through as they came."""
    monkeypatch.setattr("gateway.policies.validate.answers.LIMIT", 10)
    policy = build(make_context(), contract="items")
    response, _ = answer(None, stream=pieces(b"123456", b"7890ab", b"cdef"))

    found = await run(policy, make_exchange(path="/items/1"), response)
    assert found.stream is not None
    assert b"".join([piece async for piece in found.stream]) == b"1234567890abcdef"

    length = (b"content-length", b"9999999")
    kind = (b"content-type", b"application/json")
    stream = pieces(b"never looked at")
    response, _ = answer(None, kind, length, stream=stream)
    assert (await run(policy, make_exchange(path="/items/1"), response)).stream is stream


async def test_an_upstream_that_breaks_off(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """Before the answer has begun: its failure is the answer, and what was held is released."""
    policy = build(make_context(), contract="items")
    failure = UpstreamError(UPSTREAM_RESET)
    response, closed = answer(None, stream=pieces(b"{", end=failure))

    with pytest.raises(UpstreamError) as caught:
        await run(policy, make_exchange(path="/items/1"), response)
    assert caught.value is failure
    assert closed == ["closed"]


async def test_requests_and_answers_together(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """A bad request never reaches the upstream; without request rules it does."""
    policy = build(make_context(), contract="items")

    async def unreachable(_: Exchange) -> Response:
        raise AssertionError

    for path in ("/items/x", "/nowhere"):
        with pytest.raises(Refused):
            await policy.handle(make_exchange(path=path), unreachable)
    answers_only = build(make_context(), contract="items", request=None)
    response, _ = answer(b'{"n":1}')
    assert await run(answers_only, make_exchange(path="/items/x"), response) is response
    assert await run(answers_only, make_exchange(path="/nowhere"), response) is response


async def test_a_schema_for_answers_in_place(
    make_context: Callable[..., BuildContext], make_exchange: Make
) -> None:
    """For JSON answers of status 2xx."""
    policy = build(make_context(), response={"body": {"model": "item"}})
    response, _ = answer(b'{"n":1}', status=201)
    assert await run(policy, make_exchange(), response) is response
    response, _ = answer(b"{}", status=404)
    assert await run(policy, make_exchange(), response) is response
    response, _ = answer(b"{}")
    with pytest.raises(Refused):
        await run(policy, make_exchange(), response)


BYTES = st.binary(max_size=60) | st.sampled_from(
    [b'{"n":1}', b'{"n":"\\ud800"}', b"[" * 500, b'{"a":' * 300, b"9" * 5000, b"1e999999999"]
)
FIELD = st.binary(max_size=40) | st.sampled_from(
    [b"application/json", b"application/json; charset=\xff", b"text/plain", b"*/*", b"a/b;" * 50]
)


@settings(suppress_health_check=list(HealthCheck), max_examples=150, deadline=None)
@given(
    st.sampled_from(["GET", "PUT", "PATCH", "FOO"]),
    st.text(st.sampled_from("/items1.%2F;,=x"), max_size=20),
    BYTES,
    FIELD,
    st.binary(max_size=30),
    BYTES,
)
def test_nothing_a_client_sends_is_an_error_of_ours(
    make_context: Callable[..., BuildContext], make_exchange: Make,
    method: str, path: str, query: bytes, kind: bytes, field: bytes, data: bytes,
) -> None:  # fmt: skip
    """Whatever it is, it passes or is refused."""
    policy = guard(make_context("/{rest:path}"), **ONLY_REQUESTS)
    for place in (path, "/items/" + path.replace("/", "")):
        exchange = make_exchange(method, path="/" + place.lstrip("/"), query=query, body=data)
        for name in (b"content-type", b"x-tenant", b"cookie", b"content-encoding"):
            value = kind if name == b"content-type" else field
            if name != b"content-encoding" or len(field) % 7 == 0:
                exchange.request.headers.add(name, value)
        rejection = asyncio.run(policy.check(exchange))
        if rejection is not None:
            assert 400 <= rejection.kind.status < 500
            exchange.refuse(rejection)
