"""What is counted of the store. Declared and shaped like everything in `metrics.py`.

The owner of the connection counts here directly, once a reply or once a batch of replies.
"""

from __future__ import annotations

from typing import Final

from gateway.observability.snapshot import Declaration, Kind, Merge, Sample

STORE_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip

STORE_CALLS: Final = Declaration(
    "gateway_store_calls_total", Kind.COUNTER,
    "Calls to the store: ok, refused (an error reply), timeout, lost (with the connection), "
    "unavailable (failed at once, nothing was sent).",
    ("result",),
)  # fmt: skip
STORE_DURATION: Final = Declaration(
    "gateway_store_call_duration_seconds", Kind.HISTOGRAM,
    "From a call to its reply. Calls without a reply are not in it.",
    (), STORE_BOUNDS,
)  # fmt: skip
STORE_UP: Final = Declaration(
    "gateway_store_up", Kind.GAUGE,
    "1 while the store answers, 0 while calls fail; of several processes, the worst.",
    merge=Merge.MIN,
)  # fmt: skip
STORE_CONNECTS: Final = Declaration(
    "gateway_store_connects_total", Kind.COUNTER, "Connections made to the store."
)
STORE_FAMILIES: Final = (STORE_CALLS, STORE_DURATION, STORE_UP, STORE_CONNECTS)


class StoreSeries:
    """Every series of the store. `up` is None as long as nothing has needed a store."""

    __slots__ = ("connects", "counts", "lost", "ok", "refused", "seconds", "timed_out",
                 "unavailable", "up")  # fmt: skip

    def __init__(self) -> None:
        self.ok = 0
        self.refused = 0
        self.timed_out = 0
        self.lost = 0
        self.unavailable = 0
        self.connects = 0
        # The histogram in two parts, so that a batch of replies adds to the sum once.
        self.seconds = 0.0
        self.counts = [0] * (len(STORE_BOUNDS) + 1)
        self.up: bool | None = None

    def collect(self, into: dict[str, list[Sample]]) -> None:
        """Append a copy of every series."""
        if self.up is None:
            return
        into[STORE_UP.name].append(Sample((), int(self.up)))
        into[STORE_CONNECTS.name].append(Sample((), self.connects))
        into[STORE_DURATION.name].append(Sample((), self.seconds, list(self.counts)))
        into[STORE_CALLS.name].extend(
            Sample((result,), count)
            for result, count in (
                ("ok", self.ok),
                ("refused", self.refused),
                ("timeout", self.timed_out),
                ("lost", self.lost),
                ("unavailable", self.unavailable),
            )
        )
