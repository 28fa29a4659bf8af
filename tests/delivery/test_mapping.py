"""Bodies made of an event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.mapping import Mapping, MappingFailed
from gateway.expressions import ExpressionError
from tests.support.sending import make_exchange

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def fill(template: Any, body: bytes = b'{"a": {"b": 7}, "l": [1, "x", null]}') -> Any:
    exchange = make_exchange()
    exchange.request.body = body
    exchange.params = {"id": "p"}
    return msgspec.json.decode(Mapping(template).body(exchange))


def test_expressions_stand_in_strings() -> None:
    """Those that begin with =; what they give keeps its type; == is a =."""
    assert fill(
        {"id": "=body.a.b", "all": "=body", "n": ["=body.l", "text", 1, None], "p": "=params.id",
         "sum": "=body.a.b + 1", "eq": "==body", "empty": "", "m": "=request.method"}
    ) == {
        "id": 7, "all": {"a": {"b": 7}, "l": [1, "x", None]},
        "n": [[1, "x", None], "text", 1, None],
        "p": "p", "sum": 8, "eq": "=body", "empty": "", "m": "GET",
    }  # fmt: skip
    assert fill("=body.a.b") == 7
    assert fill(None) is None


@pytest.mark.parametrize("body", [b"", b"[", b"\xff", b'{"a": 1}', b"[" * 2000, b"7"])
def test_what_has_no_answer(body: bytes) -> None:
    """One failure, which names the expression and no value."""
    with pytest.raises(MappingFailed, match=r"=body\.a\.b"):
        fill({"id": "=body.a.b"}, body)


@pytest.mark.parametrize("template", ["=", "=1 +", {"a": ["=nobody.x"]}, "=claims.tenant"])
def test_templates_that_are_none(template: Any) -> None:
    """Found when the configuration is read; the caller's claims are not kept, so not named."""
    with pytest.raises(ExpressionError):
        Mapping(template)


@given(JSON)
def test_bodies_pass_as_they_are(value: Any) -> None:
    """Whatever JSON came, `=body` gives it again."""
    assert fill("=body", msgspec.json.encode(value)) == value
