"""The queues in the store: each step is one script, so that a step is taken whole or not at all.

Keys, all below `<prefix>:{delivery}:` (one hash tag, so that a script may touch several of them; a
lane is `<route>/<target>`):

    event:<id>       hash    head, body, body:<n> corrected ones, at (ms), open and dead (counts,
                             left out if nothing is dead); for each target s: state, f: fence, o:
                             order, t: record (after the first attempt), x: dead letter, v: version
                             of the body
    ready:<lane>     stream  what may be delivered; again:<lane> what is due once more
    later:<lane>     zset    what waits for its time (ms)
    open:<lane>      zset    what is not settled, by the time it came (ms)
    order:<lane>:<digest>    list of the events of one order; the first has its turn
    rate:<lane>      string  when the bucket of the lane's rate is full again (microseconds)
    dead:<route>     zset    dead letters by time (ms): "id target reason code status"
    seen:<digest>    string  the first event of a name, to tell repetitions by
    routes           set     every route that ever had a dead letter; lanes every lane
    audit            stream  see journal.py
    entries:<correlation id> string  the ids of one transaction's entries in it

States: q in a stream, r handed out, w waiting for its time, o waiting for its turn, d delivered,
x dead, n not wanted by its condition. The clock is the store's.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from gateway.delivery.audit_entry import OFF
from gateway.delivery.event import Record, encode
from gateway.delivery.queued import NO_RATE, Acceptance, Batch, First, Lane, Rate, Taken
from gateway.store.base import Part, Store
from gateway.store.script import Script

PATIENCE_S: Final = 2.0
"""What one call may take, in seconds: it includes a write to disk, and the rest is in no hurry."""
CALLBACK: Final = "callback"
"""The target that is told how all others ended."""
AUDIT: Final = "delivery_audit"
"""What stands before the scripts that write into the audit."""
_ACCEPT: Final = Script.load("delivery_accept", AUDIT)
_TAKE: Final = Script.load("delivery_take")
_SETTLE: Final = Script.load("delivery_settle", AUDIT)
_RENEW: Final = Script.load("delivery_renew")
_NOTE: Final = Script.load("delivery_note", AUDIT)


class Queue:
    """The queues of one store. `retention` of the audit is seconds. Methods raise StoreError."""

    def __init__(self, store: Store, retention: float) -> None:
        self.store = store
        self.base = store.key_prefix + b":{delivery}:"
        self._keys: tuple[Part, ...] = (self.base,)
        self._retention = _ms(retention)

    async def accept(self, new: Acceptance) -> First | None:
        """Keep it; for a repetition, which is not kept, gives the first event."""
        route = new.head.route
        name, seconds, common = new.repeats
        also, also_seconds, also_common = new.also
        args: list[Part] = [
            new.id, encode(new.head), new.body, name and digest(route, name),
            _ms(seconds), new.callback, new.audit, new.head.correlation_id,
            self._retention, _ms(new.keep), common, route,
            also and digest(route, also), _ms(also_seconds), also_common,
            _ms(new.head.received_at),
        ]  # fmt: skip
        for each in new.entries:
            due: Part = each.member if each.state == "x" else _ms(each.delay)
            record = b"" if each.record is None else encode(each.record)
            args += [each.target, each.state, due, each.order, record]
        first = await self.store.run(_ACCEPT, self._keys, tuple(args))
        return None if first is None else First(first[0].decode(), first[1] == 1)

    async def take(
        self, lane: Lane, consumer: str, count: int, *, lease: float = 0.0, rate: Rate = NO_RATE
    ) -> Batch:
        """Up to `count` events; with a `lease` (seconds) also those that a worker let lapse."""
        taken, due, wait, new, again = await self.store.run(
            _TAKE,
            self._keys,
            (
                lane.route, lane.target, consumer, count, _ms(lease),
                round(rate.every * 1_000_000), rate.burst,
            ),
        )  # fmt: skip
        events = [
            Taken(entry, id_.decode(), fence, head, body, record, at / 1000)
            for entry, id_, fence, head, body, record, at in taken
        ]
        return Batch(events, None if due < 0 else due / 1000, wait / 1000, (new, again))

    async def settle(
        self, lane: Lane, taken: Taken, verdict: str, record: Record | None, **how: Any
    ) -> bool:
        """Write down how it ended: delivered, dead (`member`), later (`delay` in seconds) or saved.
        Without a record, the one that is there stays.

        `keep` is how long it stays once all is delivered, in seconds; `audit` and `correlation_id`
        are for the audit. False if somebody else has taken it over: then nothing was written.
        """
        extra: Part = how.get("member", "")
        if verdict == "later":
            extra = _ms(how["delay"])
        left = await self.store.run(
            _SETTLE,
            self._keys,
            (
                lane.route, lane.target, taken.entry, taken.id, taken.fence, verdict, extra,
                b"" if record is None else encode(record),
                _ms(how.get("keep", 0.0)), how.get("audit", OFF),
                how.get("correlation_id", ""), self._retention,
            ),
        )  # fmt: skip
        return bool(left >= 0)

    async def renew(self, lane: Lane, consumer: str, entries: list[bytes]) -> None:
        """Hold on to what was handed out."""
        await self.store.run(_RENEW, self._keys, (lane.route, lane.target, consumer, *entries))

    async def note(self, entries: list[tuple[bytes, str]]) -> None:
        """Append entries to the audit, each with its correlation id."""
        parts = [part for entry in entries for part in entry]
        await self.store.run(_NOTE, self._keys, (self._retention, *parts))

    async def fields(self, event_id: str) -> dict[bytes, bytes]:
        """All that is known of an event; empty if there is none."""
        reply: list[bytes] = await self.store.call("HGETALL", self.key("event", event_id))
        return dict(zip(reply[::2], reply[1::2], strict=True))

    async def depth(self, lane: Lane) -> tuple[int, float | None]:
        """How many events are not settled, and when the oldest of them came (Unix seconds)."""
        key = self.key("open", lane.name)
        count = await self.store.call("ZCARD", key)
        first = await self.store.call("ZRANGE", key, 0, 0, "WITHSCORES")
        return count, float(first[1]) / 1000 if first else None

    def key(self, kind: str, name: str = "") -> bytes:
        """A key, see the module."""
        return self.base + (f"{kind}:{name}" if name else kind).encode()


def digest(*parts: str) -> str:
    """A short name for these parts; lengths keep ("ab", "c") and ("a", "bc") apart."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        found.update(b"%d:" % len(data))
        found.update(data)
    return found.hexdigest()[:32]


def _ms(seconds: float) -> int:
    # Compiled, this is a few instructions where round() is a call.
    return int(seconds * 1000.0 + 0.5)


def letter(event_id: str, target: str, reason: str, code: str, status: int) -> str:
    """The member that stands for a dead letter."""
    return f"{event_id} {target} {reason} {code or '-'} {status}"
