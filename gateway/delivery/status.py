"""What is known of an event, for whoever sent it and for whoever operates the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.delivery.event import Head, Record, decode_head, decode_record
from gateway.delivery.flow.progress import State, decode_progress

_STATES: Final = {
    b"q": "queued", b"r": "running", b"w": "waiting", b"o": "ordered", b"d": "delivered",
    b"x": "dead", b"n": "skipped",
}  # fmt: skip
_SETTLED: Final = frozenset({"delivered", "dead", "skipped"})


class StepStatus(msgspec.Struct, omit_defaults=True):
    """How far a step of a flow is; `state` is one of `flow.progress.State`. `status` is that of its
    last answer, `at` when its last attempt began (Unix seconds), `ms` how long that took;
    `compensation` counts the attempts to undo it, `compensation_status` is their last answer's.
    """

    name: str
    state: str
    status: int = 0
    attempts: int = 0
    code: str = ""
    at: float = 0.0
    ms: int = 0
    compensation: int = 0
    compensation_status: int = 0


class TargetStatus(msgspec.Struct, omit_defaults=True):
    """How far an event is for one target. `state` is queued, running, waiting (for its next
    attempt), ordered (behind another one), delivered, dead or skipped.
    """

    target: str
    state: str
    epoch: int = 1
    attempts: int = 0
    status: int = 0
    code: str = ""
    reason: str = ""
    detail: str = ""
    answer: str = ""
    history: list[dict[str, Any]] = []
    version: int = 0
    replay_of: str = ""
    steps: list[StepStatus] = []


class EventStatus(msgspec.Struct):
    """How far an event is. `state` is accepted, delivered, failed (some target gave it up)."""

    event_id: str
    state: str
    correlation_id: str
    route: str
    received_at: float
    targets: list[TargetStatus]
    origin: str = "request"


class Stored(msgspec.Struct):
    """An event as the store has it."""

    id: str
    head: Head
    fields: dict[bytes, bytes]
    records: dict[str, Record]
    states: dict[str, str]

    @property
    def settled(self) -> bool:
        """Whether nothing is to come any more."""
        return all(state in _SETTLED for state in self.states.values())


def read(event_id: str, fields: Mapping[bytes, bytes]) -> Stored | None:
    """None for no event. Raises msgspec.MsgspecError for one that can't be read."""
    if b"head" not in fields:
        return None
    records, states = {}, {}
    callback = fields.get(b"callback", b"").decode()
    for key, value in fields.items():
        if key.startswith(b"s:"):
            name = key[2:].decode()
            if name != callback:
                states[name] = _STATES.get(value, "unknown")
                records[name] = decode_record(fields.get(b"t:" + key[2:], b""))
    return Stored(event_id, decode_head(fields[b"head"]), dict(fields), records, states)


def status_of(stored: Stored, *, full: bool = False) -> EventStatus:
    """For the sender; `full` for operators, with what targets answered."""
    targets = [
        _target(name, stored.states[name], stored.records[name], full) for name in stored.states
    ]
    states = set(stored.states.values())
    state = "accepted"
    if states <= _SETTLED:
        state = "failed" if "dead" in states else "delivered"
    head = stored.head
    return EventStatus(
        stored.id, state, head.correlation_id, head.route, round(head.received_at, 3), targets,
        head.origin,
    )  # fmt: skip


def _target(name: str, state: str, record: Record, full: bool) -> TargetStatus:
    found = TargetStatus(
        name, state, record.epoch, record.attempts, record.status, record.code, record.reason
    )
    found.steps = _steps(record.progress, running=state == "running")
    if full:
        found.detail = record.detail
        found.answer = record.answer.decode("utf-8", "replace")
        found.history = [msgspec.to_builtins(_Try(*_fields(each))) for each in record.history]
        found.version, found.replay_of = record.version, record.replay_of
    return found


def _steps(progress: bytes, *, running: bool) -> list[StepStatus]:
    if not progress:
        return []
    try:
        known = decode_progress(progress)
    except msgspec.MsgspecError:
        # Written by a gateway that knows more than this one.
        return []
    found = [
        StepStatus(
            each.name, str(each.state), each.status, each.attempts, each.code, round(each.at, 3),
            each.ms, each.undo_attempts, each.undo_status,
        )
        for each in known.steps
    ]  # fmt: skip
    current = next((each for each in found if each.state == State.PENDING), None)
    if running and current is not None and known.failure is None:
        # That a step has begun is as a rule not written down.
        current.state = str(State.RUNNING)
    return found


class _Try(msgspec.Struct, omit_defaults=True):
    number: int
    at: float
    ms: int
    status: int
    code: str = ""
    epoch: int = 1


def _fields(attempt: Any) -> tuple[Any, ...]:
    return msgspec.structs.astuple(attempt)
