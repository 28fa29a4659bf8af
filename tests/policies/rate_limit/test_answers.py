"""What callers get, from a whole gateway on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256

import httpx

from gateway.message import Exchange, Headers, Principal, Request
from tests.policies.rate_limit.conftest import Serve
from tests.store.servers import Server
from tests.support.gateway import RunningGateway

StoreServer = Callable[[], AbstractAsyncContextManager[Server]]
FIELDS = ("ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-limit",
          "x-ratelimit-remaining", "x-ratelimit-reset", "x-lockgate-ratelimit")  # fmt: skip
DECISIONS = "gateway_rate_limit_decisions_total"


def told(answer: httpx.Response) -> dict[str, str]:
    """The fields about limits."""
    return {name: answer.headers[name] for name in FIELDS if name in answer.headers}


async def ask(gateway: RunningGateway, count: int, **headers: str) -> list[httpx.Response]:
    """So many requests, one after another."""
    async with gateway.client(headers=headers) as client:
        return [await client.get("/limited") for _ in range(count)]


async def test_passes_and_refusals(store_server: StoreServer, gateway_on: Serve) -> None:
    """Fields on both; a refusal is a problem that says which limit, and when to come back."""
    limits = "{rate: 2/30d, burst: 2, per: ip, name: slow}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        first, second, third = await ask(gateway, 3)

        assert (first.status_code, second.status_code, third.status_code) == (204, 204, 429)
        assert told(first) == {
            "ratelimit-policy": '"slow";q=2;w=2592000',
            "ratelimit": '"slow";r=1;t=1296000',
        }
        assert told(second)["ratelimit"].startswith('"slow";r=0;t=25')
        wait = int(third.headers["retry-after"])
        assert 1_295_000 < wait <= 1_296_000
        assert told(third) == {
            "ratelimit-policy": '"slow";q=2;w=2592000',
            "ratelimit": f'"slow";r=0;t={wait}',
            "retry-after": str(wait),
        }
        problem = third.json()
        assert third.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["status"]) == ("rate_limited", 429)
        assert problem["violated-policies"] == ["slow"]
        assert problem["detail"] == "the limit slow is 2/30d"
        assert gateway.metric(DECISIONS, limit="slow", decision="passed", by="store") == 2
        assert gateway.metric(DECISIONS, limit="slow", decision="refused", by="store") == 1
        async with gateway.client() as client:
            assert told(await client.get("/free")) == {}


async def test_quota(store_server: StoreServer, gateway_on: Serve) -> None:
    """A quota by the calendar has a code of its own."""
    async with store_server() as server, gateway_on(server, "{rate: 1/month}") as gateway:
        first, second = await ask(gateway, 2)

        assert told(first)["ratelimit-policy"] == '"consumer-month";q=1'
        assert second.json()["code"] == "quota_exceeded"
        assert 0 < int(second.headers["retry-after"]) <= 31 * 86_400


async def test_legacy_and_none(store_server: StoreServer, gateway_on: Serve) -> None:
    """Older fields on request, or nothing but Retry-After."""
    async with store_server() as server:
        async with gateway_on(server, "{rate: 5/m, headers: legacy}") as gateway:
            [answer] = await ask(gateway, 1)
            assert told(answer) == {
                "x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset": "12"
            }  # fmt: skip
        async with gateway_on(server, "{rate: 1/h, headers: none}", instance="b") as gateway:
            first, second = await ask(gateway, 2)
            assert told(first) == {}
            assert list(told(second)) == ["retry-after"]


async def test_several_limits(store_server: StoreServer, gateway_on: Serve) -> None:
    """All must hold, the tightest is told, and a refusal charges none of them."""
    limits = "[{rate: 2/h, per: 'header:X-A', name: a}, {rate: 3/day, per: route, name: b}]"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        passed, _, refused = await ask(gateway, 3, **{"x-a": "one"})
        assert told(passed)["ratelimit-policy"] == '"a";q=2;w=3600, "b";q=3;w=86400'
        assert told(passed)["ratelimit"].startswith('"a";r=1;')
        assert refused.json()["violated-policies"] == ["a"]

        passed, refused = await ask(gateway, 2, **{"x-a": "two"})
        assert passed.status_code == 204
        assert told(passed)["ratelimit"].startswith('"b";r=0;')
        assert refused.json()["violated-policies"] == ["b"]
        assert refused.json()["code"] == "quota_exceeded"


async def test_absent(store_server: StoreServer, gateway_on: Serve) -> None:
    """Who lacks the field shares one bucket with all who lack it; it is no way around the limit."""
    limits = "{rate: 1/h, per: 'header:X-Key'}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        statuses = [answer.status_code for answer in await ask(gateway, 3)]
        assert statuses == [204, 429, 429]
        assert (await ask(gateway, 1, **{"x-key": ""}))[0].status_code == 204


async def test_cost(store_server: StoreServer, gateway_on: Serve) -> None:
    """A request may cost more than one unit; a rest that is too small is told as it is."""
    limits = "{rate: 10/h, cost: 4}"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        answers = await ask(gateway, 3)

        assert [answer.status_code for answer in answers] == [204, 204, 429]
        assert told(answers[2])["ratelimit"].startswith('"consumer-h";r=2;t=7')


async def test_report(store_server: StoreServer, gateway_on: Serve) -> None:
    """A limit in report mode lets pass, counts and logs; another on the same route enforces."""
    limits = "[{rate: 1/h, mode: report, name: trial}, {rate: 3/h, name: real}]"
    async with store_server() as server, gateway_on(server, limits) as gateway:
        statuses = [answer.status_code for answer in await ask(gateway, 4)]

        assert statuses == [204, 204, 204, 429]
        assert gateway.metric("gateway_policy_reported_total", policy="rate_limit") == 3
        assert gateway.metric(DECISIONS, limit="trial", decision="reported") == 3
        lines = await gateway.lines(4)
        assert "reported" not in lines[0]
        assert lines[1]["reported"] == ["rate_limit:rate_limited"]


async def test_tiers(store_server: StoreServer, gateway_on: Serve) -> None:
    """A consumer's tier has a rate of its own; who has none, or an unknown one, the limit's."""
    extra = "consumers: {rich: {tier: gold}, odd: {tier: other}, plain: {}}"
    limits = "{rate: 1/h, tiers: {gold: 3/h}}"
    async with store_server() as server, gateway_on(server, limits, extra) as gateway:
        [route] = [each for each in gateway.snapshot.routes if each.name == "limited"]
        [policy] = [each for each in route.policies if each.name == "rate_limit"]
        tiers = {"token": "gold"}  # a principal that knows its tier by itself
        expectations = {"rich": 3, "odd": 1, "plain": 1, "unknown": 1, "token": 3}
        for consumer, expected in expectations.items():
            passed = 0
            for _ in range(5):
                exchange = Exchange(request=_NO_REQUEST, started=0.0)
                exchange.principal = Principal(consumer, tier=tiers.get(consumer, ""))
                passed += await policy.check(exchange) is None  # type: ignore[attr-defined]
            assert passed == expected, consumer


_NO_REQUEST = Request("GET", "/", b"", Headers([]))


async def test_callers_with_keys(store_server: StoreServer, gateway_on: Serve) -> None:
    """Behind auth each consumer has its bucket and its tier's rate; strangers take from none."""
    hashes = {name: sha256(f"key-of-{name}".encode()).hexdigest() for name in ("rich", "poor")}
    keys = ", ".join(
        f'{{consumer: {name}, hash: "sha256:{each}"}}' for name, each in hashes.items()
    )
    extra = f"""\
identities: {{partners: {{type: api_key, header: X-Key, keys: [{keys}]}}}}
consumers: {{rich: {{tier: gold}}}}
defaults: {{auth: {{any: [partners]}}}}"""
    async with (
        store_server() as server,
        gateway_on(server, "{rate: 1/h, tiers: {gold: 3/h}}", extra) as gateway,
    ):
        for name, passes in (("rich", 3), ("poor", 1)):
            answers = await ask(gateway, 5, **{"x-key": f"key-of-{name}"})
            assert [answer.status_code for answer in answers].count(204) == passes
        strangers = await ask(gateway, 5)
        assert {answer.status_code for answer in strangers} == {401}
        assert all("ratelimit" not in answer.headers for answer in strangers)


async def test_reload_keeps_buckets(store_server: StoreServer, gateway_on: Serve) -> None:
    """Buckets are in the store: a reload, and a rate that changes, does not fill them up."""
    async with store_server() as server, gateway_on(server, "{rate: 2/h}") as gateway:
        await ask(gateway, 2)
        text = (gateway._folder / "gateway.yaml").read_text()
        await gateway.reload(text.replace("2/h", "4/h").removeprefix("version: 1\n"))
        statuses = [answer.status_code for answer in await ask(gateway, 3)]
        # What two requests took at 2/h is an hour of time, which at 4/h is the whole bucket.
        assert statuses == [429, 429, 429]


@asynccontextmanager
async def two_gateways(
    server: Server, gateway_on: Serve, limits: str
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of two gateways on one store, four of each."""
    async with (
        gateway_on(server, limits) as one,
        gateway_on(server, limits, instance="two") as two,
        one.client() as first,
        two.client() as second,
    ):
        yield [first, second] * 4


async def test_two_gateways_admit_what_one_would(
    store_server: StoreServer, gateway_on: Serve
) -> None:
    """Of what two gateways are asked at once, exactly the burst passes, not one more or less."""
    passed: list[int] = []

    async def press(client: httpx.AsyncClient) -> None:
        for _ in range(15):
            answer = await client.get("/limited")
            assert answer.status_code in (204, 429)
            passed.append(answer.status_code == 204)

    async with store_server() as server:
        limits = "[{rate: 60/30d, per: route}, {rate: 80/30d, name: wider, per: ip}]"
        async with two_gateways(server, gateway_on, limits) as clients:
            await asyncio.gather(*map(press, clients))
    assert (len(passed), sum(passed)) == (120, 60)


async def test_two_gateways_over_time(store_server: StoreServer, gateway_on: Serve) -> None:
    """Under load from two gateways: burst + rate x time, by the clock of the store."""
    passed = 0
    loop = asyncio.get_running_loop()

    async def press(client: httpx.AsyncClient, until: float) -> None:
        nonlocal passed
        # A busy machine may need longer until more than the burst was asked for.
        while loop.time() < until or passed <= 40:
            answer = await client.get("/limited")
            assert answer.status_code in (204, 429)
            passed += answer.status_code == 204

    async with store_server() as server:
        limits = "{rate: 60/s, burst: 40, per: route}"
        async with two_gateways(server, gateway_on, limits) as clients:
            await asyncio.gather(*(client.get("/free") for client in clients))
            began = loop.time()
            await asyncio.gather(*(press(client, began + 0.8) for client in clients))
            lasted = loop.time() - began
    # Never more; fewer only as far as a busy machine let the bucket stand full meanwhile.
    assert 40 < passed <= 40 + 60 * lasted + 1
