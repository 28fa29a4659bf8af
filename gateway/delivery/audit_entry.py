"""An entry of the audit, as plain data: one for every step of an automated action."""

from __future__ import annotations

from typing import Final

import msgspec

OFF: Final = b""
"""Stands for an entry where there is no audit."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One step. `at` is Unix seconds; `kind` says which: accepted, quarantined, attempt, step,
    replayed, purged, call. `verdict` is how an attempt ended; `due_in` is seconds to the next one;
    `step` names the step of a flow.
    """

    at: float
    kind: str
    route: str
    correlation_id: str
    event: str = ""
    target: str = ""
    targets: list[str] = []
    consumer: str = ""
    generation: int = 0
    origin: str = ""
    key: str = ""
    epoch: int = 0
    attempt: int = 0
    verdict: str = ""
    status: int = 0
    code: str = ""
    reason: str = ""
    ms: float = 0.0
    due_in: float = 0.0
    replay_of: str = ""
    by: str = ""
    detail: str = ""
    method: str = ""
    step: str = ""
