"""What must hold once the queues are empty, whatever was killed on the way."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from gateway.store.base import Store
from tests.faults.crash.senders import Accepted
from tests.faults.crash.upstream import Call
from tests.faults.crash.world import ROUTE, TARGETS

_BASE = "lockgate:{delivery}:"
_LANES = (*TARGETS, "callback")


def faults_of_deliveries(accepted: Accepted, calls: list[Call]) -> list[str]:
    """Everything that is wrong with what reached the upstream."""
    faults = list(accepted.faults)
    by_event: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        by_event[call.target, call.event].append(call)
    for (key, seq), event in accepted.events.items():
        for target in TARGETS:
            met = by_event.get(("/" + target, event), [])
            if not any(call.settles for call in met):
                faults.append(f"lost: {key}-{seq} ({event}) at {target}: {len(met)} attempts")
    faults += _keys(accepted, calls)
    for target in TARGETS:
        faults += _order("/" + target, calls)
    return faults


def _keys(accepted: Accepted, calls: list[Call]) -> list[str]:
    """One idempotency key for each event, and one event for each key that a sender used."""
    faults = []
    keys: dict[str, set[str]] = defaultdict(set)
    events: dict[tuple[str, int], set[str]] = defaultdict(set)
    for call in calls:
        keys[call.event].add(call.idempotency_key)
        events[call.key, call.seq].add(call.event)
        if call.idempotency_key != f'"{call.key}-{call.seq}"':
            faults.append(f"key of {call.key}-{call.seq}: {call.idempotency_key}")
    faults += [f"{event} has keys {found}" for event, found in keys.items() if len(found) > 1]
    for name, found in events.items():
        if len(found) > 1:
            faults.append(f"{name} became {len(found)} events")
        if name in accepted.events and accepted.events[name] not in found:
            faults.append(f"{name} was accepted as {accepted.events[name]}, came as {found}")
    return faults


def _order(target: str, calls: list[Call]) -> list[str]:
    """First deliveries come in order, and none before the one before it was settled."""
    faults = []
    settled: dict[str, float] = {}
    last: dict[str, int] = defaultdict(lambda: -1)
    moments = sorted(
        [(call.began, 1, call) for call in calls if call.target == target]
        + [(call.answered, 0, call) for call in calls if call.target == target and call.settles],
        key=lambda moment: moment[:2],
    )
    done: dict[str, set[int]] = defaultdict(set)
    for at, begins, call in moments:
        if not begins:
            done[call.key].add(call.seq)
            settled[call.key] = at
            continue
        expected = last[call.key] + 1
        if call.seq > expected:
            faults.append(f"order of {call.key} at {target}: {call.seq} before {expected}")
        if call.seq >= expected:
            if call.seq and call.seq - 1 not in done[call.key]:
                faults.append(
                    f"{call.key}-{call.seq} at {target} before {call.seq - 1} was settled"
                )
            last[call.key] = call.seq
    return faults


def late_repeats(calls: list[Call]) -> int:
    """Deliveries that began after a later event of their key had: of processes that were taken for
    dead and were not. The upstream tells them by their idempotency key.
    """
    last: dict[tuple[str, str], int] = {}
    found = 0
    for call in calls:
        place = (call.target, call.key)
        found += call.seq < last.get(place, -1)
        last[place] = max(call.seq, last.get(place, -1))
    return found


def repeats(calls: list[Call]) -> int:
    """Deliveries of what the upstream had taken already."""
    taken: set[tuple[str, str]] = set()
    found = 0
    for call in calls:
        found += (call.target, call.event) in taken
        if call.settles:
            taken.add((call.target, call.event))
    return found


async def depth(store: Store) -> int:
    """How many deliveries are not settled."""
    return sum([await store.call("ZCARD", f"{_BASE}open:{ROUTE}/{target}") for target in _LANES])


async def faults_of_store(store: Store, accepted: Accepted) -> list[str]:
    """What is left in the queues when nothing should be."""
    faults = []
    letters = await store.call("ZCARD", f"{_BASE}dead:{ROUTE}")
    poisoned = len(accepted.poisoned & accepted.events.keys())
    if letters != poisoned * len(TARGETS):
        faults.append(f"{letters} dead letters of {poisoned} events for {len(TARGETS)} targets")
    for key in await _keys_of(store):
        kind, _, name = key.removeprefix(_BASE).partition(":")
        if kind in ("open", "order", "later", "rate"):
            faults.append(f"{key} is left")
        elif kind in ("ready", "again"):
            faults += await _stream(store, key)
        elif kind == "event":
            faults += await _event(store, key, name)
    return faults


async def _keys_of(store: Store) -> list[str]:
    found, cursor = set[bytes](), b"0"
    while True:
        cursor, some = await store.call("SCAN", cursor, "MATCH", _BASE + "*", "COUNT", 1000)
        found.update(some)
        if cursor == b"0":
            return sorted(key.decode() for key in found)


async def _stream(store: Store, key: str) -> list[str]:
    length = await store.call("XLEN", key)
    pending = await store.call("XPENDING", key, "lockgate")
    faults = [f"{key} holds {length} entries"] if length else []
    return faults + ([f"{key} has {pending[0]} pending"] if pending[0] else [])


async def _event(store: Store, key: str, name: str) -> list[str]:
    reply: list[bytes] = await store.call("HGETALL", key)
    fields: dict[bytes, Any] = dict(zip(reply[::2], reply[1::2], strict=True))
    states = {field: value for field, value in fields.items() if field.startswith(b"s:")}
    if set(states.values()) - {b"d", b"x"} or fields[b"open"] != b"0":
        return [f"event {name}: {states}, open {fields[b'open']!r}"]
    dead = sum(value == b"x" for field, value in states.items() if field != b"s:callback")
    if int(fields.get(b"dead", 0)) != dead:
        return [f"event {name}: {dead} dead, counted {fields.get(b'dead')!r}"]
    if (b"body" in fields) != bool(dead):
        return [f"event {name}: its body is {'kept' if not dead else 'gone'}"]
    if not dead and await store.call("PTTL", key) < 0:
        return [f"event {name} stays for ever"]
    return []
