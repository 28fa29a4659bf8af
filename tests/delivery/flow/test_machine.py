"""The flow's machine: each rule by itself, and hypothesis to find what breaks them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.delivery.flow.machine import (
    Backward,
    Finished,
    FlowChanged,
    Forward,
    GivenUp,
    Moment,
    Outline,
    StepRule,
    adopt,
    begin,
    done,
    expired,
    failed,
    following,
    skipped,
    started,
    undo_failed,
    undone,
    unusable,
    waited,
    waiting,
)
from gateway.delivery.flow.progress import (
    Kept,
    Progress,
    State,
    decode_progress,
    encode_progress,
)
from gateway.delivery.outcome import Failed, Reason, RetryRule

NOW = Moment(10.0, 5, 10.0)
ONCE = RetryRule(1, 100.0, schedule=(1.0,))
TWICE = RetryRule(2, 100.0, schedule=(1.0,))
REFUSED = Failed(True, 409)
BUSY = Failed(False, 503)


def outline(*rules: StepRule, digest: str = "d") -> Outline:
    return Outline(rules, digest, 100.0)


def undoable(name: str, **more: Any) -> StepRule:
    return StepRule(name, ONCE, undo=TWICE, **more)


def plain(name: str, **more: Any) -> StepRule:
    return StepRule(name, ONCE, **more)


ABC = outline(undoable("a"), plain("b"), undoable("c"), plain("d"))


def after(flow: Outline, *names: str) -> Progress:
    progress = begin(flow, 1)
    for name in names:
        progress = done(progress, name, NOW, 200)
    return progress


def refused(flow: Outline, progress: Progress, name: str, what: Failed = REFUSED) -> Progress:
    progress, delay = failed(flow, progress, name, what, NOW, age=1.0, draw=0.0)
    assert delay is None
    return progress


def states(progress: Progress) -> list[str]:
    return [str(step.state) for step in progress.steps]


def test_forward_in_order() -> None:
    """A skipped step counts as taken; the outcome's status is that of the last call."""
    progress = begin(ABC, 1)
    assert following(progress) == Forward("a")
    progress = skipped(done(progress, "a", NOW, 201), "b", 1.0)
    assert following(progress) == Forward("c")
    progress = skipped(skipped(progress, "c", 1.0), "d", 1.0)
    assert following(progress) == Finished(201)


def test_backward_in_reverse() -> None:
    """Only what was done and can be undone, the last one first."""
    progress = refused(ABC, after(ABC, "a", "b", "c"), "d")
    assert following(progress) == Backward("c")
    progress = undone(progress, "c", NOW, 200)
    assert following(progress) == Backward("a")
    progress = undone(progress, "a", NOW, 200)
    move = following(progress)
    assert isinstance(move, GivenUp)
    assert (move.failed.permanent, move.failed.status) == (True, 409)
    assert (move.failed.reason, move.failed.code) == (Reason.PERMANENT, "")
    assert states(progress) == ["compensated", "done", "compensated", "failed"]


def test_a_step_has_its_attempts() -> None:
    """A transient failure is tried again until these are used up."""
    flow = outline(StepRule("a", TWICE))
    progress, delay = failed(flow, begin(flow, 1), "a", BUSY, NOW, age=1.0, draw=0.0)
    assert (delay, following(progress)) == (1.0, Forward("a"))
    progress, delay = failed(flow, progress, "a", BUSY, NOW, age=1.0, draw=0.0)
    assert delay is None
    move = following(progress)
    assert isinstance(move, GivenUp)
    assert move.failed.reason is Reason.EXHAUSTED


def test_a_compensation_has_its_own_attempts() -> None:
    """And then the flow stands still; the event's reason is still the step's."""
    progress = refused(ABC, after(ABC, "a", "b", "c"), "d")
    progress, delay = undo_failed(ABC, progress, "c", BUSY, NOW, 0.0)
    assert (delay, following(progress)) == (1.0, Backward("c"))
    progress, delay = undo_failed(ABC, progress, "c", BUSY, NOW, 0.0)
    move = following(progress)
    assert delay is None
    assert isinstance(move, GivenUp)
    assert (move.failed.code, move.failed.reason) == ("compensation_failed", Reason.PERMANENT)
    assert "still to be compensated: c, a" in move.failed.detail


def test_what_may_have_been_carried_out_is_undone_if_asked_for() -> None:
    """After a failure that leaves it open, or a call of which nobody knows how it ended."""
    flow = outline(undoable("a", when_unsure=True))
    clean = refused(flow, started(begin(flow, 1), "a"), "a")
    assert isinstance(following(clean), GivenUp)
    unclear = refused(flow, started(begin(flow, 1), "a"), "a", BUSY)
    assert following(unclear) == Backward("a")
    odd = refused(flow, started(begin(flow, 1), "a"), "a", Failed(True, 202))
    assert following(odd) == Backward("a")
    lost = refused(flow, started(started(begin(flow, 1), "a"), "a"), "a")
    assert following(lost) == Backward("a")
    late = expired(started(begin(flow, 1), "a"), 200.0)
    assert following(late) == Backward("a")
    certain = outline(undoable("a"))
    assert isinstance(following(refused(certain, begin(certain, 1), "a", BUSY)), GivenUp)


def test_an_answer_that_can_t_be_kept_does_not_undo_that_it_was_given() -> None:
    """The step is undone with the others."""
    progress = unusable(begin(ABC, 1), "a", NOW, 200, "too long")
    assert following(progress) == Backward("a")


def test_time_ends_both_ways() -> None:
    """Forward it turns the flow around, backward it stops it."""
    progress = expired(after(ABC, "a"), 200.0)
    assert following(progress) == Backward("a")
    assert progress.turned_at == 200.0
    move = following(expired(progress, 400.0))
    assert isinstance(move, GivenUp)
    assert (move.failed.code, move.failed.reason) == ("compensation_failed", Reason.EXPIRED)


# Replays.


def test_a_replay_begins_anew_after_everything_was_undone() -> None:
    """With nothing of the old answers."""
    progress = undone(refused(ABC, after(ABC, "a"), "b"), "a", NOW, 200)
    assert adopt(ABC, progress, 2, 50.0) == begin(ABC, 2)


def test_a_replay_goes_on_where_nothing_was_undone() -> None:
    """At the step that failed, with all of its attempts."""
    progress = refused(ABC, skipped(begin(ABC, 1), "a", 1.0), "b")
    again = adopt(ABC, progress, 2, 50.0)
    assert (following(again), again.failure, again.step("b").attempts) == (Forward("b"), None, 0)
    assert again.step("a").state is State.SKIPPED


def test_a_replay_finishes_an_undoing_that_got_stuck() -> None:
    """Before anything is done anew."""
    progress = undone(refused(ABC, after(ABC, "a", "b", "c"), "d"), "c", NOW, 200)
    progress, delay = undo_failed(ABC, progress, "a", REFUSED, NOW, 0.0)
    assert (delay, states(progress)[0]) == (None, "stuck")
    again = adopt(ABC, progress, 2, 50.0)
    assert (following(again), again.turned_at) == (Backward("a"), 50.0)
    assert isinstance(following(undone(again, "a", NOW, 200)), GivenUp)
    assert adopt(ABC, undone(again, "a", NOW, 200), 3, 60.0) == begin(ABC, 3)


def test_a_replay_does_not_undo_what_could_not_be_undone_before() -> None:
    """A compensation that was configured afterwards is for what fails afterwards."""
    old, new = outline(plain("a"), plain("b")), outline(undoable("a"), plain("b"), digest="e")
    again = adopt(new, refused(old, after(old, "a"), "b"), 2, 50.0)
    assert following(again) == Forward("b")
    assert following(refused(new, again, "b")) == Backward("a")


# Other definitions.


def test_what_was_done_stays_done() -> None:
    """What comes then goes by the new definition."""
    new = outline(undoable("a"), plain("x"), plain("b"), digest="e")
    again = adopt(new, after(ABC, "a"), 1, 50.0)
    assert (following(again), again.digest) == (Forward("x"), "e")
    assert [step.name for step in again.steps] == ["a", "x", "b"]


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (outline(plain("b"), digest="e"), '"a" may have to be undone, and is gone'),
        (outline(plain("x"), undoable("a"), plain("b"), digest="e"), "stands where"),
        (outline(undoable("a"), digest="e"), '"b" was done, and is gone'),
        (outline(undoable("a", keeps=frozenset({"body"})), plain("b"), digest="e"), "not kept"),
    ],
)
def test_nothing_is_guessed(new: Outline, why: str) -> None:
    """A definition that does not fit what was done is refused."""
    with pytest.raises(FlowChanged, match=why):
        adopt(new, after(ABC, "a", "b"), 1, 50.0)


def test_a_call_under_way_must_be_the_next_one() -> None:
    """If it would have to be undone, should nobody know how it ended."""
    flow = outline(undoable("a", when_unsure=True))
    new = outline(plain("x"), undoable("a", when_unsure=True), digest="e")
    assert following(adopt(new, begin(flow, 1), 1, 50.0)) == Forward("x")
    with pytest.raises(FlowChanged, match="under way"):
        adopt(new, started(begin(flow, 1), "a"), 1, 50.0)


def test_a_wait_that_became_a_call_is_one() -> None:
    """A step is what the definition says now, unless it was done."""
    flow, new = outline(plain("a", waits=True)), outline(plain("a"), digest="e")
    progress = waiting(begin(flow, 1), "a", 1.0)
    assert adopt(new, progress, 1, 50.0).step("a").state is State.PENDING
    same = outline(plain("a", waits=True), digest="e")
    assert adopt(same, progress, 1, 50.0).step("a").state is State.WAITING


def test_undoing_goes_by_the_new_definition_too() -> None:
    """What can no longer be undone is left; what is gone though it should be is refused."""
    progress = refused(ABC, after(ABC, "a", "b", "c"), "d")
    new = outline(undoable("a"), plain("c"), digest="e")
    assert following(adopt(new, progress, 1, 50.0)) == Backward("a")
    with pytest.raises(FlowChanged):
        adopt(outline(undoable("a"), digest="e"), progress, 1, 50.0)


# All together.


@st.composite
def outlines(draw: st.DrawFn) -> Outline:
    rules = []
    for position in range(draw(st.integers(1, 5))):
        waits = draw(st.booleans()) and draw(st.booleans())
        undo = None if waits or draw(st.booleans()) else RetryRule(draw(st.integers(1, 3)), 1e9)
        rules.append(
            StepRule(
                f"s{position}",
                RetryRule(draw(st.integers(1, 3)), 1e9),
                undo,
                when_unsure=undo is not None and draw(st.booleans()),
                waits=waits,
            )
        )
    return Outline(tuple(rules), "d", 1e9)


EVENTS = st.sampled_from(
    ["ok", "ok", "ok", "skip", "busy", "busy", "refused", "crash", "lost", "unusable", "expired"]
)


@dataclass
class World:
    """What happened outside, and what is written down."""

    flow: Outline
    saved: Progress
    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    moves: int = 0

    def save(self, progress: Progress) -> None:
        self.saved = decode_progress(encode_progress(progress))
        assert self.saved == progress

    def take(self, event: str) -> None:
        """One move that ends like this."""
        move = following(self.saved)
        self.moves += 1
        if event == "expired":
            self.save(expired(self.saved, 1.0))
        elif isinstance(move, Forward):
            assert move.step not in self.done
            self._forward(move.step, event)
        else:
            assert isinstance(move, Backward)
            assert move.step not in self.undone
            self._backward(move.step, event)

    def _forward(self, name: str, event: str) -> None:
        rule, progress = self.flow.rule(name), self.saved
        if rule.waits and progress.step(name).state is not State.WAITING:
            self.save(waiting(progress, name, 1.0))
            return
        if rule.waits:
            self._did(waited(progress, name), name)
            return
        if event == "skip":
            self._did(skipped(progress, name, 1.0), name)
            return
        if rule.when_unsure:
            progress = started(progress, name)
            self.save(progress)
        if event in ("busy", "refused"):
            what = BUSY if event == "busy" else REFUSED
            self.save(failed(self.flow, progress, name, what, NOW, age=1.0, draw=0.5)[0])
        elif event == "unusable":
            self._did(unusable(progress, name, NOW, 200, ""), name)
        elif event == "ok":
            self._did(done(progress, name, NOW, 200, Kept(b"x")), name)
        # A crash, before or after it was carried out: nothing was written down.

    def _did(self, progress: Progress, name: str) -> None:
        self.save(progress)
        self.done.append(name)

    def _backward(self, name: str, event: str) -> None:
        if event in ("busy", "refused"):
            what = BUSY if event == "busy" else REFUSED
            self.save(undo_failed(self.flow, self.saved, name, what, NOW, 0.5)[0])
        elif event not in ("crash", "lost"):
            self.save(undone(self.saved, name, NOW, 200))
            self.undone.append(name)


@given(outlines(), st.lists(EVENTS, max_size=30))
def test_whatever_happens(flow: Outline, events: list[str]) -> None:
    """No step is taken again once it is written down as done; exactly those that were done, and can
    be undone, are undone, in reverse; and it ends.
    """
    world = World(flow, begin(flow, 1))
    events = list(events)
    while isinstance(following(world.saved), Forward | Backward):
        world.take(events.pop(0) if events else "ok")
    # Each event costs a move, and each step no more than begin, wait and undo beside them.
    assert world.moves <= 30 + 3 * len(flow.steps)

    names = [rule.name for rule in flow.steps]
    assert world.done == names[: len(world.done)]
    move, progress = following(world.saved), world.saved
    if isinstance(move, Finished):
        assert (world.done, world.undone) == (names, [])
        return
    assert progress.failure is not None
    skips = {step.name for step in progress.steps if step.state is State.SKIPPED}
    expected = [name for name in reversed(world.done) if name not in skips and flow.rule(name).undo]
    failing = progress.failure.step
    if failing not in world.done and progress.step(failing).unsure:
        expected.insert(0, failing)
    if progress.stuck is None:
        assert world.undone == expected
    else:
        assert world.undone == expected[: len(world.undone)]
        assert progress.stuck.step == expected[len(world.undone)]
    # In the next epoch: what is left is undone, or it begins anew, or goes on where it failed.
    again = adopt(flow, progress, 2, 5.0)
    if progress.stuck is not None:
        assert following(again) == Backward(progress.stuck.step)
    elif world.undone:
        assert again == begin(flow, 2)
    else:
        assert following(again) == Forward(failing)
        assert replace(again, epoch=1, failure=None).steps[0].name == names[0]


@settings(max_examples=50)
@given(outlines(), st.lists(EVENTS, max_size=8), st.data())
def test_another_definition_loses_nothing(
    flow: Outline, events: list[str], data: st.DataObject
) -> None:
    """Either it is refused, or what was done is still there, and so is all that must be undone."""
    world = World(flow, begin(flow, 1))
    for event in events:
        if isinstance(following(world.saved), Forward | Backward):
            world.take(event)
    rules = data.draw(st.lists(st.sampled_from(flow.steps), unique=True, max_size=5))
    extra = data.draw(st.integers(0, len(rules)))
    new = Outline((*rules[:extra], plain("new"), *rules[extra:]), "e", 1e9)
    old = world.saved
    try:
        found = adopt(new, old, 1, 5.0)
    except FlowChanged:
        return
    assert adopt(new, found, 1, 5.0) == found
    ended = [step.name for step in old.steps if step.ended]
    if old.failure is None:
        assert [step.name for step in found.steps if step.ended] == ended
        assert [step.name for step in found.steps] == [rule.name for rule in new.steps]
    for step in old.steps:
        begun = step.state in (State.DONE, State.RUNNING, State.STUCK) or step.to_undo
        if begun and step.undoable:
            assert found.step(step.name).state is step.state
            assert found.step(step.name).undoable
