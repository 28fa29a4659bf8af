"""Which keys of a set are used, and when sets are fetched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Principal
from gateway.policies.auth.freshness import COOLDOWN_S, MAX_UNKNOWN, Freshness, lifetime_of
from gateway.policies.auth.keys import BadKeys, parse_keys
from gateway.policies.auth.pause import Pause
from gateway.policies.auth.places import metadata_urls
from gateway.policies.auth.remembered import Entry, Remembered
from gateway.policies.auth.strict_json import NotStrict, parse_object
from tests.support.idp import SigningKey


def parse(*jwks: Any) -> Any:
    return parse_keys(json.dumps({"keys": jwks}).encode())


def test_good_keys_survive_bad_neighbours(key: SigningKey) -> None:
    """What can't be used is skipped with a reason; the rest works."""
    good = key.jwk()
    bad = [
        "text",
        {**good, "kty": "oct", "k": "c2VjcmV0"},
        {**good, "kty": "XYZ"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "n": ""},
        {**good, "n": "!"},
        {**good, "e": 65537},
        {**good, "kid": 5},
        {**good, "alg": ["RS256"]},
        key.private_jwk(),
        SigningKey("weak", bits=1024).jwk(),
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
    ]
    keys = parse(*bad, good)

    assert [each.kid for each in keys.keys] == ["k1"]
    assert len(keys.skipped) == len(bad)
    assert not any(good["n"] in reason for reason in keys.skipped)


def test_a_point_off_the_curve() -> None:
    """Coordinates that are no point are no key."""
    jwk = SigningKey("e", "ES256").jwk()

    with pytest.raises(BadKeys):
        parse({**jwk, "y": jwk["x"]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[{}]}',
        b"\xff",
        b'{"keys":[],"keys":[]}',
    ],
)
def test_no_key_set(data: bytes) -> None:
    """What is no key set, or has nothing to verify with."""
    with pytest.raises(BadKeys):
        parse_keys(data)


def test_keys_without_names(key: SigningKey) -> None:
    """A token's kid selects; where the set names no keys, all that fit are tried, but few."""
    nameless = {name: value for name, value in key.jwk().items() if name != "kid"}

    assert parse(key.jwk()).find("other", "RS256") is None
    assert len(parse(nameless).find("any", "RS256")) == 1
    assert len(parse(key.jwk(), nameless).find(None, "RS256")) == 2
    assert len(parse(*[nameless] * 20).find(None, "RS256")) == 4
    assert parse(key.jwk()).find("k1", "ES256") == []


def test_sets_are_compared_by_content(key: SigningKey) -> None:
    """The order and unknown members do not matter; restrictions do."""
    other = SigningKey("k2", "ES256").jwk()

    assert parse(key.jwk(), other).same_as(parse(other, key.jwk(extra="1")))
    assert not parse(key.jwk()).same_as(parse(key.jwk(alg="RS256")))
    assert not parse(key.jwk()).same_as(None)


@pytest.mark.parametrize(
    ("cache_control", "age", "seconds"),
    [
        ("", "", 300), ("max-age=120", "", 120), ("public, Max-Age=120", "", 120),
        ("max-age=5", "", 30),
        ("max-age=99999", "", 300), ("no-store", "", 30), ("no-cache, max-age=100", "", 30),
        ("max-age=120", "60", 60), ("max-age=120", "500", 30), ("s-max-age=10", "", 300),
        ("max-age=abc", "", 300), ('max-age="60"', "", 60), ("x-max-age=1", "", 300),
        ("max-age=60", "-5", 60),
    ],
)  # fmt: skip
def test_lifetimes(cache_control: str, age: str, seconds: float) -> None:
    """The provider's word counts, between half a minute and the configured bound."""
    assert lifetime_of({"cache-control": cache_control, "age": age}, 300.0) == seconds


def test_the_course_of_freshness() -> None:
    """Due at once, again ahead of the end; failures pause longer each time; grace has an end."""
    fresh = Freshness(refresh=100.0, grace=50.0)
    assert fresh.is_due(0.0)
    fresh.succeeded(0.0, {})
    assert not fresh.is_due(79.9)
    assert fresh.is_due(80.0)
    assert fresh.usable_until == 150.0
    pauses = []
    for _ in range(8):
        fresh.failed(80.0)
        pauses.append(fresh.next_fetch - 80.0)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert fresh.usable_until == 150.0
    fresh.succeeded(90.0, {})
    assert fresh.failures == 0


def test_unknown_names_are_bounded() -> None:
    """One look a while, whatever is asked; names that are not there are remembered for a minute."""
    fresh = Freshness(100.0, 50.0)
    assert fresh.may_look(10.0)
    assert not fresh.may_look(10.0 + COOLDOWN_S - 0.1)
    assert fresh.may_look(10.0 + COOLDOWN_S)
    fresh.note_unknown(0.0, "a")
    assert fresh.is_unknown(59.0, "a")
    assert not fresh.is_unknown(60.0, "a")
    assert not fresh.is_unknown(0.0, "b")
    for number in range(3 * MAX_UNKNOWN):
        fresh.note_unknown(0.0, str(number))
    assert len(fresh._unknown) <= MAX_UNKNOWN
    fresh.forget_unknown()
    assert not fresh.is_unknown(1.0, str(3 * MAX_UNKNOWN - 1))


def test_the_pause() -> None:
    """Three failures in a row, then none for a moment, longer each time; one success ends it."""
    pause = Pause()
    assert [pause.failed(0.0) for _ in range(4)] == [False, False, True, False]
    assert pause.left(0.0) == 2.0
    assert pause.left(5.0) == 0.0
    for _ in range(20):
        pause.failed(0.0)
    assert pause.left(0.0) == 15.0
    pause.succeeded()
    assert pause.left(0.0) == 0.0


@given(st.lists(st.integers(0, 30), max_size=300))
def test_remembered_is_bounded(tokens: list[int]) -> None:
    """Never more than its capacity; what was used last is there; what was never added is not."""
    memory = Remembered(8)
    added = set()
    for number in tokens:
        credentials = b"%d" % number
        entry = memory.find(credentials)
        if entry is None:
            memory.add(credentials, Entry(Principal(str(number)), 0.0, 1.0))
        else:
            assert number in added
            assert entry.principal.consumer == str(number)
        added.add(number)
        assert len(memory) <= 8
        assert memory.find(credentials) is not None
    memory.forget(unless=lambda entry: False)
    assert len(memory) == 0


@given(st.binary(max_size=200))
def test_strict_json_never_surprises(data: bytes) -> None:
    """Any bytes: an object as Python's own parser reads it, or NotStrict."""
    try:
        value = parse_object(data)
    except NotStrict:
        return
    assert value == json.loads(data)


def test_strict_json_depth() -> None:
    """Brackets within strings are no levels."""
    assert parse_object(b'{"a":"' + b"[" * 100 + b'"}')
    with pytest.raises(NotStrict, match="nested"):
        parse_object(b'{"a":' + b"[" * 16 + b"]" * 16 + b"}")


def test_where_metadata_is() -> None:
    """OpenID appends, RFC 8414 inserts."""
    assert metadata_urls("https://a.test/x/") == (
        "https://a.test/x/.well-known/openid-configuration",
        "https://a.test/.well-known/oauth-authorization-server/x",
    )
    assert metadata_urls("https://a.test")[1] == (
        "https://a.test/.well-known/oauth-authorization-server"
    )
