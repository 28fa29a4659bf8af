"""The server that the conformance cases are run against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.target import Seen, Target, recording_app, serving


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """The lean protocol with a recording application behind it."""
    seen: list[Seen] = []
    with serving(recording_app(seen)) as address:
        yield Target(address, seen)
