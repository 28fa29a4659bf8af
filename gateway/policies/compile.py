"""From the policies of a route to one callable, folded once when the configuration is loaded.

Neighbouring guards share one loop; an Around costs one await; a policy that a route does not use is
not there. `mode: report` is implemented here, once, for every policy that can refuse.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from gateway.errors import Refused, Rejection
from gateway.message import Exchange, Handler, Response
from gateway.policies.base import Around, Guard, Policy

Report = Callable[[str, str, str], None]
IsOn = Callable[[Exchange], bool]
Handle = Callable[[Exchange, Handler], Awaitable[Response]]
Check = Callable[[Exchange], Awaitable[Rejection | None] | Rejection | None]

NO_SWITCHES: Final[Mapping[str, IsOn]] = {}


def compile_chain(
    policies: Sequence[Policy],
    terminal: Handler,
    reporting: frozenset[str],
    report: Report,
    switches: Mapping[str, IsOn] = NO_SWITCHES,
) -> Handler:
    """Fold `policies`, outermost first, around `terminal`.

    `reporting` names the policies in `mode: report`; `report(route, policy, code)` is called for
    each refusal that such a policy did not enforce. `switches` say for each exchange whether a
    policy takes part, by its name.
    """
    handler = terminal
    guards: list[Guard] = []
    for policy in reversed(policies):
        if isinstance(policy, Guard):
            guard = _ReportingGuard(policy, report) if policy.name in reporting else policy
            if policy.name in switches:
                guard = _SwitchedGuard(guard, switches[policy.name])
            guards.insert(0, guard)
            continue
        if not isinstance(policy, Around):
            raise TypeError(f"policy {policy.name} is neither a Guard nor an Around")
        handler = _fold_guards(guards, handler)
        guards = []
        around = _ReportingAround(policy, report) if policy.name in reporting else policy
        if policy.name in switches:
            around = _SwitchedAround(around, switches[policy.name])
        handler = _wrap(around.handle, handler)
    return _fold_guards(guards, handler)


def _wrap(handle: Handle, forward: Handler) -> Handler:
    # A partial would make a dictionary of its keyword for each request.
    def wrapped(exchange: Exchange) -> Awaitable[Response]:
        return handle(exchange, forward)

    return wrapped


def _fold_guards(guards: Sequence[Guard], forward: Handler) -> Handler:
    if not guards:
        return forward
    return partial(_check, tuple(guard.check for guard in guards), forward)


def _check(checks: Sequence[Check], forward: Handler, exchange: Exchange) -> Awaitable[Response]:
    # Not a coroutine itself: what stands further in is handed to whoever awaits this. Only a guard
    # that really waits for something makes one.
    left = iter(checks)
    for check in left:
        rejection = check(exchange)
        if rejection is not None:
            if isinstance(rejection, Rejection):
                return _refuse(exchange, rejection)
            return _check_waiting(rejection, left, forward, exchange)
    return forward(exchange)


async def _check_waiting(
    waiting: Awaitable[Rejection | None],
    left: Iterator[Check],
    forward: Handler,
    exchange: Exchange,
) -> Response:
    rejection = await waiting
    if rejection is not None:
        return exchange.refuse(rejection)
    for check in left:
        outcome = check(exchange)
        if outcome is not None and not isinstance(outcome, Rejection):
            outcome = await outcome
        if outcome is not None:
            return exchange.refuse(outcome)
    return await forward(exchange)


async def _refuse(exchange: Exchange, rejection: Rejection) -> Response:
    return exchange.refuse(rejection)


def _note(exchange: Exchange, policy: str, rejection: Rejection, report: Report) -> None:
    code = rejection.kind.code
    report(exchange.route, policy, code)
    if exchange.reported is None:
        exchange.reported = []
    exchange.reported.append(f"{policy}:{code}")


class _ReportingGuard(Guard):
    def __init__(self, guard: Guard, report: Report) -> None:
        self._guard = guard
        self._report = report

    async def check(self, exchange: Exchange) -> None:
        rejection = self._guard.check(exchange)
        if rejection is not None and not isinstance(rejection, Rejection):
            rejection = await rejection
        if rejection is not None:
            _note(exchange, self._guard.name, rejection, self._report)


class _ReportingAround(Around):
    def __init__(self, around: Around, report: Report) -> None:
        self._around = around
        self._report = report

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        passed = False

        async def once(exchange: Exchange) -> Response:
            nonlocal passed
            passed = True
            return await forward(exchange)

        try:
            return await self._around.handle(exchange, once)
        except Refused as refusal:
            # A refusal that comes from further in is not this policy's to soften.
            if passed:
                raise
            _note(exchange, self._around.name, refusal.rejection, self._report)
        return await forward(exchange)


class _SwitchedGuard(Guard):
    def __init__(self, guard: Guard, is_on: IsOn) -> None:
        self._guard = guard
        self._is_on = is_on

    def check(self, exchange: Exchange) -> Rejection | Awaitable[Rejection | None] | None:
        return self._guard.check(exchange) if self._is_on(exchange) else None


class _SwitchedAround(Around):
    def __init__(self, around: Around, is_on: IsOn) -> None:
        self._around = around
        self._is_on = is_on

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        if self._is_on(exchange):
            return await self._around.handle(exchange, forward)
        return await forward(exchange)
