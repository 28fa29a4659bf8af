"""What a plugin may import, used as an author would, with types: mypy reads this file, too."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import ClassVar

import pytest

import gateway.plugin as api
from gateway import compiled
from gateway.plugin import (
    Around,
    BuildContext,
    Clock,
    ConfigError,
    ErrorCode,
    Exchange,
    Field,
    Guard,
    Handler,
    PolicyConfig,
    Refused,
    RefusingPolicyConfig,
    Rejection,
    Response,
    Source,
    Stage,
)
from gateway.policies.catalog import PolicyCatalog
from tests.e2e.conftest import Serve
from tests.e2e.conftest import serve_lean as serve_lean  # noqa: PLC0414 - a fixture
from tests.support.gateway import routes
from tests.support.scripted import OK, ScriptedUpstream, answer

QUOTA_USED_UP = ErrorCode(
    "quota_used_up", 429, Source.CLIENT, transient=True, title="The quota is used up"
)


class QuotaConfig(RefusingPolicyConfig):
    """How many requests a tenant may make in all."""

    requests: int = Field(default=2, ge=1, description="Requests.")


class Quota(Guard):
    """Counts what tenants ask for, across reloads, and lets go of nothing in between."""

    name: ClassVar[str] = "quota"
    Config: ClassVar[type[QuotaConfig]] = QuotaConfig
    before: ClassVar[str] = "body"

    def __init__(self, config: QuotaConfig, used: dict[str, int]) -> None:
        self.most = config.requests
        self.used = used

    @classmethod
    def build(cls, config: QuotaConfig, context: BuildContext) -> Quota:
        """Share the counters with the policy of the next generation."""
        if config.requests > 1000:
            raise ConfigError("nobody needs that many", "requests")
        used: dict[str, int] = context.shared(("quota", context.route), dict)
        return cls(config, used)

    def check(self, exchange: Exchange) -> Rejection | None:
        """Count, and refuse with the time to come back."""
        tenant = (exchange.request.headers.get(b"x-tenant") or b"").decode("latin-1")
        self.used[tenant] = used = self.used.get(tenant, 0) + 1
        exchange.reply_headers.append((b"x-used", b"%d" % used))
        if used <= self.most:
            return None
        return Rejection(
            QUOTA_USED_UP, f"{used} of {self.most}", [(b"retry-after", b"60")], {"used": used}
        )


class LimitConfig(PolicyConfig):
    """How many requests may be under way at once."""

    at_once: int = Field(default=1, description="Requests.")


class Limit(Around):
    """Holds a permit until the answer's last byte is out."""

    name: ClassVar[str] = "limit"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[LimitConfig]] = LimitConfig

    def __init__(self, at_once: int, clock: Clock) -> None:
        self.free = at_once
        self.clock = clock

    @classmethod
    def build(cls, config: LimitConfig, context: BuildContext) -> Limit:
        """One limit a route."""
        return cls(config.at_once, context.clock)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Refuse without a permit; give it back when the answer has ended, however it did."""
        if not self.free:
            raise Refused(Rejection(QUOTA_USED_UP, "too many at once"))
        self.free -= 1
        began = self.clock.monotonic()
        try:
            response = await forward(exchange)
        except BaseException:
            self.free += 1
            raise
        response.headers = [
            *response.headers,
            (b"x-took", b"%f" % (self.clock.monotonic() - began)),
        ]
        response.on_close(self._release)
        return response

    def _release(self) -> None:
        self.free += 1


def test_the_api_is_what_it_says() -> None:
    """Every name is there, sorted, and says what it is."""
    assert sorted(api.__all__) == api.__all__
    for name in api.__all__:
        exported = getattr(api, name)
        if inspect.isclass(exported) and compiled.why_not:  # mypyc keeps no docstrings of classes
            assert exported.__doc__, name
    public = {
        name
        for name, value in vars(api).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public | api._LATE == set(api.__all__)
    with pytest.raises(AttributeError):
        api.Runtime  # noqa: B018 - looking is the test


def test_a_plugin_needs_nothing_else() -> None:
    """The shapes above are complete: a catalog takes them as they are."""
    catalog = PolicyCatalog()
    for policy in (Quota, Limit):
        catalog._add(policy, "test")

    assert (catalog.policy("quota"), catalog.policy("limit")) == (Quota, Limit)


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    """This file's policies as a plugin file."""
    (tmp_path / "both.py").write_text(
        "from __future__ import annotations\n"
        "from gateway.plugin import *\nfrom typing import ClassVar\n"
        "QUOTA_USED_UP = ErrorCode('quota_used_up', 429, Source.CLIENT, True, 'Used up')\n"
        + "\n".join(inspect.getsource(each) for each in (QuotaConfig, Quota, LimitConfig, Limit))
    )
    return "plugins: [both.py]\n"


USES = "plugins: [{use: quota, with: {requests: 2}}, {use: limit}]"


async def test_they_work(serve_lean: Serve, plugins: str) -> None:
    """Refusals become problems; what is shared outlives a reload; permits come back."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        text = plugins + routes(upstream.url, options=USES)
        async with serve_lean(text) as gateway, gateway.client() as client:
            first = await client.get("/", headers={"X-Tenant": "a"})
            await gateway.reload(text + "# changed\n")
            second = await client.get("/", headers={"X-Tenant": "a"})
            third = await client.get("/", headers={"X-Tenant": "a"})
            other = await client.get("/", headers={"X-Tenant": "b"})

    assert [each.status_code for each in (first, second, third, other)] == [200, 200, 429, 200]
    assert first.headers["x-took"]
    assert third.headers["retry-after"] == "60"
    assert (third.json()["code"], third.json()["used"]) == ("quota_used_up", 3)
    assert third.headers["x-used"] == "3"


async def test_a_permit_comes_back_from_a_client_that_leaves(
    serve_lean: Serve, plugins: str
) -> None:
    """While it is held, others are refused; when its holder is gone, it is free."""
    go = asyncio.Event()

    async def service(peer: object) -> None:
        await go.wait()

    async with ScriptedUpstream(service, answer(OK)) as upstream:
        text = plugins + routes(upstream.url, options="plugins: [{use: limit}]")
        async with serve_lean(text) as gateway, gateway.client() as client:
            async with gateway.raw() as holder:
                await holder.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await asyncio.wait_for(upstream.connected.wait(), 20)
                assert (await client.get("/")).status_code == 429
                holder.leave()
            await gateway.quiet()
            assert (await client.get("/")).status_code == 200
