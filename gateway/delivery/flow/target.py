"""A flow as a target: takes its steps one after another, and writes down each.

Nothing waits here for long: a wait, and the time until a failed step is tried again, are spent in
the queue, and the flow goes on where it was. A step whose end was written down is never taken
again; one whose end was not is, with the same idempotency key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.clock import Clock
from gateway.delivery.flow import machine
from gateway.delivery.flow.answers import Answers, seconds_until
from gateway.delivery.flow.call import NOT_YET, Attempted, Called, Caller, CallPlan, Succeeded
from gateway.delivery.flow.machine import Backward, Finished, FlowChanged, Forward, Moment, Outline
from gateway.delivery.flow.progress import (
    NOTHING_KEPT,
    Progress,
    State,
    decode_progress,
    encode_progress,
)
from gateway.delivery.outcome import (
    Delivered,
    Failed,
    Outcome,
    Paused,
    Reason,
    Resumes,
    StepNote,
)
from gateway.delivery.target import Work, make_exchange
from gateway.errors import INTERNAL_ERROR, StoreError
from gateway.expressions import Expression, ExpressionFailed
from gateway.observability.delivery import STEP_TIME, STEPS
from gateway.observability.metrics import Metrics

logger = logging.getLogger("gateway.delivery")

CONDITION_FAILED: Final = "condition_failed"
COMPENSATE: Final = "compensate"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step as configured: a call, or a wait of so many seconds or until a time."""

    name: str
    call: CallPlan | None = None
    wait: float | Expression = 0.0
    when: Expression | None = None
    undo: CallPlan | None = None


class FlowTarget:
    """See the module. `steps` are those of the outline, by name."""

    def __init__(
        self,
        outline: Outline,
        steps: MappingType[str, StepPlan],
        caller: Caller,
        random: Random,
        metrics: Metrics,
    ) -> None:
        self.outline = outline
        self.steps = steps
        self.caller = caller
        self.random = random
        self._counts = metrics.counts(STEPS)
        self._times = metrics.timings(STEP_TIME)

    async def attempt(self, work: Work) -> Outcome:
        """Go on as far as it goes."""
        saved, now = work.record.progress, self.caller.clock.wall()
        try:
            progress = decode_progress(saved) if saved else None
            progress = machine.adopt(self.outline, progress, work.record.epoch, now)
        except FlowChanged as error:
            return _changed(str(error))
        except msgspec.MsgspecError:
            return _changed("its progress can't be read")
        return await _Run(self, work, progress).go()

    def ended(self, route: str, note: StepNote) -> None:
        """Count what became of an attempt at a step."""
        self._counts.add(route, note.step, note.verdict)
        if note.attempt:
            self._times.observe(route, note.step, seconds=note.ms / 1000)


def _changed(detail: str) -> Failed:
    # Not for good at once: while a configuration is rolled out, another gateway may know it.
    return Failed(False, code=machine.FLOW_CHANGED, detail=detail, reason=Reason.INTERNAL)


class _Run:
    """One attempt at a flow. What `_progress` says is not yet written down until it is saved."""

    def __init__(self, target: FlowTarget, work: Work, progress: Progress) -> None:
        self._target = target
        self._outline = target.outline
        self._work = work
        self._progress = progress
        self._clock: Clock = target.caller.clock
        exchange = make_exchange(
            work.event, work.record, self._clock.monotonic(), target.caller.ids
        )
        self._answers = Answers(exchange)

    async def go(self) -> Outcome:
        """Until it is finished, given up, or has to wait."""
        while True:
            move = machine.following(self._progress)
            if isinstance(move, Finished):
                self._keep(_without_answers(self._progress))
                return Delivered(move.status)
            if isinstance(move, machine.GivenUp):
                self._keep(self._progress)
                return move.failed
            if self._is_late(move):
                await self._expire(move)
                continue
            self._answers.show(self._progress)
            if isinstance(move, Forward):
                outcome = await self._forward(self._target.steps[move.step])
            else:
                outcome = await self._backward(self._target.steps[move.step])
            if outcome is not None:
                return outcome

    # Time.

    def _age(self) -> float:
        return self._clock.wall() - self._work.record.begun_at

    def _is_late(self, move: Forward | Backward) -> bool:
        if isinstance(move, Forward):
            return self._age() > self._outline.max_total
        return self._clock.wall() - self._progress.turned_at > self._outline.max_total

    async def _expire(self, move: Forward | Backward) -> None:
        now = self._clock.wall()
        self._progress = machine.expired(self._progress, now)
        verdict = "expired" if isinstance(move, Forward) else "compensation_failed"
        await self._save(StepNote(move.step, verdict, now, code=str(Reason.EXPIRED)))

    # Forward.

    async def _forward(self, step: StepPlan) -> Outcome | None:
        now = self._clock.wall()
        state = self._progress.step(step.name).state
        if state is State.WAITING:
            self._progress = machine.waited(self._progress, step.name)
            await self._save(StepNote(step.name, "done", now))
            return None
        try:
            if step.when is not None and not step.when.holds(self._answers.exchange):
                self._progress = machine.skipped(self._progress, step.name, now)
                await self._save(StepNote(step.name, "skipped", now))
                return None
            seconds = self._seconds(step, now)
        except ExpressionFailed as error:
            field = "when" if step.call is not None else "when or wait"
            detail = f"{field}: {error.reason}"
            bad = Failed(True, code=CONDITION_FAILED, detail=detail, reason=Reason.INVALID)
            return await self._failed(step, bad, Moment(now, 0, now))
        if step.call is None:
            return await self._wait(step, seconds, now)
        return await self._call(step, step.call)

    def _seconds(self, step: StepPlan, now: float) -> float:
        if isinstance(step.wait, Expression):
            return seconds_until(step.wait, self._answers.exchange, now)
        return step.wait

    async def _wait(self, step: StepPlan, seconds: float, now: float) -> Outcome | None:
        if seconds <= 0:
            self._progress = machine.waited(self._progress, step.name)
            await self._save(StepNote(step.name, "done", now))
            return None
        if self._age() + seconds > self._outline.max_total:
            detail = "the wait would end after max_total"
            late = Failed(True, detail=detail, reason=Reason.EXPIRED)
            return await self._failed(step, late, Moment(now, 0, now))
        self._progress = machine.waiting(self._progress, step.name, now)
        return self._resumes(seconds, StepNote(step.name, "waiting", now))

    async def _call(self, step: StepPlan, plan: CallPlan) -> Outcome | None:
        before = self._progress
        rule = self._outline.rule(step.name)
        if rule.when_unsure:
            # That it was begun must be known, should nobody come to write down how it ended.
            self._progress = machine.started(before, step.name)
            await self._work.save(encode_progress(self._progress))
        number = before.step(step.name).attempts + 1
        called, moment = await self._ask(plan, Attempted(step.name, step.name, number, before.room))
        if isinstance(called, Paused):
            self._keep(before)
            return called
        if isinstance(called, Failed):
            return await self._failed(step, called, moment)
        if called.unusable:
            self._progress = machine.unusable(
                self._progress, step.name, moment, called.status, called.unusable
            )
            bad = Failed(True, called.status, machine.ANSWER_UNUSABLE, called.unusable)
            await self._save(_note(step.name, "failed", moment, number, bad))
            self._tell(step.name, "what a step of a flow answered can't be kept")
            return None
        self._progress = machine.done(self._progress, step.name, moment, called.status, called.kept)
        await self._save(_note(step.name, "done", moment, number, called))
        return None

    async def _failed(self, step: StepPlan, what: Failed, moment: Moment) -> Outcome | None:
        self._progress, delay = machine.failed(
            self._outline, self._progress, step.name, what, moment,
            age=self._age(), draw=self._target.random.random(),
        )  # fmt: skip
        # What failed before a call was made was no attempt at one.
        number = self._progress.step(step.name).attempts if moment.ms else 0
        verdict = "failed" if delay is None else "retried"
        note = _note(step.name, verdict, moment, number, what)
        if delay is not None:
            # An answer that does not fit yet is no sign of trouble.
            return self._resumes(delay, note, failed=what.code != NOT_YET)
        await self._save(note)
        self._tell(step.name, "a step of a flow was given up")
        return None

    # Backward.

    async def _backward(self, step: StepPlan) -> Outcome | None:
        assert step.undo is not None
        before, name = self._progress, step.name
        number = before.step(name).undo_attempts + 1
        which = Attempted(name, f"{name}:{COMPENSATE}", number, 0)
        called, moment = await self._ask(step.undo, which)
        if isinstance(called, Paused):
            self._keep(before)
            return called
        if isinstance(called, Succeeded):
            self._progress = machine.undone(before, name, moment, called.status)
            await self._save(_note(name, "compensated", moment, number, called))
            return None
        self._progress, delay = machine.undo_failed(
            self._outline, before, name, called, moment, self._target.random.random()
        )
        verdict = "compensation_failed" if delay is None else "compensation_retried"
        note = _note(name, verdict, moment, number, called)
        if delay is not None:
            return self._resumes(delay, note, failed=True)
        await self._save(note)
        self._tell(name, "a flow could not be compensated; somebody has to look after it", bad=True)
        return None

    # Parts.

    async def _ask(self, plan: CallPlan, which: Attempted) -> tuple[Called, Moment]:
        work, clock = self._work, self._clock
        at, started = clock.wall(), clock.monotonic()
        called: Called
        try:
            called = await self._target.caller.call(
                plan, work.event, work.record, self._answers, which
            )
        except StoreError:
            # What stands on the way needs the store; that is no fault of the step.
            raise
        except Exception as error:
            logger.exception("a step of a flow failed", extra={"event": work.event.id})
            called = Failed(False, code=INTERNAL_ERROR.code, detail=type(error).__name__)
        took = round((clock.monotonic() - started) * 1000)
        return called, Moment(at, max(1, took), clock.wall())

    def _keep(self, progress: Progress) -> None:
        """Have it written down with how the attempt ends."""
        self._work.record.progress = encode_progress(progress)
        self._progress = progress

    def _resumes(self, seconds: float, note: StepNote, *, failed: bool = False) -> Resumes:
        self._keep(self._progress)
        self._target.ended(self._work.event.head.route, note)
        return Resumes(seconds, note, failed)

    async def _save(self, note: StepNote) -> None:
        await self._work.save(encode_progress(self._progress), note)
        self._target.ended(self._work.event.head.route, note)

    def _tell(self, step: str, message: str, *, bad: bool = False) -> None:
        event, state = self._work.event, self._progress.step(step)
        logger.log(
            logging.ERROR if bad else logging.WARNING,
            message,
            extra={
                "route": event.head.route, "event": event.id, "step": step,
                "status": state.undo_status if bad else state.status, "code": state.code,
                "correlation_id": event.head.correlation_id,
            },
        )  # fmt: skip


def _note(
    step: str, verdict: str, moment: Moment, number: int, met: Succeeded | Failed
) -> StepNote:
    code, detail = (met.code, met.detail) if isinstance(met, Failed) else ("", "")
    return StepNote(step, verdict, moment.at, moment.ms, number, met.status, code, detail)


def _without_answers(progress: Progress) -> Progress:
    steps = tuple(replace(step, kept=NOTHING_KEPT) for step in progress.steps)
    return replace(progress, steps=steps)
