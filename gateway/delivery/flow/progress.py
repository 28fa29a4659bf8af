"""How far an event is in its flow: plain data, as it stands in the record of the event's target."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

MOST_OF_ONE: Final = 64 * 1024
MOST_OF_ALL: Final = 256 * 1024
"""So much of what steps answered is kept, of one and of all of them, in bytes."""


class State(StrEnum):
    """How far one step is.

    pending       not begun, or to be tried again
    running       begun; written down only for steps that must be known to have begun
    waiting       its wait has begun
    done, skipped carried out; left out, because its condition did not hold
    failed        given up
    compensated   undone again
    stuck         undoing it was given up
    """

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    COMPENSATED = "compensated"
    STUCK = "stuck"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What later steps may name of an answer; None for a part that none of them names."""

    body: bytes | None = None
    headers: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        fields = self.headers or {}
        return len(self.body or b"") + sum(len(name) + len(fields[name]) for name in fields)

    @property
    def parts(self) -> frozenset[str]:
        """Which are kept."""
        given = (("body", self.body), ("headers", self.headers))
        return frozenset(name for name, value in given if value is not None)


NOTHING_KEPT: Final = Kept()


class StepState(msgspec.Struct, frozen=True, array_like=True):
    """One step. `attempts` counts its failed ones and the one that ended it, `undo_attempts` the
    same for its compensation. `undoable` says that it has one. `unsure` marks a step that was not
    carried out for all that is known, but may have been, and is to be undone in that case too.
    `status` and `undo_status` are those of the last answers, `code` is that of the last attempt,
    `at` when that began (Unix seconds), `ms` how long it took.
    """

    name: str
    state: State = State.PENDING
    attempts: int = 0
    undo_attempts: int = 0
    undoable: bool = False
    unsure: bool = False
    status: int = 0
    undo_status: int = 0
    code: str = ""
    at: float = 0.0
    ms: int = 0
    kept: Kept = NOTHING_KEPT

    @property
    def ended(self) -> bool:
        """Whether the flow is past it."""
        return self.state in (State.DONE, State.SKIPPED)

    @property
    def to_undo(self) -> bool:
        """Whether it is undone when the flow turns around."""
        return self.undoable and (
            self.state is State.DONE or (self.state is State.FAILED and self.unsure)
        )


class Trouble(msgspec.Struct, frozen=True, array_like=True):
    """Why a step, or what undoes it, was given up. `answer` is the beginning of what it got."""

    step: str
    reason: str
    status: int = 0
    code: str = ""
    detail: str = ""
    answer: bytes = b""


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """The whole flow: `digest` tells which definition it goes by, `epoch` is the record's.

    With `failure` the flow goes backwards, since `turned_at` (Unix seconds); `stuck` says why it
    can't go on with that.
    """

    digest: str
    epoch: int
    steps: tuple[StepState, ...]
    failure: Trouble | None = None
    turned_at: float = 0.0
    stuck: Trouble | None = None

    def step(self, name: str) -> StepState:
        """The step of this name. Raises KeyError."""
        for each in self.steps:
            if each.name == name:
                return each
        raise KeyError(name)

    @property
    def room(self) -> int:
        """How many bytes of one more answer may be kept."""
        left = MOST_OF_ALL - sum(each.kept.size for each in self.steps)
        return max(0, min(MOST_OF_ONE, left))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Progress).decode


def encode_progress(progress: Progress) -> bytes:
    """As it stands in the record."""
    return _encode(progress)


def decode_progress(data: bytes) -> Progress:
    """Raises msgspec.MsgspecError."""
    return _decode(data)
