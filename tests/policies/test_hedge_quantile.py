"""The streaming latency quantile that `hedge` begins by."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policies.hedge.quantile import ENOUGH, Quantile


def test_too_little_is_known() -> None:
    """A hundred latencies, and not one less."""
    quantile = Quantile(0.95)
    for _ in range(ENOUGH - 1):
        quantile.add(0.01)
    assert quantile.value is None
    quantile.add(0.01)
    assert quantile.value == pytest.approx(0.01, rel=0.09)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), q=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_it_is_close(seed: int, q: float) -> None:
    """Never lower than the true one, and higher by a bucket at most."""
    source = random.Random(seed)
    latencies = [source.lognormvariate(-4, 1) for _ in range(1000)]
    quantile = Quantile(q)
    for each in latencies:
        quantile.add(each)
    true = sorted(latencies)[int(q * 1000) - 1]

    assert quantile.value is not None
    assert true * 0.999 <= quantile.value <= true * 1.09


def test_it_forgets() -> None:
    """An upstream that became ten times faster is known to be so before long."""
    quantile = Quantile(0.95)
    for _ in range(5_000):
        quantile.add(0.1)
    for _ in range(10_000):
        quantile.add(0.01)
    assert quantile.value is not None
    assert quantile.value < 0.02


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9])
def test_extremes(seconds: float) -> None:
    """What can't be has a bucket, too."""
    quantile = Quantile(0.5)
    for _ in range(ENOUGH):
        quantile.add(seconds)
    assert quantile.value is not None
