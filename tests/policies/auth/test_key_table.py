"""API keys as the pure part sees them."""

from __future__ import annotations

import os

import pytest

from gateway.policies.auth.key_table import (
    MAX_KEY,
    KeyTable,
    StoredKey,
    digest_of,
    hash_of,
    is_valid,
    new_key,
)


def stored(key: str, consumer: str = "billing", **options: float) -> StoredKey:
    return StoredKey(digest_of(hash_of(key)), consumer, **options)  # type: ignore[arg-type]


def test_several_keys_of_one_consumer() -> None:
    """Each of them is found, and tells whose it is; no other is."""
    table = KeyTable([stored("one"), stored("two"), stored("three", "shop")])

    assert [found.consumer for key in (b"one", b"two", b"three") if (found := table.find(key))] == [
        "billing", "billing", "shop",
    ]  # fmt: skip
    for stranger in (b"", b"four", b"One", b"one ", b" one", b"one\x00", b"\xff", b"x" * 1025):
        assert table.find(stranger) is None


def test_a_hash_is_no_key() -> None:
    """Whoever reads the configuration can't call with what stands there."""
    table = KeyTable([stored("one")])

    assert table.find(hash_of("one").encode()) is None
    assert table.find(digest_of(hash_of("one")).hex().encode()) is None


def test_the_same_key_twice() -> None:
    """One key of two consumers would make one of them the other."""
    with pytest.raises(ValueError, match="the key of shop stands here twice"):
        KeyTable([stored("one"), stored("one", "shop")])


def test_validity() -> None:
    """A key works from not_before until just before expires."""
    key = stored("one", not_before=100.0, expires=200.0)

    assert [is_valid(key, now) for now in (99.9, 100.0, 199.9, 200.0)] == [False, True, True, False]
    assert is_valid(stored("one"), 0.0)


def test_new_keys() -> None:
    """A new key is found by its hash, differs each time, and fits where keys go."""
    key = new_key(os.urandom)

    assert key.startswith("lgk_") and len(key) == 47
    assert key != new_key(os.urandom)
    assert len(key) < MAX_KEY
    assert KeyTable([stored(key)]).find(key.encode()) is not None
