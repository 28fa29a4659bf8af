"""Who of an upstream's targets gets requests: health, ejections, priorities, panic, slow start.

Pure: clock and randomness are passed in, and what happened is left in `events` for whoever drives
it. See docs/upstreams.md for the rules and their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Final, NamedTuple

from gateway.upstream.health import Health
from gateway.upstream.outliers import Outlier
from gateway.upstream.slow_start import factor
from gateway.upstream.target import Target

# Slow start goes on in so many steps.
_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings. `panic` and `max_ejected` are shares from 0 to 1, `slow_start` is seconds."""

    panic: float = 0.25
    max_ejected: float = 0.5
    slow_start: float = 0.0


class Event(NamedTuple):
    """One thing that happened. `seconds` is how long an ejection lasts.

    `kind` is unhealthy, healthy, ejected, readmitted or suppressed (an ejection that the cap
    forbade) of the target with this `label`; or panic, calm, or level (`label` is its number).
    """

    kind: str
    label: str
    reason: str = ""
    seconds: float = 0.0


class Member:
    """A target with what is known about it. `since` is when that last changed, monotonic.

    `share` is the part of its share that it gets just now, less than 1 while it ramps.
    """

    __slots__ = ("health", "outlier", "ramp_from", "reason", "share", "since", "target")

    def __init__(self, target: Target, health: Health | None, outlier: Outlier | None) -> None:
        self.target = target
        self.health = health
        self.outlier = outlier
        # When it came back; None if it gets its whole share.
        self.ramp_from: float | None = None
        self.share = 1.0
        # Why it was ejected.
        self.reason = ""
        self.since: float | None = None

    @property
    def ejected(self) -> bool:
        """Whether its own requests took it out."""
        return self.outlier is not None and self.outlier.until > 0

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against it."""
        return (self.health is None or self.health.healthy) and not self.ejected

    @property
    def state(self) -> str:
        """One word: healthy, ramping, ejected, unhealthy or unchecked."""
        if self.health is not None and not self.health.healthy:
            return "unhealthy" if self.health.checked else "unchecked"
        if self.ejected:
            return "ejected"
        return "healthy" if self.share >= 1 else "ramping"


class Roster:
    """The targets and who of them is used: `used`, with `factors` for those that ramp.

    `changed` is True when `used` or the set of those that ramp is another one than when whoever
    drives this last set it to False; `stepped` likewise for the factors.
    """

    def __init__(
        self, members: Sequence[Member], rules: Rules, random: Callable[[], float]
    ) -> None:
        self.members = list(members)
        self.events: list[Event] = []
        self.used: list[Target] = []
        self.factors: dict[Target, float] = {}
        self.panic = False
        self.level = 0
        self.changed = True
        self.stepped = False
        self._rules = rules
        self._random = random
        # Weight 0 takes none and says nothing about how much is left.
        by_priority = sorted(
            (each for each in self.members if each.target.weight),
            key=lambda each: each.target.priority,
        )
        self._levels = [
            (priority, list(group))
            for priority, group in groupby(by_priority, key=lambda each: each.target.priority)
        ]
        self._select(-inf)
        self.events.clear()

    # What is reported

    def checked(self, member: Member, reason: str, now: float) -> None:
        """An active check of a target passed (`reason` is empty) or failed."""
        health = member.health
        assert health is not None
        if not health.report(reason):
            return
        member.since = now
        label = member.target.label
        if health.healthy:
            # It was restarted or repaired: what its requests said before holds no more.
            if member.outlier is not None and member.ejected:
                member.outlier.readmit(now)
            self._ramp(member, now)
            self.events.append(Event("healthy", label))
        else:
            self.events.append(Event("unhealthy", label, reason))
        self._select(now)

    def failed(self, member: Member, reason: str, now: float) -> None:
        """A request to a target failed."""
        outlier = member.outlier
        if outlier is None or not outlier.fail():
            return
        label = member.target.label
        if not self._may_eject(member):
            self.events.append(Event("suppressed", label, reason))
            # Told once for each time that it would have been ejected.
            outlier.failures = 0
            outlier.probation = False
            return
        seconds = outlier.eject(now, self._random())
        member.reason, member.since = reason, now
        member.ramp_from = None
        self.events.append(Event("ejected", label, reason, seconds))
        self._select(now)

    def advance(self, now: float) -> None:
        """Let time pass: ejections end, ramps go on."""
        back = False
        for member in self.members:
            outlier = member.outlier
            if outlier is not None and 0 < outlier.until <= now:
                outlier.readmit(now)
                back = True
                if member.usable:
                    member.since = now
                    self._ramp(member, now)
                self.events.append(Event("readmitted", member.target.label))
        if back or self.factors:
            self._select(now)

    def next_at(self, now: float) -> float | None:
        """When `advance` has something to do; None if never."""
        times = [member.outlier.until for member in self.members
                 if member.outlier is not None and member.outlier.until]  # fmt: skip
        if self.factors:
            times.append(now + max(0.05, self._rules.slow_start / _STEPS))
        return min(times, default=None)

    def inherit(self, before: Roster, now: float, same: bool) -> None:
        """Take over what was known before a reload; `same` if the checks are the same.

        A target that was not there before gets nothing until its first check: those beside it are
        known to work.
        """
        known = {member.target.label: member for member in before.members}
        for member in self.members:
            old = known.get(member.target.label)
            if old is None:
                if member.health is not None and known:
                    member.health.wait()
                continue
            if member.health is not None and old.health is not None:
                member.health.inherit(old.health, same)
            if member.outlier is not None and old.outlier is not None:
                member.outlier.inherit(old.outlier, now)
            member.reason, member.since, member.ramp_from = old.reason, old.since, old.ramp_from
        self.panic, self.level = before.panic, before.level
        self._select(now)

    # What follows from it

    def _ramp(self, member: Member, now: float) -> None:
        if self._rules.slow_start and member.usable:
            member.ramp_from = now

    def _may_eject(self, member: Member) -> bool:
        """Whether one more may be out. Those that checks took out count: what is left matters."""
        counted = [each for _, level in self._levels for each in level]
        if member not in counted:
            return True
        most = int(self._rules.max_ejected * len(counted) + 1e-9)
        if len(counted) > 1 and self._rules.max_ejected:
            most = max(1, most)
        return sum(not each.usable for each in counted) + 1 <= most

    def _select(self, now: float) -> None:
        members, level, panic = self._choose_members()
        used = [member.target for member in members]
        factors: dict[Target, float] = {}
        for member in self.members:
            if member.ramp_from is not None:
                part = factor(now - member.ramp_from, self._rules.slow_start)
                if part >= 1:
                    member.ramp_from = None
                elif member.usable and member in members:
                    factors[member.target] = part
        if len(factors) == len(used):
            # All of them came back together: there is nobody to spare them.
            factors = {}
        for member in self.members:
            member.share = factors.get(member.target, 1.0)
        if used != self.used or factors.keys() != self.factors.keys():
            self.changed = True
        self.stepped = self.stepped or factors != self.factors
        self.used, self.factors = used, factors
        if panic != self.panic:
            self.events.append(Event("panic" if panic else "calm", ""))
        if level != self.level and not panic:
            self.events.append(Event("level", str(level)))
            self.level = level
        self.panic = panic

    def _choose_members(self) -> tuple[list[Member], int, bool]:
        """Those that get requests, the highest priority number among them, and whether in panic.

        The levels are gone through until one has enough; what the ones above it still have goes on
        being used.
        """
        chosen: list[Member] = []
        panic = self._rules.panic
        last = 0
        for priority, level in self._levels:
            usable = [each for each in level if each.usable]
            chosen += usable
            last = priority
            if usable and _weight(usable) >= panic * _weight(level) - 1e-9:
                return chosen, priority, False
        if panic:
            return [each for _, level in self._levels for each in level], last, True
        return chosen, last, False


def _weight(members: Sequence[Member]) -> int:
    return sum(each.target.weight for each in members)
