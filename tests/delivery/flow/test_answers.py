"""What expressions of a flow name, and what they see of answers."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.delivery.flow.answers import (
    FLOW_ROOTS,
    Answers,
    UnnamedStep,
    expressions_in,
    named_in,
    seconds_until,
)
from gateway.delivery.flow.call import call_key
from gateway.delivery.flow.machine import Moment, Outline, StepRule, begin, done, skipped
from gateway.delivery.flow.progress import MOST_OF_ALL, MOST_OF_ONE, Kept
from gateway.delivery.outcome import RetryRule
from gateway.expressions import Expression, ExpressionFailed
from gateway.message import Exchange, Headers, Request

FLOW = Outline(tuple(StepRule(name, RetryRule(1, 1.0)) for name in ("a", "b", "c")), "d", 1.0)
NOW = Moment(0.0, 1, 0.0)


def exchange(body: bytes = b"") -> Exchange:
    request = Request("POST", "/", b"", Headers([]))
    request.body = body
    return Exchange(request, 0.0)


def value(text: str, of: Exchange) -> Any:
    return Expression(text, FLOW_ROOTS).value(of)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("steps.a.body.x", {"a": {"body"}}),
        ("steps . a . headers['x'] + steps.b.status", {"a": {"headers"}, "b": set()}),
        ("steps.a", {"a": {"body", "headers"}}),
        ("body.steps.a + 'steps.b.body' + r\"steps\"", {}),
        ("has(steps.a.body.x) ? steps.a.body.x : 'it\\'s steps.b'", {"a": {"body"}}),
        ("mysteps.a + steps_b.x", {}),
    ],
)
def test_names_of_steps(text: str, names: dict[str, set[str]]) -> None:
    """As roots; not in strings, and not as members of something else."""
    assert dict(named_in(text)) == names


@pytest.mark.parametrize("text", ["steps", "steps['a']", "size(steps)", "[steps][0].a"])
def test_a_step_without_its_name(text: str) -> None:
    """Which answers to keep could not be known."""
    with pytest.raises(UnnamedStep):
        list(named_in(text))


def test_expressions_of_a_template() -> None:
    """Strings that begin with one =, however deep."""
    assert list(expressions_in({"a": ["=x", {"b": "=y"}], "c": "==z", "d": 1, "e": "w"})) == [
        "x", "y",
    ]  # fmt: skip


def test_answers_are_json_if_they_can_be() -> None:
    """Text otherwise; nothing for a step that was left out, or is still to come."""
    seen = exchange()
    answers = Answers(seen)
    progress = done(begin(FLOW, 1), "a", NOW, 200, Kept(b'{"id": 7}', {"x-by": "me"}))
    answers.show(progress)
    assert value("steps.a.body.id == 7 && steps.a.status == 200", seen) is True
    assert value("steps.a.headers['x-by'] + steps.a.state", seen) == "medone"
    assert value("has(steps.b)", seen) is False
    answers.show(skipped(done(progress, "b", NOW, 200, Kept(b"[" * 100_000)), "c", 1.0))
    assert value("size(steps.b.body)", seen) == 100_000
    assert value("steps.c.body == null && steps.c.status == 0", seen) is True


def test_answers_that_are_shown_once_are_gone_afterwards() -> None:
    """An answer that did not fit is none that other steps could see."""
    seen = exchange()
    answers = Answers(seen)
    answers.show_one("a", 200, Kept(b"1"))
    assert value("steps.a.body", seen) == 1
    answers.show(begin(FLOW, 1))
    assert value("has(steps.a)", seen) is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("body.at", 60.0),
        ("timestamp(body.at) - duration('30s')", 30.0),
        ("duration('1h')", 3600.0),
        ("2.5", 2.5),
        ("-1", -1.0),
        ("'1970-01-01T00:10:00'", 600.0),
    ],
)
def test_a_time_to_wait_for(text: str, seconds: float) -> None:
    """A timestamp, its text, a duration, or seconds."""
    seen = exchange(b'{"at": "1970-01-01T01:01:00+01:00"}')
    assert seconds_until(Expression(text, FLOW_ROOTS), seen, 0.0) == seconds


@pytest.mark.parametrize("text", ["'soon'", "true", "[1]", "body.x", "1e300", "null"])
def test_what_is_no_time(text: str) -> None:
    """Fails, and waits for nothing."""
    with pytest.raises(ExpressionFailed):
        seconds_until(Expression(text, FLOW_ROOTS), exchange(b"{}"), 0.0)


def test_what_is_kept_is_bounded() -> None:
    """One answer by 64 KiB, all of them by 256 KiB."""
    progress = begin(FLOW, 1)
    assert progress.room == MOST_OF_ONE
    big = Kept(b"x" * (MOST_OF_ALL // 2 - 8), {"name": "four"})
    progress = done(done(progress, "a", NOW, 200, big), "b", NOW, 200, big)
    assert progress.room == 0


def test_keys_of_calls() -> None:
    """The event's key and the step; a digest if that would be longer than keys may be."""
    assert call_key("k", "charge") == "k:charge"
    long = call_key("k" * 255, "charge:compensate")
    assert len(long) < 255
    assert long.endswith(":charge:compensate")
    assert long == call_key("k" * 255, "charge:compensate") != call_key("l" * 255, "charge")
