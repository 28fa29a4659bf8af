"""The families that policies keep, declared in one place like all others (`metrics.py`).

A policy asks `context.metrics.counts(ITS_FAMILY)` when it is built, and counts with `add`. To add a
family: declare it here, and describe it in docs/operations.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from gateway.observability.delivery import DELIVERY_FAMILIES
from gateway.observability.resilience import RESILIENCE_FAMILIES
from gateway.observability.snapshot import Declaration, Kind, Merge, Sample
from gateway.observability.timings import Timings

POLICY_FAMILIES: Final[list[Declaration]] = [*RESILIENCE_FAMILIES, *DELIVERY_FAMILIES]


def _family(
    name: str, kind: Kind, text: str, labels: tuple[str, ...], merge: Merge = Merge.SUM
) -> Declaration:
    declaration = Declaration(name, kind, text, labels, merge=merge)
    POLICY_FAMILIES.append(declaration)
    return declaration


FAULTS: Final = _family(
    "gateway_faults_injected_total",
    Kind.COUNTER,
    "Trouble made on purpose, by its kind.",
    ("route", "kind"),
)
IDENTITY_PROVIDER_CALLS: Final = _family(
    "gateway_identity_provider_calls_total",
    Kind.COUNTER,
    "Times that an identity asked its provider, for keys or about a token, by result.",
    ("identity", "result"),
)
IDEMPOTENCY: Final = _family(
    "gateway_idempotency_requests_total",
    Kind.COUNTER,
    "Requests of idempotent routes, by what became of them: executed, released (no final answer), "
    "replayed, or the code of the refusal.",
    ("route", "result"),
)
RATE_LIMIT_DECISIONS: Final = _family(
    "gateway_rate_limit_decisions_total",
    Kind.COUNTER,
    "Decisions of rate limits: passed, refused, or reported (would have refused); by the store, by "
    "local buckets, or by none because the store was away (on_store_error: open or closed).",
    ("route", "limit", "decision", "by"),
)
RATE_LIMIT_STORE_ERRORS: Final = _family(
    "gateway_rate_limit_store_errors_total",
    Kind.COUNTER,
    "Requests whose limits were decided without the store, because a call to it failed.",
    ("route",),
)
UPSTREAM_TOKENS: Final = _family(
    "gateway_upstream_token_requests_total",
    Kind.COUNTER,
    "Requests for the gateway's own tokens, by token endpoint and outcome.",
    ("endpoint", "outcome"),
)
TARGET_HEALTHY: Final = _family(
    "gateway_upstream_target_healthy",
    Kind.GAUGE,
    "1 for a target that neither checks nor its own requests took out, else 0; the lowest of all "
    "workers. Only of upstreams with health or outliers.",
    ("upstream", "target"),
    Merge.MIN,
)
UPSTREAM_PANIC: Final = _family(
    "gateway_upstream_panic",
    Kind.GAUGE,
    "1 while too few targets of an upstream are healthy, so that all are used; the highest of all "
    "workers.",
    ("upstream",),
    Merge.MAX,
)
HEALTH_CHECKS: Final = _family(
    "gateway_upstream_health_checks_total",
    Kind.COUNTER,
    "Active checks of targets by result: passed, status, timeout, connect, tls, reset or invalid.",
    ("upstream", "target", "result"),
)
EJECTIONS: Final = _family(
    "gateway_upstream_ejections_total",
    Kind.COUNTER,
    "Ejections of targets because their requests failed, by what failed last; or suppressed, "
    "because too many were out already.",
    ("upstream", "target", "result", "reason"),
)

CANARY: Final = _family(
    "gateway_canary_requests_total",
    Kind.COUNTER,
    "Exchanges of routes with a canary, by side (stable or canary) and how they ended: the class "
    "of the status, or error if the side had no answer.",
    ("route", "side", "result"),
)

MIRROR: Final = _family(
    "gateway_mirror_requests_total",
    Kind.COUNTER,
    "Requests that were to be copied to a mirror, by what became of it: answered, failed, timeout, "
    "cancelled, dropped (too many under way), paused (none is answered), too_large, same_upstream "
    "(the canary had it).",
    ("route", "result"),
)
MIRROR_COMPARISONS: Final = _family(
    "gateway_mirror_comparisons_total",
    Kind.COUNTER,
    "Comparisons of a mirror's answer with the client's: equal, the first aspect that differs "
    "(status, headers, schema, fields), or unreadable.",
    ("route", "result"),
)

FLAG_SHARE: Final = _family(
    "gateway_flag_share",
    Kind.GAUGE,
    "The share of callers for which a flag is on, from 0 to 1, its group aside; the highest of all "
    "workers.",
    ("flag",),
    Merge.MAX,
)

# What Prometheus takes for a name.
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)


def check_plugin_family(declaration: Declaration, taken: Collection[str]) -> None:
    """Raises ValueError for a family that a plugin can't have; `taken` are the gateway's own."""
    names = (declaration.name, *declaration.labels)
    if declaration.name in taken:
        raise ValueError(f"the gateway has a metric {declaration.name} of its own")
    if declaration.kind is Kind.HISTOGRAM or not all(map(_NAME.fullmatch, names)):
        raise ValueError("a plugin's metric is a counter or a gauge; names are a-z, 0-9 and _")


CACHE_REQUESTS: Final = _family(
    "gateway_cache_requests_total",
    Kind.COUNTER,
    "Requests of cached routes, by how the cache answered them.",
    ("route", "result"),
)
CACHE_BYTES: Final = _family(
    "gateway_cache_bytes", Kind.GAUGE, "What stored answers take in memory.", ()
)
CACHE_ENTRIES: Final = _family(
    "gateway_cache_entries", Kind.GAUGE, "Answers that are stored in memory.", ()
)
CACHE_EVICTIONS: Final = _family(
    "gateway_cache_evictions_total",
    Kind.COUNTER,
    "Stored answers that had to make room for others.",
    (),
)


class Counts:
    """The series of one family that a policy keeps: a number for each set of label values.

    Labels hold names of the configuration and codes, never what a client can make up. If the first
    label is `route`, the series of routes that left the configuration are forgotten with them.
    """

    __slots__ = ("declaration", "values")

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count it."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def set(self, *labels: str, value: float) -> None:
        """Say how it stands, for a gauge."""
        self.values[labels] = value

    def drop(self, *labels: str) -> None:
        """Forget a series whose owner is gone."""
        self.values.pop(labels, None)

    def collect(self, into: dict[str, list[Sample]], routes_gone: Collection[str]) -> None:
        """Append a copy of every series."""
        of_routes = self.declaration.labels[:1] == ("route",)
        into[self.declaration.name].extend(
            Sample(labels, value)
            for labels, value in list(self.values.items())
            if not (of_routes and labels[0] in routes_gone)
        )

    def forget(self, routes: Collection[str]) -> None:
        """Drop the series of routes that are gone."""
        if self.declaration.labels[:1] == ("route",):
            for labels in [each for each in self.values if each[0] in routes]:
                del self.values[labels]


def make_series(declaration: Declaration) -> Counts | Timings:
    """What keeps the series of a family."""
    return Timings(declaration) if declaration.kind is Kind.HISTOGRAM else Counts(declaration)
