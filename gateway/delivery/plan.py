"""How a lane works, what all lanes of a process share, and what a lane counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from gateway.clock import Clock
from gateway.delivery.event import Event, Record
from gateway.delivery.journal import Journal
from gateway.delivery.outcome import RetryRule
from gateway.delivery.queue import Queue
from gateway.delivery.queued import NO_RATE, Lane, Rate
from gateway.delivery.target import Target
from gateway.errors import Rejection
from gateway.message import Exchange
from gateway.observability.delivery import (
    ATTEMPT_TIME,
    ATTEMPTS,
    DEAD_LETTERS,
    IN_FLIGHT,
    OUTCOME,
    PACE,
)
from gateway.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class LanePlan:
    """How a lane works, as configured. Times are seconds.

    `lease` is how long a worker may be silent before others take over what it holds; `keep` how
    long a delivered event can be looked at. `on_dead` is told of each event that is given up.
    """

    lane: Lane
    target: Target
    rule: RetryRule
    concurrency: int
    rate: Rate = NO_RATE
    lease: float = 30.0
    keep: float = 3600.0
    on_dead: Callable[[Event, Record], None] | None = None


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What is said of a route's events as a whole. Times are seconds.

    Dead letters older than `retention`, and beyond the newest `most`, are thrown away. `order` is
    the digest of an event's order, and raises CannotOrder; None if there is none. `review` says
    what an event breaks of the route's contract; None without a contract. `secret_fields` are the
    names of header fields that are not shown.
    """

    route: str
    retention: float
    most: int
    order: Callable[[Exchange, bytes], str] | None = None
    review: Callable[[Exchange], Awaitable[Rejection | None]] | None = None
    secret_fields: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Means:
    """What all lanes of a process share. `consumer` names the process in the store."""

    queue: Queue
    journal: Journal
    clock: Clock
    random: Random
    metrics: Metrics
    consumer: str
    settled: Callable[[str, str], None]


class LaneSeries:
    """The series of one lane."""

    __slots__ = ("_attempts", "_dead", "_in_flight", "_labels", "_outcomes", "_paces", "_times")

    def __init__(self, lane: Lane, metrics: Metrics) -> None:
        self._labels = (lane.route, lane.target)
        self._attempts = metrics.counts(ATTEMPTS)
        self._dead = metrics.counts(DEAD_LETTERS)
        self._in_flight = metrics.counts(IN_FLIGHT)
        self._paces = metrics.counts(PACE)
        self._outcomes = metrics.timings(OUTCOME)
        self._times = metrics.timings(ATTEMPT_TIME)

    def running(self, change: int) -> None:
        """Attempts began or ended."""
        self._in_flight.add(*self._labels, amount=change)

    def pace(self, allowed: int) -> None:
        """So many may be under way now."""
        self._paces.set(*self._labels, value=allowed)

    def ended(self, result: str) -> None:
        """An attempt ended like this."""
        self._attempts.add(*self._labels, result)

    def took(self, seconds: float) -> None:
        """An attempt took so long."""
        self._times.observe(*self._labels, seconds=seconds)

    def settled(self, outcome: str, seconds: float) -> None:
        """An event has its outcome, so long after it came."""
        self._outcomes.observe(*self._labels, outcome, seconds=seconds)

    def dead(self, reason: str) -> None:
        """An event was given up."""
        self._dead.add(*self._labels, reason)
