"""What of two answers differs, what is never shown of it, and what a body that streams by keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import RedactConfig
from gateway.policies.mirror.compare import Difference, Rules, Seen, compare
from gateway.policies.mirror.samples import Masking
from gateway.policies.mirror.tee import Tee

KEYS = st.text(max_size=3)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SCHEMA = Rules(status=False, schema=True)


def seen(body: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Seen:
    return Seen(status, list(headers), json.dumps(body).encode())


@given(JSON)
def test_an_answer_equals_itself(value: Any) -> None:
    """Whatever it is."""
    rules = Rules(headers=(b"x-a",), schema=True, fields=("/a", "/0/b"))
    assert compare(seen(value), seen(value), rules).result == "equal"


@given(JSON, JSON)
def test_a_schema_differs_both_ways(one: Any, other: Any) -> None:
    """Which of the two is the mirror's changes no verdict."""
    forth, back = compare(seen(one), seen(other), SCHEMA), compare(seen(other), seen(one), SCHEMA)
    assert forth.result == back.result


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": 1}, {"a": 2.5}, None),
        ({"a": 1}, {"a": "1"}, "/a"),
        ({"a": 1}, {"a": 1, "b": {"c": 1}}, "/b"),
        ({"a": {"b": 1}}, {"a": None}, "/a"),
        ({"items": [{"id": 1}, {"id": 2}]}, {"items": [{"id": 3}]}, None),
        ({"items": [{"id": 1}]}, {"items": []}, None),
        ({"items": [{"id": 1}]}, {"items": [{"key": 1}]}, "/items/*/id"),
        ({"a/b": 1, "c~": 1}, {"a/b": "x", "c~": 1}, "/a~1b"),
        ([1, "a"], ["a", 1, 2], None),
    ],
)
def test_schemas(one: Any, other: Any, where: str | None) -> None:
    """Kinds and members count; values, and how many there are, do not."""
    verdict = compare(seen(one), seen(other), SCHEMA)
    assert verdict.result == ("equal" if where is None else "schema")
    if where is not None:
        assert where in [each.where for each in verdict.differences]


def test_status_headers_and_fields() -> None:
    """Each is told; the result is the first."""
    rules = Rules(headers=(b"x-v",), fields=("/a/0", "/b"))
    one = seen({"a": [1], "b": True}, 200, (b"x-v", b"1"))
    verdict = compare(one, seen({"a": [2], "b": 1}, 500, (b"x-v", b"2")), rules)

    assert verdict.result == "status"
    assert verdict.differences == (
        Difference("status", "", 200, 500),
        Difference("headers", "x-v", "1", "2"),
        Difference("fields", "/a/0", 1, 2),
        Difference("fields", "/b", True, 1),
    )
    missing = compare(one, seen({"a": []}, 200, (b"x-v", b"1")), rules)
    assert [each.found for each in missing.differences] == ["nothing", "nothing"]


@pytest.mark.parametrize(
    "other",
    [
        Seen(200, [], None),
        Seen(200, [], b"{"),
        Seen(200, [], b"[" * 5000),
        Seen(200, [(b"content-encoding", b"gzip")], b"{}"),
    ],
)
def test_what_can_not_be_read(other: Seen) -> None:
    """It is no difference, and told apart from equality."""
    assert compare(seen({}), other, SCHEMA).result == "unreadable"
    assert compare(seen({}), other, Rules()).result == "equal"


@pytest.mark.parametrize(
    ("pattern", "pointer", "secret"),
    [
        ("$.password", "/password", True),
        ("$.password", "/user/password", False),
        ("$..password", "/user/password", True),
        ("$.user", "/user/name", True),
        ("$.user.password", "/user", True),
        ("$.items[*].card", "/items/0/card", True),
        ("$.items[*].card", "/items/0/id", False),
        ("$['user'].pin", "/user/pin", True),
    ],
)
def test_secrets_in_fields(pattern: str, pointer: str, secret: bool) -> None:
    """What telemetry.redact names, and whatever is around it, is not shown."""
    masking = Masking(RedactConfig(fields=[pattern]))
    shown = masking.value(Difference("fields", pointer, "hunter2", ""), "hunter2")
    assert shown == ("***" if secret else "hunter2")


def test_secrets_in_headers() -> None:
    """The same for header fields; and what is long is cut."""
    masking = Masking(RedactConfig())
    assert masking.value(Difference("headers", "set-cookie", "a", "b"), "a") == "***"
    assert len(masking.value(Difference("headers", "x-a", "a", "b"), "a" * 1000)) < 300


@given(st.lists(st.binary(max_size=8), max_size=6), st.integers(0, 20))
def test_a_tee(pieces: list[bytes], limit: int) -> None:
    """Everything passes; what is kept is all of it, or nothing, and never before the end."""

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> None:
        tee = Tee(source(), limit)
        passed = []
        async for piece in tee:
            passed.append(piece)
            assert tee.whole() is None
        whole = b"".join(pieces)
        assert passed == pieces
        assert tee.whole() == (whole if len(whole) <= limit else None)

    asyncio.run(run())
