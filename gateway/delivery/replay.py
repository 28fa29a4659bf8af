"""Sends dead letters on their way again, as their target's next epoch or to another target.

What is written is decided here, of what was read, and written by one script that does nothing to a
letter which is not as it was read. So a replay that was interrupted is simply run again, and of two
at once one finds that the other was there before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import msgspec

from gateway.delivery.audit_entry import Entry
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import Head, Record, decode_head, decode_record, encode
from gateway.delivery.intake import CannotOrder
from gateway.delivery.letters import Letter
from gateway.delivery.outcome import Reason
from gateway.delivery.plan import RoutePlan
from gateway.delivery.queue import AUDIT, CALLBACK
from gateway.delivery.queued import Lane
from gateway.delivery.sifting import exchange_of
from gateway.delivery.target import key_of
from gateway.observability.delivery import REPLAYED
from gateway.store.base import Part
from gateway.store.script import Script

_REPLAY: Final = Script.load("delivery_replay", AUDIT)
_AT_ONCE: Final = 25
"""Letters of one script."""
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Order:
    """How letters are to be replayed: to their own target or another one, with the payload they
    have or a corrected one, by whom; `force` sends invalid ones as well.
    """

    to: str = ""
    body: bytes | None = None
    by: str = ""
    force: bool = False


@dataclass(slots=True)
class Done:
    """What became of letters: how many were replayed, and of the others how many for which reason.

    `gone` are no letters any more, `no_target` have none that is configured, `open` are under way
    to the other target, `invalid` do not keep the route's contract, `no_order` lack what the order
    is made of, `unreadable` were written by another version. `details` has examples.
    """

    replayed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def skip(self, letter: Letter, why: str, detail: str = "") -> None:
        """Note one that was not replayed."""
        self.skipped[why] += 1
        if len(self.details) < 5:
            self.details.append(f"{letter.event} {letter.target}: {detail or why}")


@dataclass(frozen=True, slots=True)
class _Read:
    """What is known of a letter's event; records are as they stand in the store."""

    head: Head
    known: bytes
    order: str
    its_known: bytes
    its_order: str
    telling: bytes
    version: str


class _Skipped(Exception):
    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.detail = detail


class Replay:
    """Carries out one order."""

    def __init__(self, dispatcher: Dispatcher, order: Order) -> None:
        self._dispatcher = dispatcher
        self._queue = dispatcher.queue
        self._order = order
        self._lanes = set(dispatcher.lanes())
        self._counts = dispatcher.metrics.counts(REPLAYED)

    async def send(self, letters: Sequence[Letter]) -> Done:
        """Replay them, in their order. Raises StoreError, and then some of them may have been."""
        done = Done()
        for start in range(0, len(letters), _AT_ONCE):
            part = letters[start : start + _AT_ONCE]
            for route, same in groupby(part, key=lambda each: each.route):
                await self._of_route(route, list(same), done)
        return done

    async def _of_route(self, route: str, letters: list[Letter], done: Done) -> None:
        for _ in range(_TRIES):
            letters = await self._once(route, letters, done)
            if not letters:
                return
        for letter in letters:
            done.skip(letter, "changed")

    async def _once(self, route: str, letters: list[Letter], done: Done) -> list[Letter]:
        """Gives those that changed while it was decided what becomes of them."""
        args: list[Part] = []
        sent = []
        prepared = await asyncio.gather(*(self._prepare(letter) for letter in letters))
        for letter, made in zip(letters, prepared, strict=True):
            if isinstance(made, _Skipped):
                done.skip(letter, made.why, made.detail)
            else:
                args += made
                sent.append(letter)
        if not sent:
            return []
        retention = round(self._dispatcher.journal.retention * 1000)
        outcomes = await self._queue.store.run(
            _REPLAY, (self._queue.base,), (route, retention, CALLBACK, *args)
        )
        changed = []
        targets = set()
        for letter, outcome in zip(sent, outcomes, strict=True):
            if outcome == b"done":
                done.replayed += 1
                targets.add(self._order.to or letter.target)
                self._counts.add(route, self._order.to or letter.target)
            elif outcome == b"changed":
                changed.append(letter)
            else:
                done.skip(letter, outcome.decode())
        self._dispatcher.wake(route, targets)
        return changed

    async def _prepare(self, letter: Letter) -> list[Part] | _Skipped:
        try:
            return await self._decide(letter)
        except _Skipped as skipped:
            return skipped
        except msgspec.MsgspecError:
            return _Skipped("unreadable")

    async def _decide(self, letter: Letter) -> list[Part]:
        to = self._order.to or letter.target
        if Lane(letter.route, to) not in self._lanes or (
            CALLBACK in (to, letter.target) and to != letter.target
        ):
            raise _Skipped("no_target", f"{letter.route} has no target {to}")
        read = await self._read(letter, to)
        plan = self._dispatcher.route(letter.route)
        order = read.its_order or read.order
        body, version = self._order.body, read.version
        if body is None and (self._is_reviewed(letter) or (plan and plan.order and not order)):
            body = await self._body(letter, read)
        if self._is_reviewed(letter):
            await self._review(plan, read.head, body or b"")
        if plan is not None and to != CALLBACK and not (order and self._order.body is None):
            order = _order_of(plan, read.head, body or b"") or order
        if self._order.body is not None:
            version = await self._next_version(letter)
        return self._written(letter, to, read, order, version)

    def _is_reviewed(self, letter: Letter) -> bool:
        invalid = letter.reason == Reason.INVALID or self._order.body is not None
        return invalid and not self._order.force and letter.target != CALLBACK

    def _written(
        self, letter: Letter, to: str, read: _Read, order: str, version: str
    ) -> list[Part]:
        now = self._dispatcher.clock.wall()
        old = decode_record(read.known)
        moved = to != letter.target
        before = decode_record(read.its_known) if moved else old
        # A target that never had the event begins with its first epoch, like everybody.
        epoch = before.epoch + 1 if read.its_known or not moved else 1
        number = int(version) if version else 0
        replay_of = f"{letter.target}.{old.epoch}"
        new = Record(
            epoch, begun_at=now, history=before.history, version=number, replay_of=replay_of,
            progress=before.progress,
        )  # fmt: skip
        if moved:
            old.detail = f"replayed to {to}"
        telling = decode_record(read.telling)
        head = read.head
        entry = Entry(
            now, "replayed", head.route, head.correlation_id, letter.event,
            target=to, generation=head.generation, key=key_of(head, new), epoch=epoch,
            reason=letter.reason, status=letter.status, code=letter.code, replay_of=replay_of,
            by=self._order.by, detail=f"body {version}" if self._order.body is not None else "",
        )  # fmt: skip
        corrected = self._order.body is not None
        return [
            letter.event, letter.target, letter.member, read.known, to, read.its_known,
            encode(new), encode(old) if moved else b"", order,
            encode(Record(epoch=telling.epoch + 1)), version if corrected else "",
            self._order.body or b"", self._dispatcher.journal.entry(entry), head.correlation_id,
        ]  # fmt: skip

    async def _read(self, letter: Letter, to: str) -> _Read:
        own = letter.target
        names = [
            "head", f"t:{own}", f"o:{own}", f"v:{own}", f"t:{to}", f"o:{to}", f"t:{CALLBACK}",
        ]  # fmt: skip
        key = self._queue.key("event", letter.event)
        found = await self._queue.store.call("HMGET", key, *names)
        head, known, order, version, its_known, its_order, telling = found
        if head is None:
            raise _Skipped("gone")
        return _Read(
            decode_head(head), known or b"", _text(order), (its_known or b"") if to != own else b"",
            _text(its_order), telling or b"", _text(version),
        )  # fmt: skip

    async def _body(self, letter: Letter, read: _Read) -> bytes:
        name = f"body:{read.version}" if read.version else "body"
        key = self._queue.key("event", letter.event)
        return await self._queue.store.call("HGET", key, name) or b""

    async def _next_version(self, letter: Letter) -> str:
        names = await self._queue.store.call("HKEYS", self._queue.key("event", letter.event))
        return str(max(versions_of(names)) + 1)

    async def _review(self, plan: RoutePlan | None, head: Head, body: bytes) -> None:
        if plan is None or plan.review is None:
            return
        rejection = await plan.review(exchange_of(head, body))
        if rejection is not None:
            wrong = rejection.extensions.get("violations")
            why = msgspec.json.encode(wrong).decode()[:300] if wrong else rejection.detail
            raise _Skipped("invalid", f"{rejection.kind.code}: {why}")


def _order_of(plan: RoutePlan, head: Head, body: bytes) -> str:
    """The digest of the event's order. Raises _Skipped."""
    if plan.order is None:
        return ""
    try:
        return plan.order(exchange_of(head, body), body)
    except CannotOrder as error:
        raise _Skipped("no_order", str(error)) from None


def versions_of(names: Iterable[bytes]) -> list[int]:
    """The versions of a body, 0 for the one that came, of an event's fields."""
    return [0, *sorted(int(name[5:]) for name in names if name.startswith(b"body:"))]


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
