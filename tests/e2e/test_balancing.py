"""Health, ejection, failover and hashing over real sockets: what clients see when targets fail."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, eventually
from tests.support.replica import Replica

CHECKS = "{path: /healthz, every: 50ms, unhealthy_after: 2, healthy_after: 2}"


def config(targets: list[Replica] | str, keys: str, more: str = "") -> str:
    """An upstream `api` of these targets, and one route to it."""
    if not isinstance(targets, str):
        targets = ", ".join(f'"{each.url}"' for each in targets)
    return f"""\
upstreams:
  api: {{targets: [{targets}], slow_start: 0s, {keys}}}
routes:
  - {{name: any, match: {{path: "/{{rest:path}}"}}, upstream: api{more}}}
"""


def with_three(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Gives a test three targets; pytest's own fixtures can't be asynchronous here."""

    @functools.wraps(test)
    async def run(**fixtures: Any) -> None:
        async with Replica("a") as a, Replica("b") as b, Replica("c") as c:
            await test(replicas=[a, b, c], **fixtures)

    signature = inspect.signature(test)
    rest = [each for each in signature.parameters.values() if each.name != "replicas"]
    run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return run


def state(gateway: RunningGateway, replica: Replica) -> str:
    """What the admin API says of it."""
    return str(shown(gateway, replica)["state"])


def shown(gateway: RunningGateway, replica: Replica) -> dict[str, Any]:
    """All that the admin API says of it."""
    return next(each for each in gateway.targets() if each["target"] == replica.label)


async def ask(client: httpx.AsyncClient, count: int = 12, **options: Any) -> Counter[str]:
    """Who answered: names, or the codes of problems."""
    found: Counter[str] = Counter()
    for _ in range(count):
        got = await client.get("/", **options)
        problem = got.headers.get("content-type", "")
        found[got.json()["code"] if "problem" in problem else got.text] += 1
    return found


@with_three
async def test_a_target_dies_and_comes_back(
    serve: Serve, replicas: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    """Checks take it out before its connections would be tried, and bring it back by themselves."""
    a, *_ = replicas
    caplog.set_level(logging.INFO, "gateway.upstream")
    async with serve(config(replicas, f"health: {CHECKS}")) as gateway, gateway.client() as client:
        assert await ask(client) == {"a": 4, "b": 4, "c": 4}
        checks = "gateway_upstream_health_checks_total"
        # The first result of all would decide alone.
        await eventually(lambda: gateway.metric(checks, target=a.label, result="passed") > 0)
        await a.die()
        await eventually(lambda: state(gateway, a) == "unhealthy")
        before = shown(gateway, a)["failures"]
        assert await ask(client) == {"b": 6, "c": 6}
        assert shown(gateway, a)["failures"] == before
        assert shown(gateway, a)["reason"].endswith("Connection refused")
        healthy = "gateway_upstream_target_healthy"
        assert gateway.metric(healthy, upstream="api", target=a.label) == 0
        assert gateway.metric(healthy, upstream="api") == 2
        # One that was under way when it died ends in another way.
        under_way = [
            gateway.metric(checks, target=a.label, result=each) for each in ("reset", "invalid")
        ]
        refused = gateway.metric(checks, target=a.label, result="connect")
        assert refused >= 1
        assert refused + sum(under_way) >= 2
        await a.revive()
        await eventually(lambda: state(gateway, a) == "healthy")
        assert gateway.metric(healthy, upstream="api") == 3
        assert await ask(client) == {"a": 4, "b": 4, "c": 4}
        await gateway.quiet()
    assert f"upstream api: {a.label} is unhealthy: {a.label}: Connection refused" in caplog.text
    assert f"upstream api: {a.label} is healthy again" in caplog.text


@with_three
async def test_a_target_that_is_down_at_the_start(
    serve_lean: Serve, replicas: list[Replica]
) -> None:
    """Its first check is enough; nothing waits for it, and the others serve meanwhile."""
    a, b, c = replicas
    await a.die()
    checks = "{path: /healthz, every: 1h, unhealthy_after: 3, timeout: 1s}"
    async with serve_lean(config(replicas, f"health: {checks}")) as gateway:
        async with gateway.client() as client:
            assert "a" not in await ask(client, 3)
            await eventually(lambda: state(gateway, a) == "unhealthy")
            assert (b.checks, c.checks) <= (1, 1)


@with_three
async def test_a_health_page_that_fails(serve_lean: Serve, replicas: list[Replica]) -> None:
    """A target that says it is not well gets nothing, though it would answer."""
    a, *_ = replicas
    async with serve_lean(config(replicas, f"health: {CHECKS}")) as gateway:
        async with gateway.client() as client:
            await eventually(lambda: a.checks > 1)
            a.health = 503
            await eventually(lambda: state(gateway, a) == "unhealthy")
            assert shown(gateway, a)["reason"] == "answered 503"
            assert await ask(client) == {"b": 6, "c": 6}


@with_three
async def test_a_target_that_answers_500(
    serve: Serve, replicas: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    """It is ejected, comes back on probation, goes again for twice as long, and is forgiven."""
    a, *_ = replicas
    a.status = 500
    keys = "outliers: {consecutive_failures: 3, eject_for: 300ms}"
    async with serve(config(replicas, keys)) as gateway, gateway.client() as client:
        # No more than it takes: the ejection is short.
        assert (await ask(client, 9))["a"] == 3
        assert (state(gateway, a), shown(gateway, a)["reason"]) == ("ejected", "500")
        assert shown(gateway, a)["ejected_for"] <= 0.3
        assert (await ask(client, 3))["a"] == 0
        await eventually(lambda: state(gateway, a) == "healthy")
        assert (await ask(client, 6))["a"] == 1
        assert shown(gateway, a)["ejections"] == 2
        family = "gateway_upstream_ejections_total"
        assert gateway.metric(family, target=a.label, result="ejected", reason="500") == 2
        a.status = 200
        await eventually(lambda: state(gateway, a) == "healthy")
        assert await ask(client, 12) == {"a": 4, "b": 4, "c": 4}
        await gateway.quiet()
    assert f"upstream api: {a.label} is ejected for" in caplog.text


@with_three
async def test_a_target_that_hangs(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Deadlines that pass there eject it; until then only its own requests are lost."""
    a, *_ = replicas
    a.hangs = True
    keys = "outliers: {consecutive_failures: 2, eject_for: 1h, max_eject_for: 1h}"
    text = config(replicas, keys, ", timeout: 100ms")
    async with serve_lean(text) as gateway, gateway.client() as client:
        got = await ask(client, 18)
        # The others share the rest; who is first after the ejection is a matter of chance.
        assert got["deadline_exceeded"] == 2
        assert (got["b"] + got["c"], min(got["b"], got["c"]) >= 7) == (16, True)
        assert shown(gateway, a)["reason"] == "timeout"
        await gateway.quiet()


@with_three
async def test_a_dead_target_is_ejected_by_the_requests_that_went_elsewhere(
    serve_lean: Serve, replicas: list[Replica]
) -> None:
    """Clients see nothing of it: a refused connection moves on, and then nobody asks any more."""
    a, *_ = replicas
    await a.die()
    keys = "outliers: {consecutive_failures: 3, eject_for: 1h, max_eject_for: 1h}"
    async with serve_lean(config(replicas, keys)) as gateway, gateway.client() as client:
        got = await ask(client, 30)
        assert got["b"] + got["c"] == 30
        assert shown(gateway, a)["failures"] == {"connect_failed": 3}
        assert state(gateway, a) == "ejected"


@with_three
async def test_clients_that_leave_eject_nobody(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Impatience is no fault of the target."""
    a, *_ = replicas
    a.hangs = True
    keys = "outliers: {consecutive_failures: 1}"
    async with serve_lean(config([a, replicas[1]], keys)) as gateway:
        async with gateway.client(timeout=0.05) as client:
            for _ in range(4):
                try:
                    await client.get("/")
                except httpx.TimeoutException:
                    continue
        await gateway.quiet()
        assert state(gateway, a) == "healthy"


@with_three
async def test_all_die(serve: Serve, replicas: list[Replica]) -> None:
    """Panic: all are tried, so that clients get the real error, and service as soon as one is."""
    async with serve(config(replicas, f"health: {CHECKS}")) as gateway, gateway.client() as client:
        for each in replicas:
            await each.die()
        await eventually(lambda: all(state(gateway, each) == "unhealthy" for each in replicas))
        assert gateway.metric("gateway_upstream_panic", upstream="api") == 1
        assert await ask(client, 3) == {"connect_failed": 3}
        await replicas[0].revive()
        assert await ask(client, 3) == {"a": 3}
        await eventually(lambda: state(gateway, replicas[0]) == "healthy")
        assert gateway.metric("gateway_upstream_panic", upstream="api") == 0


@with_three
async def test_all_die_without_panic(serve: Serve, replicas: list[Replica]) -> None:
    """At 0 % nothing is sent: 503 with Retry-After and Proxy-Status, until one is back."""
    text = config(replicas, f"panic: 0%, health: {CHECKS}, retry: {{attempts: 3}}")
    async with serve(text) as gateway, gateway.client() as client:
        for each in replicas:
            each.health = 500
        await eventually(lambda: all(state(gateway, each) == "unhealthy" for each in replicas))
        got = await client.get("/")
        assert (got.status_code, got.json()["code"]) == (503, "no_healthy_target")
        assert got.json()["detail"] == "api: none of 3 targets is healthy"
        assert got.headers["retry-after"] == "1"
        assert "error=destination_unavailable" in got.headers["proxy-status"]
        assert sum(each.requests for each in replicas) == 0
        replicas[1].health = 200
        await eventually(lambda: state(gateway, replicas[1]) == "healthy")
        assert await ask(client, 3) == {"b": 3}
        await gateway.quiet()


@with_three
async def test_failover_and_back(
    serve: Serve, replicas: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    """The second data centre is used while the first is down, and left alone again after."""
    a, b, c = replicas
    targets = f'"{a.url}", "{b.url}", {{url: "{c.url}", priority: 1}}'
    text = config(targets, f"health: {CHECKS}")
    async with serve(text) as gateway, gateway.client() as client:
        assert await ask(client) == {"a": 6, "b": 6}
        await a.die()
        await eventually(lambda: state(gateway, a) == "unhealthy")
        assert await ask(client) == {"b": 12}
        await b.die()
        await eventually(lambda: state(gateway, b) == "unhealthy")
        assert await ask(client) == {"c": 12}
        assert gateway.snapshot.upstreams["api"].status()["priority"] == 1
        await b.revive()
        await eventually(lambda: state(gateway, b) == "healthy")
        assert await ask(client) == {"b": 12}
    assert "upstream api: targets up to priority 1 are used" in caplog.text


@with_three
async def test_a_hash_sticks(serve: Serve, replicas: list[Replica]) -> None:
    """A tenant keeps its target; when that dies it goes elsewhere, and then comes home."""
    text = config(replicas, f'balance: "hash(header:X-Tenant)", health: {CHECKS}')
    async with serve(text) as gateway, gateway.client() as client:
        homes = {}
        for tenant in range(24):
            got = await ask(client, 2, headers={"X-Tenant": str(tenant)})
            assert len(got) == 1
            homes[tenant] = next(iter(got))
        assert set(homes.values()) == {"a", "b", "c"}
        await replicas[0].die()
        await eventually(lambda: state(gateway, replicas[0]) == "unhealthy")
        for tenant, home in homes.items():
            [found] = await ask(client, 2, headers={"X-Tenant": str(tenant)})
            assert found == home or home == "a"
            assert found != "a"
        await replicas[0].revive()
        await eventually(lambda: state(gateway, replicas[0]) == "healthy")
        for tenant, home in homes.items():
            assert list(await ask(client, 1, headers={"X-Tenant": str(tenant)})) == [home]


@with_three
async def test_a_hash_and_a_refused_connection(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Without checks too, a request whose target refuses goes to the next one on the ring."""
    async with serve_lean(config(replicas, 'balance: "hash(path)"')) as gateway:
        async with gateway.client() as client:
            await replicas[0].die()
            answers = [(await client.get(f"/{number}")) for number in range(12)]
    assert {each.status_code for each in answers} == {200}
    assert {each.text for each in answers} == {"b", "c"}


@with_three
async def test_p2c_end_to_end(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Everybody gets something, and a target that hangs gets no more than its share."""
    text = config(replicas, "balance: p2c")
    async with serve_lean(text) as gateway, gateway.client() as client:
        got = await ask(client, 60)
        assert set(got) == {"a", "b", "c"}
        assert max(got.values()) < 40


@with_three
async def test_a_retry_goes_to_another_target(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Whatever the balancer: a target that failed this exchange is not asked again."""
    a, *_ = replicas
    a.status = 503
    for balance in ("p2c", "hash(ip)", "least_requests"):
        keys = f'balance: "{balance}", retry: {{attempts: 3, backoff: {{base: 1ms}}}}'
        async with serve_lean(config(replicas, keys)) as gateway, gateway.client() as client:
            for _ in range(8):
                assert (await client.get("/")).status_code == 200


@with_three
async def test_a_reload_keeps_what_is_known(serve_lean: Serve, replicas: list[Replica]) -> None:
    """Ejections outlive a change of the upstream; a target that is new waits for its check."""
    a, b, c = replicas
    a.status = 500
    outliers = "outliers: {consecutive_failures: 2, eject_for: 1h, max_eject_for: 1h}"
    checks = "health: {path: /healthz, every: 1h, timeout: 5s}"
    async with serve_lean(config([a, b], f"{outliers}, {checks}")) as gateway:
        async with gateway.client() as client:
            await ask(client, 6)
            assert state(gateway, a) == "ejected"
            await eventually(lambda: a.checks + b.checks == 2)
            c.health_hangs = True
            text = config(replicas, f"{outliers}, {checks}, connections: {{max: 9}}")
            await gateway.reload(text)
            assert (state(gateway, a), state(gateway, c)) == ("ejected", "unchecked")
            assert await ask(client, 6) == {"b": 6}
            await c.die()
            await eventually(lambda: state(gateway, c) == "unhealthy")
            await gateway.reload(config([a, b], "connections: {max: 9}"))
            assert (await ask(client, 6))["a"] == 3


@with_three
async def test_a_reload_ends_the_checks_of_before(
    serve_lean: Serve, replicas: list[Replica]
) -> None:
    """The old upstream's checks stop with it, and closing the gateway stops those under way."""
    a, b, _ = replicas
    names = {id(each) for each in asyncio.all_tasks()}
    async with serve_lean(config([a], f"health: {CHECKS}")) as gateway:
        await eventually(lambda: a.checks > 1)
        await gateway.reload(config([b], f"health: {CHECKS}"))
        await eventually(lambda: b.checks > 0 and not a.connections)
        before = a.checks
        target = {"target": a.label}
        assert gateway.metric("gateway_upstream_target_healthy", **target) == 0
        b.health_hangs = True
        await eventually(lambda: b.connections > 0 and b.checks > 2)
        assert a.checks <= before + 1
    await eventually(lambda: b.connections == 0)
    tasks = [each for each in asyncio.all_tasks() if id(each) not in names]
    assert not [each for each in tasks if "_check_on" in repr(each)]


async def test_checks_over_tls_and_unix_sockets_reach_readiness(
    serve_lean: Serve, tmp_path: Path
) -> None:
    """A target on a unix socket is checked like any other."""
    async with Replica("u", path=str(tmp_path / "u")) as local:
        text = config(f'"{local.url}"', f"health: {CHECKS}")
        async with serve_lean(text) as gateway, gateway.client() as client:
            await eventually(lambda: local.checks > 1)
            assert await ask(client, 2) == {"u": 2}
            assert state(gateway, local) == "healthy"
