"""What a flow does next. Pure: time and randomness are passed in.

A flow goes forward through its steps in order. A step that is given up turns it around: the steps
that were carried out and have a compensation are undone, the last one first, and then the event is
given up. A compensation that is given up stops the flow where it is, for whoever looks after it.

    pending ─ skipped                        failed ┄ compensated    (only if it is unsure)
       │ ┌─ waiting ─┐                          │   ┄ stuck
       └─┤           ├─ done ─ compensated      │
         └─ running ─┘    └─── stuck ─ (a replay goes on from here)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from gateway.delivery.flow.progress import NOTHING_KEPT, Kept, Progress, State, StepState, Trouble
from gateway.delivery.outcome import Again, Failed, Reason, RetryRule, decide

COMPENSATION_FAILED: Final = "compensation_failed"
ANSWER_UNUSABLE: Final = "answer_unusable"
FLOW_CHANGED: Final = "flow_changed"


@dataclass(frozen=True, slots=True)
class StepRule:
    """One step of a definition: when it is tried again, and how often what undoes it is (`undo`;
    None: nothing does). `when_unsure` has it undone also if nobody knows that it was carried out.
    `waits` tells a wait from a call; `keeps` names the parts of its answer that others need.
    """

    name: str
    retry: RetryRule
    undo: RetryRule | None = None
    when_unsure: bool = False
    waits: bool = False
    keeps: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outline:
    """A definition. `max_total` (seconds) bounds the way forward, and once more the way back."""

    steps: tuple[StepRule, ...]
    digest: str
    max_total: float

    def rule(self, name: str) -> StepRule:
        """The step of this name. Raises KeyError."""
        for each in self.steps:
            if each.name == name:
                return each
        raise KeyError(name)


class FlowChanged(Exception):
    """The definition no longer fits what was done. The text says where."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Take this step."""

    step: str


@dataclass(frozen=True, slots=True)
class Backward:
    """Undo this step."""

    step: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All steps were taken. `status` is the last answer's, 0 if there was none."""

    status: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Nothing is left to do, and the flow failed."""

    failed: Failed


Move = Forward | Backward | Finished | GivenUp


@dataclass(frozen=True, slots=True)
class Moment:
    """When an attempt at a step began (Unix seconds), how long it took (ms), and the time now."""

    at: float
    ms: int
    now: float


def begin(outline: Outline, epoch: int) -> Progress:
    """Nothing is done yet."""
    return Progress(outline.digest, epoch, tuple(map(_untouched, outline.steps)))


def following(progress: Progress) -> Move:
    """What is to be done now."""
    if progress.failure is None:
        for step in progress.steps:
            if not step.ended:
                return Forward(step.name)
        calls = [step.status for step in progress.steps if step.status]
        return Finished(calls[-1] if calls else 0)
    if progress.stuck is None:
        for step in reversed(progress.steps):
            if step.to_undo:
                return Backward(step.name)
    return GivenUp(_as_failed(progress))


# Forward.


def started(progress: Progress, name: str) -> Progress:
    """A call begins. If it had begun before, and nobody wrote down how it ended, it is unsure."""
    step = progress.step(name)
    lost = step.unsure or step.state is State.RUNNING
    return _with(progress, replace(step, state=State.RUNNING, unsure=lost))


def waiting(progress: Progress, name: str, at: float) -> Progress:
    """A wait begins."""
    return _with(progress, replace(progress.step(name), state=State.WAITING, at=at))


def skipped(progress: Progress, name: str, at: float) -> Progress:
    """Its condition does not hold."""
    return _with(progress, replace(progress.step(name), state=State.SKIPPED, at=at))


def waited(progress: Progress, name: str) -> Progress:
    """A wait is over."""
    return _with(progress, replace(progress.step(name), state=State.DONE))


def done(
    progress: Progress, name: str, moment: Moment, status: int, kept: Kept = NOTHING_KEPT
) -> Progress:
    """A call succeeded."""
    step = _attempted(progress.step(name), moment, status, "")
    return _with(progress, replace(step, state=State.DONE, unsure=False, kept=kept))


def unusable(progress: Progress, name: str, moment: Moment, status: int, detail: str) -> Progress:
    """A call succeeded, but its answer can't be kept: the step is done, and the flow failed."""
    step = _attempted(progress.step(name), moment, status, ANSWER_UNUSABLE)
    trouble = Trouble(name, Reason.PERMANENT, status, ANSWER_UNUSABLE, detail)
    step = replace(step, state=State.DONE, unsure=False)
    return _turned(_with(progress, step), trouble, moment.now)


def failed(
    outline: Outline, progress: Progress, name: str, what: Failed, moment: Moment,
    *, age: float, draw: float,
) -> tuple[Progress, float | None]:  # fmt: skip
    """A step failed: the seconds until it is tried again, or None if the flow turned around.

    `age` is that of the event's epoch in seconds, `draw` from [0, 1).
    """
    rule = outline.rule(name)
    step = _attempted(progress.step(name), moment, what.status, what.code)
    # A 2xx that was not expected is refused for good, and may have been carried out all the same.
    if rule.when_unsure and (not what.permanent or 200 <= what.status < 300):
        step = replace(step, unsure=True)
    next_ = decide(rule.retry, step.attempts, age, what, draw)
    if isinstance(next_, Again):
        return _with(progress, replace(step, state=State.PENDING)), next_.delay
    trouble = Trouble(name, next_, what.status, what.code, what.detail, what.answer)
    turned = _with(progress, replace(step, state=State.FAILED))
    return _turned(turned, trouble, moment.now), None


def expired(progress: Progress, now: float) -> Progress:
    """The time for the way forward, or for the way back, is over."""
    move = following(progress)
    if isinstance(move, Backward):
        step = progress.step(move.step)
        trouble = Trouble(step.name, Reason.EXPIRED, step.status, step.code)
        return replace(_with(progress, replace(step, state=State.STUCK)), stuck=trouble)
    assert isinstance(move, Forward)
    step = progress.step(move.step)
    # A call that had begun, and whose end nobody wrote down, may have been carried out.
    unsure = step.unsure or step.state is State.RUNNING
    trouble = Trouble(step.name, Reason.EXPIRED, step.status, step.code)
    gone = replace(step, state=State.FAILED, unsure=unsure)
    return _turned(_with(progress, gone), trouble, now)


# Backward.


def undone(progress: Progress, name: str, moment: Moment, status: int) -> Progress:
    """A compensation succeeded."""
    step = _unattempted(progress.step(name), moment, status, "")
    return _with(progress, replace(step, state=State.COMPENSATED))


def undo_failed(
    outline: Outline, progress: Progress, name: str, what: Failed, moment: Moment, draw: float
) -> tuple[Progress, float | None]:
    """A compensation failed: the seconds until it is tried again, or None if it is given up."""
    rule = outline.rule(name).undo
    assert rule is not None
    step = _unattempted(progress.step(name), moment, what.status, what.code)
    age = moment.now - progress.turned_at
    next_ = decide(rule, step.undo_attempts, age, what, draw)
    if isinstance(next_, Again):
        return _with(progress, step), next_.delay
    trouble = Trouble(name, next_, what.status, what.code, what.detail, what.answer)
    # Whether it had been carried out for sure is still told by `unsure`.
    return replace(_with(progress, replace(step, state=State.STUCK)), stuck=trouble), None


# Over time.


def adopt(outline: Outline, progress: Progress | None, epoch: int, now: float) -> Progress:
    """The progress to go on with, by this definition, in this epoch. Raises FlowChanged."""
    if progress is None:
        return begin(outline, epoch)
    if progress.epoch != epoch:
        # By what is written there: what had been undone by the definition of that time.
        progress = _reopened(outline, progress, epoch, now)
    if progress.digest != outline.digest:
        progress = _carried_over(outline, progress)
    return progress


def _carried_over(outline: Outline, progress: Progress) -> Progress:
    """The same progress by another definition: what was done stays done, whatever it was called
    with; what was not yet done goes by the new one.
    """
    known = {rule.name: rule for rule in outline.steps}
    for step in progress.steps:
        rule = known.get(step.name)
        if rule is None and step.undoable and _may_be_undone(step):
            raise FlowChanged(f'"{step.name}" may have to be undone, and is gone')
        called = rule is not None and not rule.waits and step.state is State.DONE
        if rule is not None and called and rule.keeps - step.kept.parts:
            raise FlowChanged(f'what "{step.name}" answered was not kept, and is needed now')
    if progress.failure is None:
        steps = _steps_forward(outline, progress)
    else:
        steps = tuple(
            replace(step, undoable=known[step.name].undo is not None)
            if step.name in known
            else step
            for step in progress.steps
        )
    return replace(progress, digest=outline.digest, steps=steps)


def _may_be_undone(step: StepState) -> bool:
    taken = step.state in (State.DONE, State.RUNNING, State.STUCK)
    return taken or (step.unsure and step.state is not State.COMPENSATED)


def _steps_forward(outline: Outline, progress: Progress) -> tuple[StepState, ...]:
    ended = [step for step in progress.steps if step.ended]
    current = progress.steps[len(ended)] if len(ended) < len(progress.steps) else None
    steps = []
    for position, rule in enumerate(outline.steps):
        step = _untouched(rule)
        if position < len(ended):
            if ended[position].name != rule.name:
                raise FlowChanged(f'"{rule.name}" stands where "{ended[position].name}" was done')
            step = replace(ended[position], undoable=step.undoable)
        elif position == len(ended) and current is not None and current.name == rule.name:
            step = replace(current, undoable=step.undoable)
            if (step.state is State.WAITING) is not rule.waits:
                step = replace(step, state=State.PENDING)
        steps.append(step)
    if len(steps) < len(ended):
        raise FlowChanged(f'"{ended[len(steps)].name}" was done, and is gone')
    if current is not None and current.undoable and _may_be_undone(current):
        following_ = next((step.name for step in steps if not step.ended), "")
        if following_ != current.name:
            raise FlowChanged(f'"{current.name}" was under way, and is not the next one')
    return tuple(steps)


def _reopened(outline: Outline, progress: Progress, epoch: int, now: float) -> Progress:
    """A dead letter is replayed: first what is half undone is undone; what was undone, and nothing
    else, begins anew; otherwise it goes on at the step that failed.
    """
    steps = tuple(map(_unstuck, progress.steps))
    progress = replace(progress, epoch=epoch, steps=steps, stuck=None)
    if isinstance(following(progress), Finished):
        return begin(outline, epoch)
    if progress.failure is None:
        return replace(progress, steps=tuple(map(_once_more, steps)))
    if isinstance(following(progress), Backward):
        return replace(progress, turned_at=now)
    if any(step.state is State.COMPENSATED for step in steps):
        return begin(outline, epoch)
    again = tuple(_once_more(step, progress.failure) for step in steps)
    return replace(progress, steps=again, failure=None, turned_at=0.0)


def _unstuck(step: StepState) -> StepState:
    if step.state is not State.STUCK:
        return step
    state = State.FAILED if step.unsure else State.DONE
    return replace(step, state=state, undo_attempts=0)


def _once_more(step: StepState, failure: Trouble | None = None) -> StepState:
    if failure is not None and step.name == failure.step:
        return replace(step, state=State.PENDING, attempts=0, kept=NOTHING_KEPT)
    return step if step.ended else replace(step, attempts=0)


# Parts.


def _untouched(rule: StepRule) -> StepState:
    return StepState(rule.name, undoable=rule.undo is not None)


def _with(progress: Progress, step: StepState) -> Progress:
    steps = tuple(step if each.name == step.name else each for each in progress.steps)
    return replace(progress, steps=steps)


def _attempted(step: StepState, moment: Moment, status: int, code: str) -> StepState:
    return replace(
        step, attempts=step.attempts + 1, status=status, code=code, at=moment.at, ms=moment.ms
    )


def _unattempted(step: StepState, moment: Moment, status: int, code: str) -> StepState:
    return replace(
        step, undo_attempts=step.undo_attempts + 1, undo_status=status, code=code, at=moment.at,
        ms=moment.ms,
    )  # fmt: skip


def _turned(progress: Progress, trouble: Trouble, now: float) -> Progress:
    return replace(progress, failure=trouble, turned_at=now)


def _as_failed(progress: Progress) -> Failed:
    failure, stuck = progress.failure, progress.stuck
    assert failure is not None
    text = _told("step", failure)
    undone_ = [step.name for step in reversed(progress.steps) if step.state is State.COMPENSATED]
    if stuck is None:
        text += f"; compensated: {', '.join(undone_)}" if undone_ else "; nothing was compensated"
        return Failed(
            True, failure.status, failure.code, text, failure.answer,
            reason=Reason(failure.reason),
        )  # fmt: skip
    left = [
        step.name for step in reversed(progress.steps) if step.to_undo or step.state is State.STUCK
    ]
    text += f"; {_told('compensating', stuck)}; still to be compensated: {', '.join(left)}"
    if undone_:
        text += f"; compensated: {', '.join(undone_)}"
    return Failed(
        True, stuck.status, COMPENSATION_FAILED, text, stuck.answer, reason=Reason(failure.reason)
    )  # fmt: skip


def _told(what: str, trouble: Trouble) -> str:
    met = str(trouble.status) if trouble.status else trouble.code
    facts = ", ".join(part for part in (met, trouble.reason, trouble.detail) if part)
    return f'{what} "{trouble.step}" failed ({facts})'
