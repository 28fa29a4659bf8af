"""The bulkhead's permits and queue, and the limit that finds itself."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policies.bulkhead.gradient import Gradient, GradientSettings
from gateway.policies.bulkhead.machine import Bulkhead, FairQueue


def test_lines_take_turns() -> None:
    """A route that floods the queue delays itself; within a line, first come is first served."""
    queue: FairQueue[str] = FairQueue()
    for waiter in ("a1", "a2", "a3", "a4"):
        queue.push("a", waiter)
    queue.push("b", "b1")
    queue.push("c", "c1")
    assert queue.remove("a", "a2")
    assert not queue.remove("a", "a2")
    assert not queue.remove("x", "a1")

    assert [queue.pop() for _ in range(5)] == ["a1", "b1", "c1", "a3", "a4"]
    with pytest.raises(IndexError):
        queue.pop()


def test_nobody_overtakes_the_queue() -> None:
    """A permit that comes free goes to the one who waits, not to the one who just came."""
    bulkhead: Bulkhead[str] = Bulkhead(1, 2)
    assert bulkhead.enter()
    assert bulkhead.wait("r", "first")
    assert bulkhead.wait("r", "second")
    assert not bulkhead.wait("r", "third")
    assert bulkhead.leave() == ["first"]
    assert not bulkhead.enter()
    assert bulkhead.leave() == ["second"]
    assert bulkhead.leave() == []
    assert bulkhead.enter()


def test_a_limit_that_shrinks_and_grows() -> None:
    """Permits beyond it come back one by one; as it grows, several waiters go at once."""
    bulkhead: Bulkhead[int] = Bulkhead(3, 10)
    assert all(bulkhead.enter() for _ in range(3))
    for waiter in range(4):
        bulkhead.wait("r", waiter)
    bulkhead.limit = 1
    assert bulkhead.leave() == []
    assert bulkhead.leave() == []
    assert bulkhead.leave() == [0]
    bulkhead.limit = 3
    assert bulkhead.leave() == [1, 2, 3]
    assert bulkhead.active == 3


class BulkheadMachine(RuleBasedStateMachine):
    """Requests enter, wait, are granted, give up, and leave, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.bulkhead: Bulkhead[int] = Bulkhead(3, 4)
        self.holding = 0
        self.waiting: list[tuple[str, int]] = []
        self.served: dict[str, int] = {}
        self.count = 0

    @rule(route=st.sampled_from("abc"))
    def come(self, route: str) -> None:
        self.count += 1
        if self.bulkhead.enter():
            assert not self.waiting
            self.holding += 1
        elif self.bulkhead.wait(route, self.count):
            self.waiting.append((route, self.count))
        else:
            assert len(self.waiting) == 4

    @rule()
    def leave(self) -> None:
        if not self.holding:
            return
        self.holding -= 1
        for waiter in self.bulkhead.leave():
            route = next(each for each, number in self.waiting if number == waiter)
            assert waiter == min(number for each, number in self.waiting if each == route)
            self.waiting.remove((route, waiter))
            self.holding += 1

    @rule(at=st.integers(0, 100))
    def give_up(self, at: int) -> None:
        if self.waiting:
            route, waiter = self.waiting.pop(at % len(self.waiting))
            assert self.bulkhead.give_up(route, waiter)
            assert not self.bulkhead.give_up(route, waiter)

    @rule(limit=st.integers(1, 6))
    def resize(self, limit: int) -> None:
        self.bulkhead.limit = limit

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.bulkhead.active == self.holding
        assert self.bulkhead.queued == len(self.waiting) <= 4

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if self.waiting:
            assert self.holding


TestBulkhead = BulkheadMachine.TestCase
TestBulkhead.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Simulation:
    """An upstream with `capacity` servers, each `service` seconds a call, and as many clients as
    the limit lets in; `service` may change while it runs.
    """

    def __init__(self, gradient: Gradient, capacity: int, service: float, clients: int) -> None:
        self.gradient = gradient
        self.capacity = capacity
        self.service = service
        self.clients = clients
        self.now = 0.0
        self._random = random.Random(3)
        self._ends: list[tuple[float, float]] = []
        self._free = [0.0] * capacity
        self.done = 0

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            while len(self._ends) < min(self.gradient.limit, self.clients):
                start = max(self.now, heapq.heappop(self._free))
                end = start + self.service * self._random.uniform(0.5, 1.5)
                heapq.heappush(self._free, end)
                heapq.heappush(self._ends, (end, self.now))
            self.now, began = heapq.heappop(self._ends)
            self.done += 1
            self.gradient.sample(self.now - began, len(self._ends) + 1, self.now)


@pytest.mark.parametrize(("capacity", "service"), [(50, 0.02), (200, 0.1), (12, 0.005)])
def test_the_limit_finds_the_capacity(capacity: int, service: float) -> None:
    """From far below and for a long time: enough to keep the upstream busy, little queueing there.

    It does not creep up with the latency that it makes itself.
    """
    gradient = Gradient(GradientSettings(start=10, lowest=5, highest=2000), 0.0)
    simulation = Simulation(gradient, capacity, service, clients=5000)
    simulation.run(30)
    limits = []
    for _ in range(40):
        simulation.run(2)
        limits.append(gradient.limit)

    assert 0.7 * capacity <= sorted(limits)[len(limits) // 2] <= 2.2 * capacity, limits
    assert max(limits[-10:]) <= 2.6 * capacity, limits


def test_it_comes_down_from_a_limit_that_is_too_high() -> None:
    """Ten times the capacity at the start is not for long."""
    gradient = Gradient(GradientSettings(start=400, lowest=5, highest=1000), 0.0)
    simulation = Simulation(gradient, 40, 0.02, clients=5000)
    simulation.run(180)

    assert gradient.limit <= 120, gradient


def test_it_shrinks_when_the_upstream_loses_capacity_and_grows_back() -> None:
    """Half of the servers gone, and back."""
    gradient = Gradient(GradientSettings(start=50, lowest=5, highest=1000), 0.0)
    simulation = Simulation(gradient, 80, 0.02, clients=5000)
    simulation.run(60)
    before = gradient.limit
    lost = [heapq.heappop(simulation._free) for _ in range(60)]
    simulation.run(60)
    during = gradient.limit
    for each in lost:
        heapq.heappush(simulation._free, max(each, simulation.now))
    simulation.run(90)

    assert during < before * 0.6, (before, during)
    assert gradient.limit > during * 1.5, (during, gradient.limit)


def test_an_upstream_that_became_slower_is_not_starved() -> None:
    """Five times slower for good is not crowding: after a new look the limit is what it was."""
    gradient = Gradient(GradientSettings(start=20, lowest=5, highest=1000), 0.0)
    simulation = Simulation(gradient, 60, 0.01, clients=5000)
    simulation.run(60)
    before = gradient.limit
    simulation.service = 0.05
    simulation.run(120)

    assert gradient.limit > before * 0.5, (before, gradient.limit)


def test_an_unused_limit_is_left_alone() -> None:
    """Five clients say nothing about a hundred."""
    gradient = Gradient(GradientSettings(start=100), 0.0)
    simulation = Simulation(gradient, 50, 0.02, clients=5)
    simulation.run(60)

    assert gradient.limit == 100


def test_it_keeps_within_its_bounds() -> None:
    """Whatever latency does."""
    noise = random.Random(5)
    gradient = Gradient(GradientSettings(start=20, lowest=7, highest=33), 0.0)
    now = 0.0
    for _ in range(50_000):
        now += 0.005
        gradient.sample(noise.choice([0.0, 0.001, 10.0, 0.1]), noise.randrange(60), now)
        assert 7 <= gradient.limit <= 33
