"""Any sequence of steps in the queues, by several workers that may die, against a simple model.

Nothing accepted is lost, only the owner settles, order is kept, and counts and indexes fit the
states at every moment.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import hypothesis.strategies as st
import uvloop
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from gateway.delivery.event import Record
from gateway.delivery.queue import Queue
from gateway.delivery.queued import Entry, Lane, Taken
from gateway.store.base import Store
from tests.delivery.queues import accept, end, make_queue
from tests.store.servers import Server, make_store

TARGETS = ("api", "crm")
WORKERS = ("w1", "w2", "w3")
SETTLED = {"d", "x", "n"}


@dataclass
class Known:
    """What the model knows of an event: its state for each target, and its order."""

    states: dict[str, str]
    order: str = ""
    fences: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class QueueMachine(RuleBasedStateMachine):
    """Each rule is one step of some worker. A crash is a worker that forgets what it holds."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.store: Store = make_store(self.server.unix, self.server.folder)
        self.run(self.store.start())
        self.run(self.store.call("FLUSHALL"))
        self.queue: Queue = make_queue(self.store)
        self.events: dict[str, Known] = {}
        # What each worker holds, as (lane, taken); those that others claimed are here twice.
        self.held: list[tuple[str, str, Taken]] = []
        self.settled_in_order: dict[tuple[str, str], list[str]] = defaultdict(list)

    def run(self, step: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(step)

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.run(self.store.aclose())
            self.loop.close()

    @rule(
        order=st.sampled_from(["", "", "o", "p"]),
        wanted=st.sampled_from(["qq", "qn", "nq", "xq", "nn", "xn"]),
    )
    def accept(self, order: str, wanted: str) -> None:
        entries = [
            Entry(target, state, Record(begun_at=1.0), order if state == "q" else "", member="m-")
            for target, state in zip(TARGETS, wanted, strict=True)
        ]
        made = self.run(accept(self.queue, *entries))
        states = {}
        for target, state in zip(TARGETS, wanted, strict=True):
            waits = state == "q" and order and self.open_in(target, order)
            states[target] = "o" if waits else state
        self.events[made] = Known(states, order)
        self.check(made)

    def open_in(self, target: str, order: str) -> list[str]:
        """The events of an order that are not settled for a target, the oldest first."""
        return [
            each for each, known in self.events.items()
            if known.order == order and known.states[target] not in SETTLED
        ]  # fmt: skip

    @rule(worker=st.sampled_from(WORKERS), goal=st.sampled_from(TARGETS), count=st.integers(1, 4))
    def take(self, worker: str, goal: str, count: int, lease: float = 0.0) -> None:
        target, lane = goal, Lane("route", goal)
        batch = self.run(self.queue.take(lane, worker, count, lease=lease))
        assert len(batch.events) <= count
        given = [taken.id for taken in batch.events]
        assert len(set(given)) == len(given)
        for taken in batch.events:
            known = self.events[taken.id]
            before = known.states[target]
            # Without a lease nothing is taken from anybody; `w` is due by now.
            assert before in ({"q", "w", "r"} if lease else {"q", "w"})
            if known.order:
                assert self.open_in(target, known.order)[0] == taken.id
            known.states[target] = "r"
            known.fences[target] += 1
            assert taken.fence == known.fences[target]
            self.held.append((worker, target, taken))
            self.check(taken.id)
        ready = [each for each, known in self.events.items() if known.states[target] == "q"]
        assert len(batch.events) == count or not ready, "there was room, and more to take"

    @rule(worker=st.sampled_from(WORKERS), goal=st.sampled_from(TARGETS))
    def claim(self, worker: str, goal: str) -> None:
        """Every lease has lapsed: a millisecond is over since any other step."""
        self.run(asyncio.sleep(0.003))
        self.take(worker, goal, 50, lease=0.001)

    @rule(
        at=st.integers(0, 30),
        verdict=st.sampled_from(["delivered", "dead", "later", "soon", "saved", "delivered"]),
    )
    def settle(self, at: int, verdict: str) -> None:
        """Somebody comes back with what it once took, whether that is still its own or not."""
        if not self.held:
            return
        at %= len(self.held)
        _, target, taken = self.held[at] if verdict == "saved" else self.held.pop(at)
        known = self.events[taken.id]
        owner = known.states[target] == "r" and known.fences[target] == taken.fence
        delay = {"soon": 0.0, "later": 0.001}.get(verdict)
        how = {} if delay is None else {"delay": delay}
        name = "later" if delay is not None else verdict
        lane = Lane("route", target)
        assert self.run(end(self.queue, taken, name, lane=lane, **how)) == owner
        if owner and verdict != "saved":
            after = {"delivered": "d", "dead": "x", "later": "w", "soon": "q"}[verdict]
            known.states[target] = after
            if after in SETTLED and known.order:
                following = self.open_in(target, known.order)
                if following:
                    self.events[following[0]].states[target] = "q"
                    self.check(following[0])
        self.check(taken.id)

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        self.held = [each for each in self.held if each[0] != worker]

    @rule(worker=st.sampled_from(WORKERS), goal=st.sampled_from(TARGETS))
    def renew(self, worker: str, goal: str) -> None:
        entries = [taken.entry for name, lane, taken in self.held if (name, lane) == (worker, goal)]
        self.run(self.queue.renew(Lane("route", goal), worker, entries))

    def check(self, event: str) -> None:
        """What the store says of an event is what the model says."""
        fields, known = self.run(self.queue.fields(event)), self.events[event]
        for target, state in known.states.items():
            found = fields[b"s:" + target.encode()].decode()
            # What was due when somebody looked has gone into a stream meanwhile.
            assert found == state or (found, state) == ("q", "w"), (event, target)
        states = list(known.states.values())
        assert int(fields[b"open"]) == sum(state not in SETTLED for state in states)
        assert int(fields.get(b"dead", 0)) == states.count("x")
        whole = any(state not in SETTLED or state == "x" for state in states)
        assert (b"body" in fields) == whole

    def drain(self) -> None:
        """Everybody is gone but one, who delivers all there is; then nothing is left anywhere."""
        self.held.clear()
        for target in TARGETS:
            lane = Lane("route", target)
            # A lease that a living worker would have renewed is over after some milliseconds.
            for _ in range(2 * len(self.events) + 5):
                self.run(asyncio.sleep(0.003))
                batch = self.run(self.queue.take(lane, "last", 50, lease=0.001))
                for taken in batch.events:
                    known = self.events[taken.id]
                    if known.order:
                        assert self.open_in(target, known.order)[0] == taken.id
                    assert self.run(end(self.queue, taken, lane=lane))
                    known.states[target] = "d"
                if not batch.events and batch.due is None:
                    break
            for kind in ("open", "later"):
                assert self.run(self.store.call("ZCARD", self.queue.key(kind, lane.name))) == 0
            for kind in ("ready", "again"):
                assert self.run(self.store.call("XLEN", self.queue.key(kind, lane.name))) == 0
        for event, known in self.events.items():
            assert set(known.states.values()) <= SETTLED, "lost"
            self.check(event)
        assert self.run(self.store.call("KEYS", self.queue.key("order", "*"))) == []
        dead = sum(list(known.states.values()).count("x") for known in self.events.values())
        found = self.run(self.store.call("ZCARD", self.queue.key("dead", "route")))
        assert (found > 0) == (dead > 0)


def test_any_sequence_of_steps(server: Server) -> None:
    """On each kind of server."""
    QueueMachine.server = server
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None)
    )
