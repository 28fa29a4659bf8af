"""The proof of the crash loop can fail: each fault that it looks for is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.crash.proof import faults_of_deliveries, late_repeats, repeats
from tests.faults.crash.senders import Accepted
from tests.faults.crash.upstream import Call


def call(target: str, seq: int, at: float, status: int = 200) -> Call:
    """The delivery of event number `seq` of key k, answered half a second later."""
    answered = at + 0.5 if status else 0.0
    return Call(0, target, f"id-{seq}", f'"k-{seq}"', 1, "k", seq, at, status, answered)


GOOD = [call(target, seq, 10.0 + seq) for target in ("/first", "/second") for seq in range(3)]
ACCEPTED = {("k", seq): f"id-{seq}" for seq in range(3)}


def faults(calls: list[Call]) -> list[str]:
    return faults_of_deliveries(Accepted(events=dict(ACCEPTED)), calls)


def test_what_is_right_has_no_faults() -> None:
    """Neither has what is repeated: before it was taken, or after, with the same key."""
    again = [call("/first", 1, 11.2, 0), call("/first", 1, 20.0)]
    calls = [*GOOD, *again]

    assert faults(GOOD) == []
    assert faults(calls) == []
    assert (repeats(calls), late_repeats(calls)) == (2, 2)


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        (GOOD[:-1], "lost: k-2 (id-2) at second: 0 attempts"),
        ([*GOOD[:-1], call("/second", 2, 12.0, 503)], "lost: k-2 (id-2) at second: 1 attempts"),
        ([*GOOD[:-1], call("/second", 2, 12.0, 0)], "lost: k-2 (id-2) at second: 1 attempts"),
        ([*GOOD, replace(GOOD[0], idempotency_key='"other"')], "id-0 has keys"),
        ([*GOOD, replace(GOOD[0], event="twin")], "('k', 0) became 2 events"),
        ([GOOD[0], call("/first", 2, 10.6), call("/first", 1, 12.0), *GOOD[3:]], "2 before 1"),
        ([GOOD[0], call("/first", 1, 10.4), *GOOD[2:]], "k-1 at /first before 0 was settled"),
        (
            [call("/first", 0, 10.0, 503), call("/first", 0, 10.9), *GOOD[1:]],
            "k-1 at /first before 0 was settled",
        ),
    ],
)
def test_faults_are_found(calls: list[Call], fault: str) -> None:
    """Lost, refused and never again, without an answer, doubled, out of order, too early."""
    assert any(fault in each for each in faults(calls)), faults(calls)
