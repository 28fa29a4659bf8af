"""Where an idempotency key comes from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Headers
from gateway.request_key import BadKey, Facts, KeyRule, read_field


def fields(*values: bytes) -> Headers:
    return Headers([(b"idempotency-key", value) for value in values])


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b'"with space"', "with space"),
        (b'"a \\"quote\\" and \\\\"', 'a "quote" and \\'),
        (b'"key";parameter=1', "key"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_keys(sent: bytes, key: str) -> None:
    """Quoted as the draft asks for (section 2.1), or bare as most clients send them."""
    assert read_field(fields(sent)) == key


@pytest.mark.parametrize(
    "sent", [b"", b'""', b'"open', b"with space", b'"\\x"', b"\xe9", b"x" * 256, b'a"b']
)
def test_keys_that_are_none(sent: bytes) -> None:
    """What two readers could take for two keys is none."""
    with pytest.raises(BadKey):
        read_field(fields(sent))


def test_one_key_or_none() -> None:
    """Two fields are two keys; no field is no key."""
    assert read_field(fields()) is None
    with pytest.raises(BadKey):
        read_field(fields(b"a", b"b"))


@given(st.binary(max_size=300))
def test_any_field(value: bytes) -> None:
    """Whatever a client sends is a key or a BadKey."""
    try:
        key = read_field(fields(value))
    except BadKey:
        return
    assert key is not None
    assert 0 < len(key) <= 255


FACTS = Facts(
    Headers([(b"x-event-id", b"e-1")]),
    b"a=1&b=2",
    {"order_id": "7"},
    {"event_id": "abc", "order": {"id": 12}, "none": None, "empty": "", "list": [1, 2]},
)


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("body.event_id", "abc"),
        ("body.order.id", "12"),
        ("body.list", "[1,2]"),
        ("headers.X-Event-Id", "e-1"),
        ("query.b", "2"),
        ("params.order_id", "7"),
    ],
)
def test_one_fact(rule: str, key: str) -> None:
    """One fact is the key as it stands."""
    assert KeyRule(rule).derive(FACTS) == key


@pytest.mark.parametrize(
    "rule",
    ["body.missing", "body.none", "body.empty", "body.event_id.deeper", "headers.X-No",
     "query.c", "params.none", "hash(body.event_id, body.missing)"],
)  # fmt: skip
def test_a_missing_fact_is_no_key(rule: str) -> None:
    """Requests that lack it must not all share one key."""
    with pytest.raises(BadKey):
        KeyRule(rule).derive(FACTS)


def test_a_hash_keeps_its_parts_apart() -> None:
    """("ab", "c") and ("a", "bc") are two keys."""
    rule = KeyRule("hash(body.a, body.b)")

    def key(a: Any, b: Any) -> str:
        return rule.derive(Facts(Headers([]), b"", {}, {"a": a, "b": b}))

    assert key("ab", "c") != key("a", "bc")
    assert key("ab", "c") == key("ab", "c")
    assert key("é", "\ud800") != key("e", "\ud800")


@pytest.mark.parametrize(
    "text", ["", "body", "body.", "headers.", "hash()", "hash(body.a", "cookie.a", "Header"]
)
def test_rules_that_are_none(text: str) -> None:
    """A rule that can't be read is an error when the configuration is loaded."""
    with pytest.raises(ValueError, match="expected header"):
        KeyRule(text)
