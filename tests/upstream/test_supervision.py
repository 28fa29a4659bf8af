"""The roster driven by a real upstream: slow start by a clock, what is told, what counts."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.errors import NO_HEALTHY_TARGET, UpstreamError
from gateway.observability.metrics import Metrics
from gateway.upstream import Upstream
from tests.support.replica import Replica
from tests.support.scripted import ScriptedUpstream, answer_then_close, respond
from tests.support.sending import eventually, fetch, make_exchange, read, running

OUTLIERS = {"consecutive_failures": 1, "eject_for": "30s", "max_ejected": "50%"}


async def names(upstream: Upstream, count: int) -> Counter[str]:
    """Who answered."""
    return Counter([(await fetch(upstream)).decode() for _ in range(count)])


def shown(upstream: Upstream, replica: Replica) -> dict[str, Any]:
    return next(each for each in upstream.status()["targets"] if each["target"] == replica.label)


def advance(upstream: Upstream, clock: ManualClock, seconds: float) -> None:
    """Let time pass, as the timer would."""
    clock.advance(seconds)
    supervision = upstream._supervision
    assert supervision is not None
    supervision._advance()


@pytest.mark.parametrize("balance", ["round_robin", "least_requests", "p2c"])
async def test_slow_start(balance: str) -> None:
    """A target that is back gets a tenth of its share, half of it half-way, then all of it."""
    clock = ManualClock()
    async with Replica("a") as a, Replica("b") as b:
        async with running(
            a.url, b.url, clock=clock, balance=balance, outliers=OUTLIERS, slow_start="100s"
        ) as upstream:
            a.status = 500
            await names(upstream, 12)
            a.status = 200
            assert await names(upstream, 10) == {"b": 10}
            advance(upstream, clock, 30)
            assert (shown(upstream, a)["state"], shown(upstream, a)["share"]) == ("ramping", 0.1)
            assert 1 <= (await names(upstream, 100))["a"] <= 7
            advance(upstream, clock, 50)
            assert shown(upstream, a)["share"] == 0.5
            assert 10 <= (await names(upstream, 100))["a"] <= 28
            advance(upstream, clock, 50)
            assert shown(upstream, a)["state"] == "healthy"
            assert 30 <= (await names(upstream, 100))["a"] <= 70


async def test_slow_start_on_a_ring() -> None:
    """The keys of a target that is back come home step by step."""
    clock = ManualClock()
    async with Replica("a") as a, Replica("b") as b:
        async with running(
            a.url, b.url, clock=clock, balance="hash(ip)", outliers=OUTLIERS, slow_start="100s"
        ) as upstream:

            async def homes() -> set[int]:
                """The clients whose target is `a`."""
                found = set()
                for number in range(60):
                    exchange = make_exchange(client=f"192.0.2.{number}")
                    if await read(await upstream.send(exchange, "GET", b"/")) == b"a":
                        found.add(number)
                return found

            before = await homes()
            a.status = 500
            await homes()
            a.status = 200
            assert await homes() == set()
            advance(upstream, clock, 30)
            first = await homes()
            advance(upstream, clock, 60)
            second = await homes()
            advance(upstream, clock, 60)
            assert first < second < before == await homes()


async def test_flapping() -> None:
    """A target that works every other moment is out for longer each time, and forgiven later."""
    clock = ManualClock()
    async with Replica("a") as a, Replica("b") as b:
        async with running(
            a.url, b.url, clock=clock, outliers=OUTLIERS, slow_start="0s"
        ) as upstream:
            times = []
            for _ in range(4):
                a.status = 500
                await names(upstream, 2)
                times.append(shown(upstream, a)["ejected_for"])
                a.status = 200
                advance(upstream, clock, times[-1] + 0.01)
                await names(upstream, 2)
            for shorter, longer in itertools.pairwise(times):
                assert 1.7 * shorter < longer < 2.3 * shorter
            clock.advance(3600)
            a.status = 500
            await names(upstream, 2)
            assert shown(upstream, a)["ejected_for"] <= 30


async def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    """When all fail, that a target is not ejected is counted each time, and said now and then."""
    clock, metrics = ManualClock(), Metrics(ManualClock())
    outliers = {**OUTLIERS, "max_ejected": "0%"}
    async with Replica("a") as a:
        a.status = 500
        options = {"metrics": metrics}
        async with running(a.url, clock=clock, outliers=outliers, options=options) as upstream:
            await names(upstream, 20)
            clock.advance(10)
            await names(upstream, 20)
            [family] = [each for each in metrics.snapshot().families
                        if each.declaration.name == "gateway_upstream_ejections_total"]  # fmt: skip
            assert [(each.labels, each.value) for each in family.samples] == [
                (("orders", a.label, "suppressed", "500"), 40)
            ]
    assert caplog.text.count("is not ejected (500): too many targets are out") == 2


async def test_nobody_is_left() -> None:
    """Both ways to send say so, with the time until the next check or the end of an ejection."""
    async with Replica("a") as a, Replica("b") as b:
        async with running(
            a.url, b.url, clock=ManualClock(), panic="0%",
            outliers={**OUTLIERS, "max_ejected": "100%"},
        ) as upstream:  # fmt: skip
            a.status = b.status = 500
            await names(upstream, 2)
            for send in (
                lambda: upstream.send(make_exchange(), "GET", b"/"),
                lambda: upstream.connect_websocket(make_exchange(), b"/"),
            ):
                with pytest.raises(UpstreamError) as caught:
                    await send()
                assert (caught.value.kind, caught.value.sent) == (NO_HEALTHY_TARGET, False)
                [(name, value)] = caught.value.headers
                assert name == b"retry-after"
                assert 26 <= int(value) <= 30


async def test_websockets_count() -> None:
    """A handshake that is answered by an error is a failed request."""
    async with Replica("a") as a, Replica("b") as b:
        a.status = b.status = 502
        async with running(a.url, b.url, outliers=OUTLIERS) as upstream:
            exchange = make_exchange(headers=[(b"host", b"a")])
            exchange.subprotocols = []
            response = await upstream.connect_websocket(exchange, b"/")
            response.close()
            states = [each["state"] for each in upstream.status()["targets"]]
            assert sorted(states) == ["ejected", "healthy"]
            await eventually(
                lambda: all(not each["active"] for each in upstream.status()["targets"])
            )


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    """Its head alone is no success: a target that always breaks off is ejected."""
    broken = respond(b"half", "200 OK")[:-2].replace(b"4", b"9", 1)
    outliers = {**OUTLIERS, "consecutive_failures": 2, "max_ejected": "100%"}
    async with ScriptedUpstream(answer_then_close(broken)) as server:
        async with running(server.url, outliers=outliers) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamError):
                    await fetch(upstream)
            assert upstream.status()["targets"][0]["state"] == "ejected"
            assert upstream.status()["panic"]


async def test_a_check_that_raises_is_no_end_of_checks(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in one, the next one is made."""
    health = {"path": "/healthz", "every": "50ms"}
    async with Replica("a") as a, running(a.url, health=health) as upstream:
        await eventually(lambda: a.checks > 0)
        supervision = upstream._supervision
        assert supervision is not None
        settle, calls = supervision._settle, []

        def broken() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("oops")
            settle()

        supervision._settle = broken  # type: ignore[method-assign]
        await eventually(lambda: len(calls) > 2)
        assert f"checking {a.label} of orders failed" in caplog.text


async def test_closing_stops_everything() -> None:
    """No task, no timer and no connection is left, whatever was under way."""
    health = {"path": "/healthz", "every": "50ms"}
    async with Replica("a") as a, Replica("b") as b:
        a.health_hangs = b.health_hangs = True
        a.status = 500
        async with running(a.url, b.url, health=health, outliers=OUTLIERS) as upstream:
            await names(upstream, 2)
            await eventually(lambda: a.checks + b.checks >= 2)
            supervision = upstream._supervision
            assert supervision is not None
            assert supervision._timer is not None
            assert len(supervision._tasks) == 2
        assert supervision._timer is None
        await asyncio.sleep(0)
        assert not supervision._tasks
        await eventually(lambda: not a.connections and not b.connections)
