"""Keeps an upstream's roster: runs its checks and timers, and tells what happens to its targets.

The rules are in `roster.py`. Here is what they need from outside: the clock, tasks that check, the
balancer that is swapped when other targets are used, log, metrics and the admin API's view. Only an
upstream with `health` or `outliers` has one, so that no other pays anything.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.failures import statuses, words
from gateway.config.model import UpstreamConfig
from gateway.observability.families import (
    EJECTIONS,
    HEALTH_CHECKS,
    TARGET_HEALTHY,
    UPSTREAM_PANIC,
)
from gateway.observability.metrics import Metrics
from gateway.upstream.balancer import Balancer
from gateway.upstream.check import Check
from gateway.upstream.connector import Connector
from gateway.upstream.health import Health
from gateway.upstream.outliers import Outlier
from gateway.upstream.ring import Hashed
from gateway.upstream.roster import Event, Member, Roster, Rules
from gateway.upstream.selection import Selection
from gateway.upstream.slow_start import Ramp
from gateway.upstream.target import Target

logger = logging.getLogger("gateway.upstream")

# Checks are moved by up to this part of their interval, so that they do not march in step.
_JITTER: Final = 0.1
# The checks after a start are spread over this time at most, in seconds.
_FIRST_WITHIN: Final = 0.5
# How often the log says of a target that it is not ejected: all may fail, at any rate.
_TOLD_EVERY: Final = 10.0
# The highest `Retry-After` that clients are told: longer ones are guesses.
_LONGEST_WAIT: Final = 60


class Watch:
    """What a target with `outliers` tells about its requests."""

    __slots__ = ("_member", "_statuses", "_supervision", "_words")

    def __init__(
        self, member: Member, supervision: Supervision, named: frozenset[str],
        failing: frozenset[int],
    ) -> None:  # fmt: skip
        self._member = member
        self._supervision = supervision
        self._words = named
        self._statuses = failing

    def answered(self, status: int) -> None:
        """An answer came whole."""
        if status in self._statuses:
            self._supervision.failed(self._member, str(status))
        elif self._member.outlier is not None:
            self._member.outlier.succeed()

    def failed(self, word: str) -> None:
        """A request failed without one; `word` is of `outcome`."""
        if word in self._words:
            self._supervision.failed(self._member, word)


class Supervision:
    """The roster of one upstream, driven. `use` is called with each new balancer."""

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        targets: Sequence[Target],
        *,
        connector: Connector,
        clock: Clock,
        random: random_module.Random,
        metrics: Metrics | None,
        use: Callable[[Balancer | Hashed], None],
    ) -> None:
        self._name = name
        self._health = config.health
        self._clock = clock
        self._now = clock.monotonic
        self._random = random
        self._metrics = metrics
        self._use = use
        self._selection = Selection(config.balance, random)
        self._balancer: Balancer | Hashed | None = None
        members = [self._member(target, config) for target in targets]
        rules = Rules(
            config.panic,
            config.outliers.max_ejected if config.outliers else 0.5,
            config.slow_start,
        )
        self.roster = Roster(members, rules, random.random)
        self._members = {member.target: member for member in members}
        self._connector = connector
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._lowest = min(target.priority for target in targets)
        # When it was last said of a target that it is not ejected.
        self._told: dict[str, float] = {}
        self._apply()

    def _member(self, target: Target, config: UpstreamConfig) -> Member:
        health = outlier = None
        if config.health is not None:
            health = Health(config.health.unhealthy_after, config.health.healthy_after)
        outliers = config.outliers
        if outliers is not None:
            outlier = Outlier(outliers.consecutive_failures, outliers.eject_for, outliers.longest)
        member = Member(target, health, outlier)
        if outliers is not None:
            target.watch = Watch(
                member, self, words(outliers.failures), statuses(outliers.failures)
            )
        return member

    def inherit(self, before: Supervision) -> None:
        """Take over what is known about the targets from the upstream before a reload."""
        self.roster.inherit(before.roster, self._now(), self._health == before._health)
        self.roster.events.clear()
        self._apply()

    def start(self) -> None:
        """Begin to check. Nothing waits for the first answers."""
        self._closed = False
        self._arm()
        if self._health is None or self._tasks:
            return
        loop = asyncio.get_running_loop()
        spread = min(_FIRST_WITHIN, self._health.every)
        for member in self.roster.members:
            health = member.health
            urgent = health is not None and not health.healthy and not health.checked
            first = 0.0 if urgent else self._random.random() * spread
            check = Check(self._health, member.target, self._connector)
            task = loop.create_task(self._check_on(member, check, self._health.every, first))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check_on(self, member: Member, check: Check, every: float, first: float) -> None:
        await asyncio.sleep(first)
        while True:
            try:
                result = await check.run()
                self._count(HEALTH_CHECKS, member.target.label, result.word)
                self.roster.checked(member, result.reason, self._now())
                self._settle()
            except Exception:
                # A check that can't even fail must not end all checks of the target.
                logger.exception("checking %s of %s failed", member.target.label, self._name)
            away = _JITTER * (2 * self._random.random() - 1)
            await asyncio.sleep(every * (1 + away))

    def failed(self, member: Member, reason: str) -> None:
        """A request to a target failed."""
        self.roster.failed(member, reason, self._now())
        if self.roster.events or self.roster.changed:
            self._settle()

    def _advance(self) -> None:
        self._timer = None
        self.roster.advance(self._now())
        self._settle()

    def _settle(self) -> None:
        """Do what the roster's new state asks for."""
        roster = self.roster
        events, roster.events = roster.events, []
        if roster.changed or roster.stepped:
            self._apply()
        for event in events:
            self._tell(event)
        self._arm()

    def _apply(self) -> None:
        roster = self.roster
        balancer = self._balancer
        if not roster.changed and isinstance(balancer, Ramp):
            balancer.factors.update(roster.factors)
        elif roster.changed or self._selection.hashes:
            self._balancer = self._selection.make(roster.used, roster.factors)
            self._use(self._balancer)
        roster.changed = roster.stepped = False

    def _arm(self) -> None:
        """Have time pass for the roster when something is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = None if self._closed else self.roster.next_at(self._now())
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, due - self._now()), self._advance)

    def _tell(self, event: Event) -> None:
        kind, label, reason, seconds = event
        facts = {"upstream": self._name, "target": label, "reason": reason}
        total = len(self.roster.members)
        if kind in {"ejected", "suppressed"}:
            self._count(EJECTIONS, label, kind, reason)
        if kind == "suppressed" and not self._may_tell(label):
            return
        level, text = {
            "unhealthy": (logging.WARNING, f"{label} is unhealthy: {reason}"),
            "healthy": (logging.INFO, f"{label} is healthy again"),
            "ejected": (logging.WARNING, f"{label} is ejected for {seconds:.1f} s: {reason}"),
            "readmitted": (logging.INFO, f"{label} is tried again after its ejection"),
            "suppressed": (
                logging.WARNING, f"{label} is not ejected ({reason}): too many targets are out",
            ),
            "panic": (logging.WARNING, f"too few of {total} targets are healthy: all are used"),
            "calm": (logging.INFO, "enough targets are healthy again"),
            "level": (
                logging.INFO if label == str(self._lowest) else logging.WARNING,
                f"targets up to priority {label} are used"),
        }[kind]  # fmt: skip
        logger.log(level, "upstream %s: %s", self._name, text, extra=facts)

    def _may_tell(self, label: str) -> bool:
        now, last = self._now(), self._told.get(label)
        if last is not None and now - last < _TOLD_EVERY:
            return False
        self._told[label] = now
        return True

    def _count(self, family: Any, *labels: str) -> None:
        if self._metrics is not None:
            self._metrics.counts(family).add(self._name, *labels)

    def publish(self) -> None:
        """Bring the gauges up to date."""
        if self._metrics is None or self._closed:
            return
        healthy = self._metrics.counts(TARGET_HEALTHY)
        for member in self.roster.members:
            healthy.set(self._name, member.target.label, value=int(member.usable))
        self._metrics.counts(UPSTREAM_PANIC).set(self._name, value=int(self.roster.panic))

    def retry_after(self) -> int:
        """Seconds after which a target may be back, for clients that found none."""
        now = self._now()
        due = self.roster.next_at(now)
        waits = [due - now] if due is not None else []
        if self._health is not None:
            waits.append(self._health.every)
        return max(1, min(_LONGEST_WAIT, ceil(min(waits, default=1.0))))

    def status(self) -> dict[str, Any]:
        """What the admin API shows of the upstream."""
        roster = self.roster
        return {
            "panic": roster.panic,
            "priority": roster.level,
            "used": [target.label for target in roster.used],
        }

    def target_status(self, target: Target) -> dict[str, Any]:
        """What the admin API shows of a target."""
        member = self._members[target]
        health, outlier = member.health, member.outlier
        now = self._now()
        reason = ""
        if health is not None and not health.healthy:
            reason = health.reason
        elif member.ejected:
            reason = member.reason
        left = outlier.until - now if outlier is not None and outlier.until else 0.0
        since = None if member.since is None else self._clock.wall() - (now - member.since)
        return {
            "state": member.state,
            "reason": reason or None,
            "since": since,
            "ejected_for": round(max(0.0, left), 3),
            "ejections": 0 if outlier is None else outlier.ejections,
            "share": round(member.share, 3),
        }

    async def aclose(self) -> None:
        """Stop checking, and forget the gauges."""
        self._closed = True
        self._arm()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._metrics is not None:
            for member in self.roster.members:
                self._metrics.counts(TARGET_HEALTHY).drop(self._name, member.target.label)
            self._metrics.counts(UPSTREAM_PANIC).drop(self._name)
