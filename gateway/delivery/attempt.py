"""One attempt: delivers an event, decides what follows, and writes it down."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.delivery.audit_entry import Entry
from gateway.delivery.event import Event, Record, Try
from gateway.delivery.outcome import (
    Again,
    Delivered,
    Failed,
    Outcome,
    Paused,
    Reason,
    Resumes,
    StepNote,
    decide,
)
from gateway.delivery.pace import Pace
from gateway.delivery.plan import LanePlan, LaneSeries, Means
from gateway.delivery.queue import CALLBACK, letter
from gateway.delivery.queued import Taken
from gateway.delivery.target import Superseded, Work
from gateway.errors import INTERNAL_ERROR, StoreError

logger = logging.getLogger("gateway.delivery")

# Longest time for giving an event back; then it lies until its lease has lapsed.
_RELEASE_S: Final = 2.0


class Settle(Protocol):
    """Writes down how an attempt ended, however long that takes; see `Queue.settle`."""

    async def __call__(
        self, plan: LanePlan, taken: Taken, record: Record | None, verdict: str, **how: object
    ) -> bool:
        """False if somebody else has taken the event over."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a lane gives to each of its attempts."""

    means: Means
    series: LaneSeries
    pace: Pace
    settle: Settle


class Attempt:
    """One attempt at one event, from what is known of it to what is written down."""

    def __init__(
        self, desk: Desk, plan: LanePlan, taken: Taken, event: Event, record: Record
    ) -> None:
        self._desk = desk
        self._means = desk.means
        self._plan = plan
        self._taken = taken
        self._event = event
        self._record = record
        self._started = 0.0
        self._at = 0.0
        self._noted = False

    async def run(self) -> None:
        """Deliver and settle."""
        record, plan = self._record, self._plan
        self._at = self._means.clock.wall()
        if not record.begun_at:
            # Telling how it ended begins when it has ended, however long that took.
            told = self._plan.lane.target == CALLBACK
            record.begun_at = self._at if told else self._event.accepted_at
        age = self._at - record.begun_at
        if age > plan.rule.max_total:
            last = Failed(True, record.status, record.code, record.detail, record.answer)
            await self._give_up(Reason.EXPIRED, last)
            return
        self._started = self._means.clock.monotonic()
        outcome = await self._attempt()
        if outcome is None:
            self._desk.series.ended("stale")
            return
        await self._conclude(outcome, self._means.clock.wall() - record.begun_at)

    async def _attempt(self) -> Outcome | None:
        """None if somebody else has taken over."""
        work = Work(self._event, self._record, self._record.attempts + 1, self._save)
        try:
            return await self._plan.target.attempt(work)
        except asyncio.CancelledError:
            # The gateway stops: nobody knows whether it was done, so it is done again.
            await self._release()
            raise
        except Superseded:
            return None
        except StoreError as error:
            # The target needs the store; that is no fault of the event.
            return Paused(error.kind.code)
        except Exception as error:
            logger.exception("an attempt failed", extra={"event": self._event.id})
            return Failed(False, code=INTERNAL_ERROR.code, detail=type(error).__name__)

    async def _release(self) -> None:
        given = asyncio.ensure_future(self._later(0.0, "released"))
        # Asked once more to end, this stops waiting; what was sent to the store is still done.
        await asyncio.wait({given}, timeout=_RELEASE_S)
        given.cancel()

    async def _save(self, progress: bytes, note: StepNote | None = None) -> None:
        self._record.progress = progress
        audit = b"" if note is None else self._step(note)
        written = await self._desk.settle(
            self._plan, self._taken, self._record, "saved",
            audit=audit, correlation_id=self._event.head.correlation_id,
        )  # fmt: skip
        if not written:
            raise Superseded

    async def _conclude(self, outcome: Outcome, age: float) -> None:
        pace, means = self._desk.pace, self._means
        if isinstance(outcome, Paused):
            if age > self._plan.rule.max_total:
                record = self._record
                last = Failed(True, record.status, outcome.code, record.detail, record.answer)
                await self._give_up(Reason.EXPIRED, last)
                return
            now, draw = means.clock.monotonic(), means.random.random()
            if outcome.crowded:
                wait = pace.crowded(now, draw)
            else:
                wait = pace.paused(now, outcome.wait, draw)
            await self._later(wait, "paused", code=outcome.code)
            return
        if isinstance(outcome, Resumes):
            pace.failed() if outcome.failed else pace.succeeded(means.clock.monotonic())
            await self._later(outcome.wait, "resumed", note=outcome.note)
            return
        record = self._record
        record.attempts += 1
        milliseconds = round((means.clock.monotonic() - self._started) * 1000)
        code = outcome.code if isinstance(outcome, Failed) else ""
        record.note(
            Try(record.attempts, self._at, milliseconds, outcome.status, code, record.epoch)
        )
        self._desk.series.took(milliseconds / 1000)
        if isinstance(outcome, Delivered):
            pace.succeeded(means.clock.monotonic())
            await self._delivered(outcome)
            return
        if outcome.permanent:
            pace.succeeded(means.clock.monotonic())
        else:
            pace.failed()
        next_ = decide(self._plan.rule, record.attempts, age, outcome, means.random.random())
        if isinstance(next_, Again):
            record.status, record.code = outcome.status, outcome.code
            record.detail, record.answer = outcome.detail, outcome.answer
            await self._later(next_.delay, "retried", outcome)
        else:
            ours = outcome.code == INTERNAL_ERROR.code or outcome.reason is Reason.INTERNAL
            internal = next_ is Reason.EXHAUSTED and ours
            await self._give_up(Reason.INTERNAL if internal else next_, outcome)

    async def _delivered(self, outcome: Delivered) -> None:
        record = self._record
        record.reason = record.code = record.detail = ""
        record.status, record.answer = outcome.status, b""
        if await self._write("delivered", outcome.status):
            self._count("delivered")
            self._measure("delivered")
            self._means.settled(self._event.head.route, self._event.id)

    async def _later(
        self,
        delay: float,
        result: str,
        failed: Failed | None = None,
        *,
        code: str = "",
        note: StepNote | None = None,
    ) -> None:
        status = failed.status if failed else 0
        code = failed.code if failed else code
        if await self._write("later", status, code, result=result, delay=delay, note=note):
            self._count(result)
            if result == "retried":
                logger.warning(
                    "an event could not be delivered; it is tried again",
                    extra={
                        **self._facts(),
                        "status": status,
                        "code": code,
                        "in_s": round(delay, 3),
                    },
                )

    async def _give_up(self, reason: Reason, failed: Failed) -> None:
        record, event = self._record, self._event
        record.reason, record.status, record.code = reason, failed.status, failed.code
        record.detail, record.answer = failed.detail, failed.answer
        member = letter(event.id, self._plan.lane.target, reason, failed.code, failed.status)
        written = await self._write(
            "dead", failed.status, failed.code, reason=reason, member=member
        )
        if not written:
            return
        self._count("dead")
        self._desk.series.dead(reason)
        self._measure("dead")
        self._means.settled(event.head.route, event.id)
        logger.error(
            "an event was given up: it is a dead letter",
            extra={
                **self._facts(), "reason": str(reason), "status": failed.status,
                "code": failed.code, "detail": failed.detail,
            },
        )  # fmt: skip
        if self._plan.on_dead is not None:
            self._plan.on_dead(event, record)

    async def _write(
        self,
        verdict: str,
        status: int = 0,
        code: str = "",
        *,
        result: str = "",
        reason: str = "",
        delay: float = 0.0,
        member: str = "",
        note: StepNote | None = None,
    ) -> bool:
        head, record = self._event.head, self._record
        if result in ("paused", "released"):
            # What merely waits for its target again is no action, and may be said very often.
            audit = b""
        elif note is not None:
            audit = self._step(note, delay)
        else:
            means = self._means
            took = means.clock.monotonic() - self._started if self._started else 0.0
            # What its steps took is in their own entries.
            at, took = (means.clock.wall(), 0.0) if self._noted else (self._at, took)
            audit = self._entry(
                at, "attempt", attempt=record.attempts, verdict=result or verdict, status=status,
                code=code, reason=reason, ms=round(took * 1000, 3), due_in=round(delay, 3),
            )  # fmt: skip
        written = await self._desk.settle(
            self._plan, self._taken, record, verdict,
            delay=delay, member=member, correlation_id=head.correlation_id, audit=audit,
        )  # fmt: skip
        if not written:
            self._count("stale")
        return written

    def _step(self, note: StepNote, delay: float = 0.0) -> bytes:
        self._noted = True
        return self._entry(
            note.at, "step", step=note.step, attempt=note.attempt, verdict=note.verdict,
            status=note.status, code=note.code, detail=note.detail, ms=round(note.ms, 3),
            due_in=round(delay, 3),
        )  # fmt: skip

    def _entry(self, at: float, kind: str, **facts: Any) -> bytes:
        head, record = self._event.head, self._record
        return self._means.journal.entry(
            Entry(
                at, kind, head.route, head.correlation_id, self._event.id,
                target=self._plan.lane.target, generation=head.generation, key=head.key,
                epoch=record.epoch, replay_of=record.replay_of, **facts,
            )
        )  # fmt: skip

    def _count(self, result: str) -> None:
        self._desk.series.ended(result)

    def _measure(self, outcome: str) -> None:
        seconds = max(0.0, self._means.clock.wall() - self._record.begun_at)
        self._desk.series.settled(outcome, seconds)

    def _facts(self) -> dict[str, object]:
        head, record = self._event.head, self._record
        return {
            "route": head.route, "target": self._plan.lane.target, "event": self._event.id,
            "attempt": record.attempts, "correlation_id": head.correlation_id,
        }  # fmt: skip
