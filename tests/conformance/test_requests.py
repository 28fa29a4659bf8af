"""Raw requests against the lean protocol: each case names the rule that it holds the server to."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case
from tests.conformance.runner import run
from tests.conformance.table import SERVER_CASES, name_of
from tests.conformance.target import Target


@pytest.mark.parametrize("case", SERVER_CASES, ids=name_of)
def test_request(case: Case, target: Target) -> None:
    """The request is read as the RFC says, or refused with nothing let through."""
    run(case, target)


def test_names_are_unique() -> None:
    """Each case can be found by its name."""
    names = [name_of(case) for case in SERVER_CASES]
    assert len(names) == len(set(names))
