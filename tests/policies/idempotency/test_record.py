"""What is kept of an idempotent request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.idempotency.record import (
    Answer,
    Claimed,
    Completed,
    UnreadableRecord,
    decode,
    encode_claim,
    encode_completed,
    fingerprint,
    is_final,
    storable_headers,
)

PRINT = fingerprint("POST", "/", b"", b"", b"{}")


def test_a_claim_comes_back() -> None:
    """With the fingerprint of the request that made it."""
    assert decode(encode_claim(b"t" * 16, PRINT)) == Claimed(PRINT)


@given(st.binary(max_size=100), st.integers(200, 499))
def test_an_answer_comes_back(body: bytes, status: int) -> None:
    """Byte for byte."""
    answer = Answer(status, [(b"content-type", b"a/b"), (b"x", b"\xff")], body, 1.5)

    assert decode(encode_completed(PRINT, answer)) == Completed(PRINT, answer)


@given(st.binary(max_size=120))
def test_what_is_no_record(text: bytes) -> None:
    """Whatever else stands under the key is told apart, and raises nothing else."""
    try:
        decode(text)
    except UnreadableRecord:
        pass


@pytest.mark.parametrize(
    "other",
    [
        ("PUT", "/a", b"q", b"t", b"b"),
        ("POST", "/b", b"q", b"t", b"b"),
        ("POST", "/a", b"", b"t", b"b"),
        ("POST", "/a", b"q", b"", b"b"),
        ("POST", "/a", b"q", b"t", b"c"),
        ("POST", "/aq", b"", b"t", b"b"),
    ],
)
def test_other_requests_have_other_fingerprints(
    other: tuple[str, str, bytes, bytes, bytes],
) -> None:
    """Each part of the request counts, and where one part ends."""
    assert fingerprint(*other) != fingerprint("POST", "/a", b"q", b"t", b"b")


@pytest.mark.parametrize(
    ("status", "final"),
    [(200, True), (201, True), (202, True), (204, True), (301, True), (400, True), (401, True),
     (404, True), (422, True), (408, False), (409, False), (425, False), (429, False),
     (500, False), (502, False), (503, False), (504, False)],
)  # fmt: skip
def test_final_statuses(status: int, final: bool) -> None:
    """Success and the caller's mistakes are final, what may pass is not."""
    assert is_final(status) is final


def test_fields_of_one_exchange_are_not_stored() -> None:
    """What belongs to a connection, or to the moment, is not replayed."""
    fields = [(b"content-type", b"a/b"), (b"age", b"3"), (b"transfer-encoding", b"chunked")]

    assert storable_headers(fields) == [(b"content-type", b"a/b")]
