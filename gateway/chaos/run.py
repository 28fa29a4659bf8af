"""One rehearsal from begin to end: the gateway as it is, stand-ins around it, phases, a verdict.

The data path is the real one, `Runtime` and `LocalPlane`, with real sockets on both sides. All of
it runs in this process and event loop; only the store's engine is a process of its own, which the
kernel ends with this one. See `load.py` for what that means for figures.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from random import Random
from typing import Final

from gateway.admin.describe import explain
from gateway.chaos import course
from gateway.chaos.credentials import NoStandIn, Wallet
from gateway.chaos.described import Described, Descriptions
from gateway.chaos.load import Clients
from gateway.chaos.report import Report, counted, describe_phase
from gateway.chaos.requests import Maker, address_for
from gateway.chaos.scenario import Load, Phase, Scenario, Trouble, Written, fault_of
from gateway.chaos.standin import Answer, Ledger, StandIn
from gateway.chaos.store import StoreStandIn, make_folder
from gateway.chaos.substitute import FLAG, asks_for_tokens, substitute, without_certificates
from gateway.chaos.verdict import (
    Course,
    RouteFacts,
    RouteVerdict,
    Sample,
    judge,
    recovery,
    success,
    usual,
)
from gateway.config.model import RouteConfig
from gateway.config.types import Address
from gateway.contracts.files import Files
from gateway.loading import make_library
from gateway.observability.resilience import BREAKER_CHANGES, RETRIES
from gateway.policies.auth.policy import AuthConfig
from gateway.runtime import Loaded, Runtime
from gateway.server.bind import bind
from gateway.server.local import LocalPlane

_LAG_EVERY_S: Final = 0.05
# From here on, latencies tell more about the machine than about the gateway.
_LAGGING_S: Final = 0.25


async def rehearse(
    loaded: Loaded,
    written: Written,
    *,
    only: Collection[str] = (),
    seed: int = 0,
    tell: Callable[[str], None],
) -> Report:
    """Run one scenario. Raises ConfigErrors for names that the configuration does not have.

    `only` names the routes to ask, all of them if empty. `tell` is told how far it is. Nothing of
    it is left afterwards, also if it is cancelled.
    """
    gateway = loaded.configuration.gateway
    written.check_names([route.name for route in gateway.routes], gateway.upstreams)
    async with AsyncExitStack() as stack:
        return await _Rehearsal(loaded, written.scenario, only, seed, tell).run(stack)


class _Rehearsal:
    def __init__(
        self,
        loaded: Loaded,
        scenario: Scenario,
        only: Collection[str],
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self._loaded = loaded
        self._gateway = loaded.configuration.gateway
        self._scenario = scenario
        self._routes = course.chosen(self._gateway, scenario, only)
        self._seed = seed
        self._tell = tell
        self._report = Report(scenario.name, scenario.about, seed)
        self._skipped: dict[str, str] = {}
        self._ledger = Ledger()
        self._standins: dict[str, list[StandIn]] = {}
        self._answers: dict[str, Answer] = {}
        self._began = time.monotonic()

    async def run(self, stack: AsyncExitStack) -> Report:
        folder = make_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store = StoreStandIn(folder)
        stack.push_async_callback(store.aclose)
        for name, upstream in self._gateway.upstreams.items():
            self._standins[name] = [
                await self._stand_in(name, place, stack) for place in range(len(upstream.targets))
            ]
        asks = [each for route in self._routes if (each := _auth(route)) is not None]
        wallet = Wallet(self._gateway.identities, asks, folder, self._rng("wallet"))
        identities = wallet.replaced(await self._endpoints(wallet, stack))
        self._report.notes += wallet.notes
        loaded = substitute(
            self._loaded,
            ports={name: [each.port for each in group] for name, group in self._standins.items()},
            identities=identities,
            store=folder / "store",
            forwarded=self._need_addresses(),
        )
        plane = await self._serve(loaded, store, stack)
        makers = self._makers(wallet, plane)
        self._ledger.answers = self._answers
        self._note_what_is_off(store)
        port = int(plane.addresses()[0].rpartition(":")[2])
        clients = Clients(
            makers, port, self._now, give_up=self._scenario.give_up,
            keep_alive=self._gateway.server.timeouts.keep_alive,
        )  # fmt: skip
        stack.push_async_callback(clients.aclose)
        lag = asyncio.create_task(self._measure_lag())
        stack.callback(lag.cancel)
        if makers:
            stretch = await self._play(clients, store)
            await clients.finish()
            self._judge(clients, stretch)
        self._conclude(plane, clients)
        return self._report

    def _rng(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")  # noqa: S311 - what happens must be repeatable

    def _now(self) -> float:
        return time.monotonic() - self._began

    # ------------------------------------------------------------------------------ the stage

    async def _stand_in(self, name: str, place: int, stack: AsyncExitStack) -> StandIn:
        made = StandIn(name, self._ledger, self._rng(f"{name}/{place}"), self._now)
        stack.push_async_callback(made.aclose)
        await made.start()
        return made

    async def _endpoints(self, wallet: Wallet, stack: AsyncExitStack) -> dict[str, str]:
        """A server for each introspection endpoint, as URLs by identity."""
        default: dict[str, Answer] = {}
        urls = {}
        for name, answer in wallet.introspections().items():
            default[f"identity {name}"] = answer
            server = await self._stand_in(f"identity {name}", 0, stack)
            urls[name] = f"http://127.0.0.1:{server.port}/introspect"
        self._ledger.default = default
        return urls

    def _need_addresses(self) -> bool:
        found = False
        for route in self._routes:
            try:
                found |= address_for(route) is not None
            except NoStandIn as error:
                self._skipped[route.name] = str(error)
        return found

    async def _serve(
        self, loaded: Loaded, store: StoreStandIn, stack: AsyncExitStack
    ) -> LocalPlane:
        runtime = Runtime(rng=self._rng("gateway"), instance="chaos", engines=store)
        sockets = bind(Address("127.0.0.1", 0), "the rehearsal's listener")[0]
        plane = LocalPlane(runtime, sockets)
        stack.push_async_callback(plane.aclose)
        await plane.apply(loaded)
        return plane

    def _makers(self, wallet: Wallet, plane: LocalPlane) -> list[Maker]:
        describe = self._descriptions()
        makers = []
        for route in self._routes:
            try:
                makers.append(self._maker(route, describe, wallet, plane))
            except NoStandIn as error:
                self._skipped[route.name] = str(error)
        # Which route begins is chance, and always the same for one seed.
        self._rng("order").shuffle(makers)
        return makers

    def _maker(
        self, route: RouteConfig, describe: Descriptions, wallet: Wallet, plane: LocalPlane
    ) -> Maker:
        auth = _auth(route)
        if auth is not None and not without_certificates(auth, self._gateway):
            raise NoStandIn("it asks for a client certificate, which can't be stood in for")
        given = self._scenario.requests.get(route.name)
        maker = Maker(route, describe.of, wallet, given, self._rng(route.name))
        target, fields, _ = maker.probe(0)
        found = explain(plane.runtime.snapshot, maker.method, target, fields)
        taken = found.route.name if found.route is not None else f"none ({found.code})"
        if taken != route.name:
            what = f"{maker.method} {target}"
            raise NoStandIn(f"the route that takes {what} is {taken}; give requests.{route.name}")
        answer = self._answer(route, maker.described)
        if answer is not None:
            self._answers[route.name] = answer
        return maker

    def _descriptions(self) -> Descriptions:
        configuration = self._loaded.configuration
        library = self._loaded.library or make_library(configuration)
        files = Files(configuration.base_dir, configuration.content)
        return Descriptions(self._gateway, library, files)

    def _answer(self, route: RouteConfig, described: Described) -> Answer | None:
        given = self._scenario.answers.get(route.name)
        if given is not None:
            return Answer.json(given.json_body, given.status, given.headers)
        if described.has_answer:
            return Answer.json(described.answer, described.status)
        return None

    def _note_what_is_off(self, store: StoreStandIn) -> None:
        notes = self._report.notes
        for name, upstream in self._gateway.upstreams.items():
            if asks_for_tokens(upstream.policies):
                notes.append(f"upstream {name}: no token is fetched for it")
        for route in self._routes:
            if FLAG in route.policies:
                notes.append(f"route {route.name}: its flag is on for everybody")
        if not store.is_used and any(each.store != "up" for each in self._scenario.phases):
            notes.append("nothing here uses a store, so its trouble changes nothing")

    # ------------------------------------------------------------------------------ the play

    async def _play(self, clients: Clients, store: StoreStandIn) -> Course:
        """Go through the phases."""
        phases = self._scenario.phases
        fault = fault_of(phases)
        begins = ends = None
        load: Load | None = None
        self._began = time.monotonic()
        for place, phase in enumerate(phases):
            self._tell(f"{self._scenario.name}: {describe_phase(phase)}")
            start = self._now()
            if fault is not None and place == fault[0]:
                begins = start
            wanted = phase.load or self._scenario.load
            if wanted != load:
                load = wanted
                await clients.settle(load)
            await self._settle(phase, store)
            if fault is not None and place == fault[1] + 1:
                ends = self._now()
            await self._last(phase, start + phase.length, clients, (begins, ends))
        if begins is not None and ends is None:
            ends = self._now()
        return Course(self._now(), begins, ends)

    async def _settle(self, phase: Phase, store: StoreStandIn) -> None:
        for name, group in self._standins.items():
            trouble = self._scenario.trouble(phase, name)
            for place, each in enumerate(group):
                met = trouble.targets is None or place < trouble.targets
                await each.settle(trouble if met else Trouble())
        await store.settle(phase.store, phase.length)

    async def _last(
        self,
        phase: Phase,
        until: float,
        clients: Clients,
        fault: tuple[float | None, float | None],
    ) -> None:
        """Let the phase last its time, or until every route has recovered."""
        begins, ends = fault
        step = self._scenario.window / 10
        while (left := until - self._now()) > 0:
            if phase.until is None or begins is None or ends is None:
                await asyncio.sleep(left)
            elif self._all_recovered(clients, begins, ends):
                return
            else:
                await asyncio.sleep(min(left, step))

    def _all_recovered(self, clients: Clients, begins: float, ends: float) -> bool:
        now, window = self._now(), self._scenario.window
        if now < ends + window:
            return False
        found: dict[str, list[Sample]] = {}
        record = clients.record
        for sample in record.samples:
            found.setdefault(sample.route, []).append(sample)
        for number, (route, sent) in record.pending.items():
            found.setdefault(route, []).append(Sample(route, number, sent, now, 0))
        for samples in found.values():
            samples.sort(key=lambda each: each.sent)
            ratio = success(usual(samples, begins))
            if ratio and recovery(samples, ends, now, ratio=ratio, window=window) is None:
                return False
        return True

    async def _measure_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            late = time.monotonic() - before - _LAG_EVERY_S
            self._report.lag = max(self._report.lag, late)

    # ---------------------------------------------------------------------------- the verdict

    def _judge(self, clients: Clients, stretch: Course) -> None:
        samples = clients.record.samples
        begin, end = stretch.judged
        failures: dict[str, int] = {}
        for each in samples:
            if each.failed and begin <= each.sent < end:
                failures[each.route] = failures.get(each.route, 0) + 1
        self._report.seconds = stretch.length
        for route in self._routes:
            if route.name in self._skipped:
                continue
            facts = RouteFacts(
                route.name,
                ", ".join(course.upstreams_of(route)),
                course.in_trouble(route, self._gateway, self._scenario),
                course.calls_of(route, self._ledger.calls),
            )
            self._report.routes.append(
                judge(
                    facts, samples, stretch, self._scenario.expectation(route.name),
                    window=self._scenario.window, failures=failures,
                )
            )  # fmt: skip

    def _conclude(self, plane: LocalPlane, clients: Clients) -> None:
        report, record = self._report, clients.record
        report.sent, report.not_sent = record.sent, record.not_sent
        judged = {each.route: each for each in report.routes}
        report.routes = [
            judged.get(route.name)
            or RouteVerdict(
                route.name, route.upstream or "", in_trouble=False,
                skipped=self._skipped.get(route.name, "no request was sent"),
            )
            for route in self._routes
        ]  # fmt: skip
        report.ok = bool(judged) and all(each.ok for each in report.routes)
        if not judged:
            report.notes.append("no route could be asked, so nothing was shown")
        for name, upstream in self._gateway.upstreams.items():
            strangers = self._ledger.strangers(name)
            if strangers and upstream.health is None:
                what = "a policy seems to take the field away that numbers requests"
                report.notes.append(f"upstream {name}: {strangers} requests of no client: {what}")
        if report.not_sent:
            report.notes.append(f"{report.not_sent} requests were not sent: too many under way")
        if report.lag > _LAGGING_S:
            late = f"{report.lag * 1000:.0f} ms"
            report.notes.append(f"the machine was busy (up to {late} late): don't trust latencies")
        report.breakers = counted(plane.runtime.metrics, BREAKER_CHANGES.name, "state")
        report.retries = counted(plane.runtime.metrics, RETRIES.name, "result")


def _auth(route: RouteConfig) -> AuthConfig | None:
    config = route.policies.get("auth")
    return config if isinstance(config, AuthConfig) else None
