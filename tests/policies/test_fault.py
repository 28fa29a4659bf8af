"""The fault policy: who gets which trouble."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.fault.decide import Share, decide

SHARES = [Share("abort", 0.05), Share("reset", 0.1)]


@pytest.mark.parametrize(
    ("draw", "kind"),
    [(0.0, "abort"), (0.049, "abort"), (0.05, "reset"), (0.149, "reset"), (0.151, ""), (0.999, "")],
)
def test_shares_add_up(draw: float, kind: str) -> None:
    """Each kind has its own part of the draws."""
    assert decide(SHARES, draw) == kind


@given(st.floats(0, 1, exclude_max=True))
def test_everything_always(draw: float) -> None:
    """A share of 100 % leaves no exchange out."""
    assert decide([Share("abort", 1.0)], draw) == "abort"


def test_more_than_everything() -> None:
    """Shares beyond 100 % are a mistake, not a preference for the first."""
    with pytest.raises(ValueError, match="more than 1"):
        decide([Share("abort", 0.6), Share("reset", 0.6)], 1.0 + 0.3)
