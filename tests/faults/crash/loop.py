"""Rounds of load and killing, each followed by the proof."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.faults.crash.proof import depth, faults_of_deliveries, faults_of_store, late_repeats
from tests.faults.crash.proof import repeats as repeats_of
from tests.faults.crash.senders import Senders
from tests.faults.crash.upstream import RecordingUpstream
from tests.faults.crash.world import Victim, World
from tests.store.servers import opened

DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the loop runs. `load` is how long events are sent in each round, in seconds; `pause` is
    the time between two events of a sender. `gentle` is the share of processes that are asked to
    stop instead of being killed.
    """

    seed: int
    rounds: int
    kills: int = 3
    load: float = 3.0
    senders: int = 12
    pause: float = 0.05
    embedded: bool = False
    gentle: float = 0.0


@dataclass(slots=True)
class Round:
    """What a round showed."""

    number: int
    killed: list[str]
    accepted: int = 0
    asked: int = 0
    deliveries: int = 0
    repeats: int = 0
    late: int = 0
    drained_in: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


Tell = Callable[[Round], None]


async def run(plan: Plan, tell: Tell = lambda _: None) -> list[Round]:
    """Run the rounds; stops at the first one with faults."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-crash-", dir="/tmp"))
    rng = random.Random(plan.seed)
    upstream = RecordingUpstream(rng)
    world = World(folder, embedded=plan.embedded)
    try:
        await world.start(await upstream.start())
        sockets = [each.socket for each in world.gateways]
        senders = Senders(sockets, plan.senders, rng, plan.pause)
        loop = Loop(plan, rng, world, upstream, senders)
        rounds = []
        for number in range(1, plan.rounds + 1):
            rounds.append(await loop.round(number))
            tell(rounds[-1])
            if rounds[-1].faults:
                break
        if codes := [code for code in await world.end() if code != 0]:
            rounds[-1].faults.append(f"exit codes {codes}")
        if not rounds[-1].faults:
            shutil.rmtree(folder)
        else:
            rounds[-1].faults.append(f"the logs are in {folder}")
        return rounds
    finally:
        world.kill_all()
        await upstream.aclose()


class Loop:
    """One run; its parts live for all rounds."""

    def __init__(
        self,
        plan: Plan,
        rng: random.Random,
        world: World,
        upstream: RecordingUpstream,
        senders: Senders,
    ) -> None:
        self._plan = plan
        self._random = rng
        self._world = world
        self._upstream = upstream
        self._senders = senders
        self._before = Counter[str]()

    async def round(self, number: int) -> Round:
        """Load and killing, then silence and the proof."""
        began = monotonic()
        enough = asyncio.Event()
        sending = asyncio.create_task(self._senders.send_until(enough))
        killed = await self._kill()
        enough.set()
        await sending
        quiet = monotonic()
        found = Round(number, killed)
        await self._drain(found)
        found.drained_in = monotonic() - quiet
        found.seconds = monotonic() - began
        self._count(found)
        return found

    async def _kill(self) -> list[str]:
        """Kill at random moments within the time of the load; everything runs again afterwards."""
        plan = self._plan
        moments = sorted(self._random.uniform(0.2, plan.load) for _ in range(plan.kills))
        began = monotonic()
        killed: list[str] = []
        restarts: dict[str, asyncio.Task[None]] = {}
        for moment in moments:
            await asyncio.sleep(max(0.0, began + moment - monotonic()))
            whole = [
                each
                for each in self._world.victims()
                if each.name not in restarts or restarts[each.name].done()
            ]
            if not whole:
                continue
            victim = self._random.choice(whole)
            if self._random.random() < plan.gentle:
                killed.append(f"{victim.name} (TERM)")
                victim.stop()
            else:
                killed.append(victim.name)
                victim.kill()
            restarts[victim.name] = asyncio.create_task(self._restart(victim))
        await asyncio.gather(*restarts.values())
        await asyncio.sleep(max(0.0, began + plan.load - monotonic()))
        return killed

    async def _restart(self, victim: Victim) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 0.5))
        await victim.restart()

    async def _drain(self, found: Round) -> None:
        folder = Path(tempfile.gettempdir())
        async with opened(self._world.store_url, folder) as store:
            until = monotonic() + DRAIN_S
            while (left := await depth(store)) and monotonic() < until:
                await asyncio.sleep(0.05)
            if left:
                found.faults.append(f"{left} deliveries are not settled after {DRAIN_S:.0f} s")
            found.faults += await faults_of_store(store, self._senders.accepted)
        accepted = self._senders.accepted
        found.faults += faults_of_deliveries(accepted, self._upstream.calls)
        told = self._upstream.callbacks
        untold = [each for each in accepted.events.values() if each not in told]
        found.faults += [f"nobody was told of {each}" for each in untold]

    def _count(self, found: Round) -> None:
        """What came since the round before."""
        accepted, calls = self._senders.accepted, self._upstream.calls
        now = Counter(
            accepted=len(accepted.events),
            asked=accepted.asked,
            deliveries=len(calls),
            repeats=repeats_of(calls),
            late=late_repeats(calls),
        )
        for name, value in now.items():
            setattr(found, name, value - self._before[name])
        self._before = now
