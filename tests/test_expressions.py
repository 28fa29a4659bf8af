"""Expressions: what they may name, and what becomes of those that have no answer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.expressions import MAX_LENGTH, Expression, ExpressionError, ExpressionFailed
from gateway.message import Exchange, Headers, Principal, Request


def exchange(claims: dict[str, Any] | None = None) -> Exchange:
    """A request by ada, with a bit of everything."""
    fields = [(b"host", b"api"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-raw", b"\xff")]
    request = Request("GET", "/v1/a%20b", b"q=1&q=2&e=&u=%C3%A9&bad=%ff", Headers(fields), "api")
    made = Exchange(request, 0.0)
    made.params = {"tenant": "acme"}
    made.principal = Principal("ada", claims if claims is not None else {"tenant": "acme"})
    return made


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "claims.tenant == params.tenant",
        "consumer == 'ada'",
        "request.method == 'GET' && request.host == 'api' && request.path == '/v1/a%20b'",
        "request.headers['x-a'] == '1, 2'",
        "request.query.q == '1,2' && request.query.e == '' && request.query.u == 'é'",
        "request['method'] == 'GET'",
        "has(claims.tenant) && !has(claims.other)",
        "['acme', 'x'].exists(t, t == claims.tenant)",
        "claims.tenant.startsWith('ac') && claims.tenant.matches('^a.*e$')",
        "size(request.headers) == 3",
        "\n  claims.tenant ==\n  'acme'",
        "'x' in claims || true",
    ],
)
def test_holds(text: str) -> None:
    """What is true of the request."""
    assert Expression(text).holds(exchange())


@pytest.mark.parametrize(
    "text",
    ["claims.nothing == 1", "claims.tenant", "1", "claims.tenant > 1", "1 / 0 == 1",
     "claims.tenant.a",
     "request.headers.nope == ''", "null", "[true]", "int(claims.tenant) == 1"],
)  # fmt: skip
def test_fails(text: str) -> None:
    """What has no answer fails, with a reason that repeats no value."""
    with pytest.raises(ExpressionFailed) as caught:
        Expression(text).holds(exchange())
    assert caught.value.reason
    assert "acme" not in caught.value.reason


@pytest.mark.parametrize(
    "value",
    [2**70, -(2**70), 1e400, float("nan"), "\ud800", None, [], {}, [[[1]]], "x" * 100_000, b"a",
     {1, 2}, True, {"a": {"b": "\ud800"}}],
)  # fmt: skip
def test_claims_of_every_sort(value: Any) -> None:
    """Whatever stands in a token: an answer or a failure, nothing else."""
    try:
        assert Expression("claims.v == 'acme'").holds(exchange({"v": value})) is False
    except ExpressionFailed:
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CEL expression"),
        ("claims.a ==", "at 1:12"),
        ("claims.a ==\n 'a' &&", "at 2:8"),
        ("user.name == 'a'", 'unknown name "user" at 1:1'),
        ("true &&\n  body.x == 1", 'unknown name "body" at 2:3'),
        ("now() > 1", 'unknown function "now" at 1:1'),
        ("claims.a.lowerAscii() == 'a'", 'unknown function "lowerAscii"'),
        ("request.user == 1", 'a request has no "user"'),
        ("'a", "not a CEL expression"),
        ("(" * 30 + "1" + ")" * 30, "brackets"),
        ("a" * (MAX_LENGTH + 1), "characters"),
        ("[" * 10_000, "characters"),
        ("((((" * 400, "brackets"),
    ],
)
def test_what_can_not_be_asked(text: str, message: str) -> None:
    """Found when it is compiled, and said where."""
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert message in str(caught.value)


def test_macros_bind_names() -> None:
    """A name that a macro binds is no unknown one; outside of it, it is not checked twice."""
    expression = Expression("claims.roles.exists(role, role == 'a') && [1].all(n, n > 0)")

    assert expression.holds(exchange({"roles": ["b", "a"]}))


def test_the_anonymous_have_no_claims() -> None:
    """Without a principal: an empty name, and no claims."""
    made = exchange()
    made.principal = None

    assert Expression("consumer == '' && size(claims) == 0").holds(made)


def test_further_roots() -> None:
    """Whoever has more to offer names it."""
    expression = Expression("body.total > 100", {"body": lambda exchange: {"total": 101}})

    assert expression.holds(exchange())
