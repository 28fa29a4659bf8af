"""Makes the audit's entries, as they are written into the store.

They are written by the same script that takes the step, so that neither is there without the other.
An entry names codes, ids and times, and nothing of a payload.
"""

from __future__ import annotations

import msgspec

from gateway.delivery.audit_entry import OFF, Entry
from gateway.delivery.event import Head

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
