"""Runs a case against a target, and says in words what was wrong."""

from __future__ import annotations

from tests.conformance.case import Case, get
from tests.conformance.target import Target
from tests.conformance.wire import Answer, Ended, Wire


def run(case: Case, target: Target, *, exact_targets: bool = True) -> None:
    """Send, read, compare; raises AssertionError.

    `exact_targets` compares the targets that came through byte by byte; a gateway that rewrites
    paths is held to their number only.
    """
    target.seen.clear()
    with target.connect() as wire:
        for data in case.send:
            wire.send(data)
        answers = _read(case, wire)
        if case.closes:
            assert wire.ended(), f"{case.name}: more came after the last answer"
        else:
            _still_serves(case, wire, target)
    _compare_seen(case, target, exact_targets)
    for number, body in enumerate(case.bodies):
        assert answers[number].body == body, f"{case.name}: body of answer {number}"
    for name, value in case.answered.items():
        assert answers[0].get(name) == value, f"{case.name}: {name!r} is {answers[0].get(name)!r}"


def _read(case: Case, wire: Wire) -> list[Answer]:
    answers = []
    methods = case.methods or ("GET",) * len(case.statuses)
    for number, status in enumerate(case.statuses):
        try:
            answer = wire.read(methods[number])
        except Ended as ended:
            raise AssertionError(
                f"{case.name}: no answer {number}, {status} expected; got {ended.partial!r}"
            ) from None
        answers.append(answer)
        assert answer.status == status, f"{case.name}: {answer.raw!r} {answer.body!r}"
        last = number == len(case.statuses) - 1
        if case.closes and last:
            options = (answer.get(b"connection") or b"").lower()
            assert b"close" in options, f"{case.name}: the last answer does not say close"
    return answers


def _still_serves(case: Case, wire: Wire, target: Target) -> None:
    before = len(target.seen)
    wire.send(get(b"/probe"))
    try:
        answer = wire.read()
    except Ended:
        raise AssertionError(f"{case.name}: the connection was closed") from None
    assert answer.status == 200, f"{case.name}: the connection is out of step: {answer.raw!r}"
    assert len(target.seen) == before + 1
    assert target.seen.pop().target == b"/probe"


def _compare_seen(case: Case, target: Target, exact: bool) -> None:
    got = tuple(each.target for each in target.seen)
    if exact:
        assert got == case.reached, f"{case.name}: reached {got}"
    else:
        assert len(got) == len(case.reached), f"{case.name}: reached {got}"
    for name, value in case.received.items():
        assert target.seen[0].get(name) == value, f"{case.name}: {target.seen[0].headers}"
    if case.body_received is not None:
        assert target.seen[0].body == case.body_received, f"{case.name}: {target.seen[0].body!r}"
