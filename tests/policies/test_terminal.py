"""What stands at the end of a chain: rewriting, fixed answers, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import RespondConfig, RouteConfig
from gateway.errors import AMBIGUOUS_PATH, METHOD_NOT_ALLOWED, ROUTE_NOT_FOUND, ConfigError
from gateway.policies.terminal import (
    Forward,
    QueryRewrite,
    method_not_allowed,
    refusal_of,
    refuse_unmatched,
    respond,
)
from gateway.routing.table import Match
from tests.support.sending import make_exchange, running


@pytest.mark.parametrize(
    ("add", "remove", "query", "expected"),
    [
        ({}, [], b"", b""),
        ({}, [], b"a=1&a=2&&b", b"a=1&a=2&&b"),
        ({}, ["a"], b"a=1&b=2&a=3&a", b"b=2"),
        ({}, ["a b"], b"a+b=1&a%20b=2&ab=3", b"ab=3"),
        ({}, ["é"], b"%C3%A9=1&%c3%a9=2&x=%ff", b"x=%ff"),
        ({}, ["a"], b"A=1&%61=2", b"A=1"),
        ({"v": "2"}, [], b"", b"v=2"),
        ({"v": "2"}, ["v"], b"v=1&w", b"w&v=2"),
        ({"a&b": "c=d e/é"}, [], b"x", b"x&a%26b=c%3Dd%20e%2F%C3%A9"),
        ({}, ["a"], b"a;b=1&a=1", b"a;b=1"),
    ],
)
def test_queries(add: dict[str, str], remove: list[str], query: bytes, expected: bytes) -> None:
    """Parameters go and come by their decoded name; every other byte stays as it is."""
    assert QueryRewrite(add, remove).apply(query) == expected


def route(**more: Any) -> RouteConfig:
    data = {"name": "test", "match": {"path": "/v1/{id}/{rest:path}"}, "upstream": "api", **more}
    return RouteConfig.model_validate(data)


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (None, b"/v1/a%2Fb/c/d?q=1&s=2"),
        ({"path": "/x/{id}"}, b"/x/a%2Fb?q=1&s=2"),
        ({"path": "/{rest:path}", "query": {"remove": ["s", "q"]}}, b"/c/d"),
        ({"path": "/fixed", "query": {"add": {"id": "{id}"}}}, b"/fixed?q=1&s=2&id=%7Bid%7D"),
    ],
)
async def test_targets(rewrite: Any, expected: bytes) -> None:
    """The path's parameters are put in as they stood in the path, still encoded."""
    async with running("http://127.0.0.1:1") as upstream:
        forward = Forward(upstream, route(rewrite=rewrite))
        target = forward.target("/v1/a%2Fb/c/d", b"q=1&s=2", {"id": "a%2Fb", "rest": "c/d"})

    assert target == expected


@pytest.mark.parametrize("path", ["/{nope}", "/{id}/{id:path}", "/{id"])
async def test_a_rewrite_that_cannot_be_filled(path: str) -> None:
    """It is found when the route is built, and named."""
    async with running("http://127.0.0.1:1") as upstream:
        with pytest.raises(ConfigError) as refused:
            Forward(upstream, route(rewrite={"path": path}))

    assert refused.value.path == "rewrite.path"


@pytest.mark.parametrize(
    ("config", "status", "fields", "body"),
    [
        ({}, 200, {b"content-length": b"0"}, b""),
        (
            {"json": {"a": "é"}},
            200,
            {b"content-type": b"application/json", b"content-length": b"11"},
            '{"a": "é"}'.encode(),
        ),
        (
            {"json": None},
            200,
            {b"content-type": b"application/json", b"content-length": b"4"},
            b"null",
        ),
        (
            {"body": "hi", "status": 503, "headers": {"Retry-After": "5"}},
            503,
            {
                b"retry-after": b"5",
                b"content-type": b"text/plain; charset=utf-8",
                b"content-length": b"2",
            },
            b"hi",
        ),
        (
            {"body": "<p>", "headers": {"Content-Type": "text/html"}},
            200,
            {b"content-type": b"text/html", b"content-length": b"3"},
            b"<p>",
        ),
        ({"status": 204}, 204, {}, b""),
        ({"status": 304, "headers": {"ETag": '"a"'}}, 304, {b"etag": b'"a"'}, b""),
    ],
)
async def test_fixed_answers(
    config: dict[str, Any], status: int, fields: dict[bytes, bytes], body: bytes
) -> None:
    """Status, type and length are right; HEAD has the same head."""
    handler = respond(RespondConfig.model_validate(config))
    got = await handler(make_exchange())
    head = await handler(make_exchange("HEAD"))

    assert (got.status, dict(got.headers), got.body) == (status, fields, body)
    assert (head.status, head.headers, head.body) == (status, got.headers, b"")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
def test_framing_is_not_configured(name: str) -> None:
    """A field that says where the answer ends can only be wrong."""
    with pytest.raises(ConfigError) as refused:
        respond(RespondConfig.model_validate({"headers": {name: "3"}}))

    assert refused.value.path == f"respond.headers.{name}"


def test_405_names_what_is_allowed() -> None:
    """Allow is owed (RFC 9110 section 15.5.6)."""
    refusal = method_not_allowed(["GET", "HEAD"])

    assert refusal.kind is METHOD_NOT_ALLOWED
    assert refusal.headers == [(b"allow", b"GET, HEAD")]


def test_why_there_is_no_route() -> None:
    """Ambiguity goes before a method, a method before nothing at all."""
    nothing: Match[str] = Match(None)
    method: Match[str] = Match(None, allowed=["GET"])
    twofold: Match[str] = Match(None, allowed=["GET"])
    twofold.ambiguous = True

    kinds = [refusal_of(each).kind for each in (nothing, method, twofold)]
    assert kinds == [ROUTE_NOT_FOUND, METHOD_NOT_ALLOWED, AMBIGUOUS_PATH]


async def test_the_end_of_the_unmatched_chain() -> None:
    """The edge's reason becomes the answer; without one it is a 404."""
    exchange = make_exchange()
    exchange.refusal = method_not_allowed(["GET"])

    assert (await refuse_unmatched(exchange)).status == 405
    assert (await refuse_unmatched(make_exchange())).status == 404
