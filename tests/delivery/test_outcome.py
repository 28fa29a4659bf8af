"""What an attempt's end means, and what follows from it."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.outcome import (
    Again,
    Delivered,
    Failed,
    Paused,
    Reason,
    RetryRule,
    decide,
    judge_failure,
    judge_status,
    parse_retry_after,
)
from gateway.errors import CODES, Source


@given(st.integers(100, 599))
def test_every_status_has_a_meaning(status: int) -> None:
    """2xx is delivered; 3xx, 4xx and 501 are final but for 408, 425 and 429; the rest is not."""
    found = judge_status(status, None, 0.0)
    if 200 <= status < 300:
        assert found == Delivered(status)
    else:
        final = (300 <= status < 500 and status not in (408, 425, 429)) or status == 501
        assert found == Failed(final, status)


@pytest.mark.parametrize("kind", CODES.values(), ids=CODES)
def test_every_code_has_a_meaning(kind: object) -> None:
    """Nothing sent and nobody's fault: paused. What only the sender could mend: final."""
    found = judge_failure(kind, "why", b"7", 0.0)  # type: ignore[arg-type]
    code = kind.code  # type: ignore[attr-defined]
    spared = {"circuit_open", "no_healthy_target", "upstream_credentials_unavailable"}
    crowded = {"bulkhead_full", "connection_limit"}
    if code in spared | crowded:
        assert found == Paused(code, 7.0, code in crowded)
    else:
        assert isinstance(found, Failed)
        assert (found.code, found.detail, found.wait) == (code, "why", 7.0)
        if kind.source is Source.UPSTREAM:  # type: ignore[attr-defined]
            assert not found.permanent
    assert judge_failure(CODES["invalid_body"], "", None, 0.0) == Failed(True, code="invalid_body")
    assert judge_failure(CODES["loop_detected"], "", None, 0.0) == Failed(
        True, code="loop_detected"
    )


def test_retry_after() -> None:
    """Seconds or a date (RFC 9110 section 10.2.3); 0 for what is neither or has passed."""
    now = 1_700_000_000.0
    assert parse_retry_after(b" 120 ", now) == 120
    assert parse_retry_after(formatdate(now + 30, usegmt=True).encode(), now) == 30
    assert parse_retry_after(formatdate(now - 30, usegmt=True).encode(), now) == 0
    for value in (b"", b"-1", b"soon", b"1.5", b"9" * 40, b"\xff", b"\xb2", b"1, 2"):
        assert parse_retry_after(value, now) == 0


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.floats(0, 4e9))
def test_retry_after_never_fails(value: bytes, now: float) -> None:
    """Whatever a target writes there."""
    assert parse_retry_after(value, now) >= 0


def test_a_schedule() -> None:
    """Its last entry holds for all that follow."""
    rule = RetryRule(9, 1e9, schedule=(1.0, 5.0, 30.0))
    assert [rule.delay(made, 0.9) for made in range(1, 6)] == [1, 5, 30, 30, 30]


def test_a_backoff() -> None:
    """It grows by its factor up to its longest; jitter draws from all of it."""
    rule = RetryRule(9, 1e9, base=1.0, factor=3.0, longest=20.0, jitter=False)
    assert [rule.delay(made, 0.1) for made in range(1, 6)] == [1, 3, 9, 20, 20]
    drawn = RetryRule(9, 1e9, base=1.0, factor=3.0, longest=20.0)
    assert [drawn.delay(made, 0.5) for made in range(1, 5)] == [0.5, 1.5, 4.5, 10]
    assert RetryRule(10**9, 1e9, factor=100.0).delay(10**9, 0.5) == 30


@given(
    made=st.integers(1, 100),
    attempts=st.integers(1, 100),
    age=st.floats(0, 1e6),
    max_total=st.floats(0.001, 1e6),
    wait=st.floats(0, 1e6),
    draw=st.floats(0, 0.999),
    permanent=st.booleans(),
)
def test_what_follows(
    made: int, attempts: int, age: float, max_total: float, wait: float, draw: float,
    permanent: bool,
) -> None:  # fmt: skip
    """Never beyond the attempts or the time, never earlier than the target asks, never after a
    refusal that is final.
    """
    rule = RetryRule(attempts, max_total)
    failed = Failed(permanent, 500, wait=wait)
    found = decide(rule, made, age, failed, draw)
    if permanent:
        assert found is Reason.PERMANENT
    elif made >= attempts:
        assert found is Reason.EXHAUSTED
    elif isinstance(found, Again):
        assert found.delay >= wait
        assert age + found.delay <= max_total
    else:
        assert found is Reason.EXPIRED
