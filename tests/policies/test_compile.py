"""The chain compiler: order, refusals, failures, report mode."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import ACCESS_DENIED, CONNECT_FAILED, Refused, Rejection, UpstreamError
from gateway.message import Exchange, Handler, Headers, Request, Response
from gateway.policies.base import Around, Guard, Policy
from gateway.policies.compile import compile_chain


def exchange() -> Exchange:
    """An exchange that nobody routed."""
    return Exchange(Request("GET", "/", b"", Headers([])), 0.0)


class Trace:
    """What happened, in order, and what was reported."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.reports: list[tuple[str, str, str]] = []

    def report(self, route: str, policy: str, code: str) -> None:
        self.reports.append((route, policy, code))

    def guard(self, name: str, rejection: Rejection | None = None) -> Guard:
        steps = self.steps

        class Noting(Guard):
            async def check(self, exchange: Exchange) -> Rejection | None:
                steps.append(name)
                return rejection

        Noting.name = name
        return Noting()

    def around(self, name: str, refuse: bool = False) -> Around:
        steps = self.steps

        class Noting(Around):
            async def handle(self, exchange: Exchange, forward: Handler) -> Response:
                steps.append(f"{name} in")
                if refuse:
                    raise Refused(Rejection(ACCESS_DENIED))
                try:
                    return await forward(exchange)
                finally:
                    steps.append(f"{name} out")

        Noting.name = name
        return Noting()

    async def terminal(self, exchange: Exchange) -> Response:
        self.steps.append("terminal")
        return Response(200, [], b"ok")

    def compile(self, *policies: Policy, terminal: Any = None, reporting: str = "") -> Handler:
        names = frozenset(reporting.split())
        return compile_chain(policies, terminal or self.terminal, names, self.report)


async def test_policies_run_in_the_order_given() -> None:
    """Guards and Arounds may alternate; each runs where it stands."""
    trace = Trace()
    handler = trace.compile(
        trace.guard("a"), trace.around("b"), trace.guard("c"), trace.guard("d"), trace.around("e")
    )

    response = await handler(exchange())

    assert response.status == 200
    assert trace.steps == ["a", "b in", "c", "d", "e in", "terminal", "e out", "b out"]


async def test_no_policies_cost_nothing() -> None:
    """A chain without policies is the terminal itself."""
    trace = Trace()

    assert trace.compile() == trace.terminal


async def test_a_guard_that_refuses_ends_the_chain() -> None:
    """What stands behind it does not run; the Arounds before it see a problem response."""
    trace = Trace()
    handler = trace.compile(
        trace.around("a"), trace.guard("b", Rejection(ACCESS_DENIED, "no")), trace.guard("c")
    )
    subject = exchange()

    response = await handler(subject)

    assert response.status == 403
    assert response.error is ACCESS_DENIED
    assert subject.error is ACCESS_DENIED
    assert trace.steps == ["a in", "b", "a out"]


async def test_report_mode_lets_a_refused_request_pass() -> None:
    """The refusal is counted and noted on the exchange, and the answer is the upstream's."""
    trace = Trace()
    handler = trace.compile(trace.guard("a", Rejection(ACCESS_DENIED)), reporting="a")
    subject = exchange()
    subject.route = "orders"

    response = await handler(subject)

    assert response.status == 200
    assert subject.error is None
    assert subject.reported == ["a:access_denied"]
    assert trace.reports == [("orders", "a", "access_denied")]


async def test_report_mode_of_an_around_forwards_once() -> None:
    """An Around that would have refused is passed over, and the rest runs exactly once."""
    trace = Trace()
    handler = trace.compile(trace.around("a", refuse=True), reporting="a")

    response = await handler(exchange())

    assert response.status == 200
    assert trace.steps == ["a in", "terminal"]
    assert [policy for _, policy, _ in trace.reports] == ["a"]


async def test_report_mode_does_not_soften_what_comes_from_further_in() -> None:
    """A refusal by an inner Around in enforce mode stays a refusal, and is not run twice."""
    trace = Trace()
    handler = trace.compile(trace.around("a"), trace.around("b", refuse=True), reporting="a")

    with pytest.raises(Refused):
        await handler(exchange())

    assert trace.steps == ["a in", "b in", "a out"]
    assert trace.reports == []


async def test_failures_pass_through_every_layer() -> None:
    """An exception of the terminal reaches the caller, and every Around sees it go by."""
    trace = Trace()

    async def fail(exchange: Exchange) -> Response:
        raise UpstreamError(CONNECT_FAILED)

    handler = trace.compile(trace.around("a"), trace.guard("b"), terminal=fail, reporting="a")

    with pytest.raises(UpstreamError):
        await handler(exchange())

    assert trace.steps == ["a in", "b", "a out"]


def test_a_policy_must_be_one_of_the_two_shapes() -> None:
    """A class that is neither is a programming error, found when the chain is built."""
    trace = Trace()
    stranger = Policy()
    stranger.name = "stranger"  # type: ignore[misc]

    with pytest.raises(TypeError, match="neither"):
        trace.compile(stranger)


@pytest.mark.parametrize("refused", [None, "b", "d"])
async def test_guards_that_wait_now_and_then(refused: str | None) -> None:
    """A plain guard may return an awaitable: the chain waits there, and goes on in order."""
    trace = Trace()

    class Sometimes(Guard):
        name = "sometimes"

        def __init__(self, label: str) -> None:
            self.label, self.waits = label, label in "bd"

        def check(self, exchange: Exchange) -> Any:
            trace.steps.append(self.label)
            rejection = Rejection(ACCESS_DENIED) if self.label == refused else None
            return self.later(rejection) if self.waits else rejection

        async def later(self, rejection: Rejection | None) -> Rejection | None:
            await asyncio.sleep(0)
            return rejection

    handler = trace.compile(*map(Sometimes, "abcde"))
    response = await handler(exchange())

    expected = "abcde" if refused is None else "abcde"[: "abcde".index(refused) + 1]
    assert trace.steps == [*expected, *(["terminal"] if refused is None else [])]
    assert response.status == (200 if refused is None else 403)
