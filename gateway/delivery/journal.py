"""The audit's entries: one for every step of an automated action, as it is written into the store.

They are written by the same script that takes the step, so that neither is there without the other.
An entry names codes, ids and times, and nothing of a payload.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.delivery.event import Head

OFF: Final = b""


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


_encode = msgspec.json.Encoder().encode


class Journal:
    """Makes entries. `retention` is how many seconds they are kept, 0 switches the audit off;
    `most` is how many there may be.
    """

    def __init__(self, retention: float, most: int = 5_000_000) -> None:
        self.retention = retention
        self.most = most

    def accepted(
        self, at: float, event_id: str, head: Head, kind: str, targets: list[str]
    ) -> bytes:
        """An event was kept."""
        if not self.retention:
            return OFF
        return _encode(
            Entry(
                at, kind, head.route, head.correlation_id, event_id,
                targets=targets, consumer=head.consumer, generation=head.generation,
                origin=head.origin, key=head.key, method=head.method,
            )
        )  # fmt: skip

    def entry(self, entry: Entry) -> bytes:
        """Any other step."""
        return _encode(entry) if self.retention else OFF
