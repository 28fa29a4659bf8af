"""The example policy: first on its own, with nothing but an exchange, then in a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.plugin import ConfigError, Counts, Exchange, Headers, Rejection, Request
from plugins.tenant_header import REQUESTS, Directory, TenantHeader
from tests.support.gateway import eventually, run_gateway
from tests.support.scripted import ScriptedUpstream, answer, echo, respond

PLUGIN = Path(__file__).with_name("tenant_header.py")


class Context:
    """As much of a BuildContext as a policy needs that asks neither store nor directory."""

    def __init__(self) -> None:
        self.metrics = self
        self.counts = Counts


def policy(**config: Any) -> TenantHeader:
    context: Any = Context()
    return TenantHeader.build(TenantHeader.Config.model_validate(config), context)


def check(guard: TenantHeader, seen: Exchange) -> Any:
    return guard.check(seen)


def exchange(host: str = "api.internal", *tenants: bytes) -> Exchange:
    headers = Headers([(b"x-tenant", tenant) for tenant in tenants])
    return Exchange(Request("GET", "/orders", b"", headers, host=host), 0.0)


def test_header_is_passed_on() -> None:
    """A tenant that the client names reaches the upstream."""
    seen = exchange("api.internal", b"acme")

    assert check(policy(), seen) is None
    assert seen.request.headers.get_all(b"x-tenant") == [b"acme"]


def test_host_names_the_tenant() -> None:
    """The label before the suffix is the tenant, and the field is set from it."""
    seen = exchange("acme.api.internal")

    assert check(policy(host_suffix=".api.internal"), seen) is None
    assert seen.request.headers.get(b"x-tenant") == b"acme"


@pytest.mark.parametrize(
    ("seen", "detail"),
    [
        (exchange(), "no tenant was named"),
        (exchange("acme.api.internal", b"other"), "host and header name different tenants"),
        (exchange("api.internal", b"acme", b"other"), "host and header name different tenants"),
        (exchange("api.internal", b"ac me"), "the tenant is not a name"),
        (exchange("api.internal", b"\xff"), "the tenant is not a name"),
        (exchange("api.internal", b"stranger"), "there is no such tenant"),
    ],
)
def test_refusals(seen: Exchange, detail: str) -> None:
    """Missing, differing, malformed and unknown tenants are refused, each with its reason."""
    refused = check(policy(host_suffix=".api.internal", tenants=["acme", "other"]), seen)

    assert isinstance(refused, Rejection)
    assert (refused.kind.code, refused.detail) == ("tenant_refused", detail)


def test_optional_tenant() -> None:
    """Without `required`, a request that names nobody passes untouched."""
    seen = exchange()

    assert check(policy(required=False), seen) is None
    assert b"x-tenant" not in seen.request.headers


def test_impossible_tenant_is_a_config_error() -> None:
    """A tenant that no request could name is refused when the configuration is loaded."""
    with pytest.raises(ConfigError, match="DNS label"):
        policy(tenants=["Acme Inc"])
    with pytest.raises(ConfigError, match="both"):
        policy(tenants=["acme"], directory="http://directory.internal")


def test_answers_are_counted() -> None:
    """By route, by who named the tenant, and by status; the tenant is no label."""
    guard = policy(host_suffix=".api.internal")
    seen = exchange("acme.api.internal")
    seen.route, seen.response_status = "orders", 204

    assert check(guard, seen) is None
    for hook in seen.on_finish:
        hook(seen)
    assert guard.counts.values == {("orders", "host", "2xx"): 1}
    assert seen.reply_headers == [(b"vary", b"x-tenant")]


def config(upstream: str, options: str) -> str:
    return f"""\
plugins: [{json.dumps(str(PLUGIN))}]
upstreams:
  api: {{targets: ["{upstream}"]}}
routes:
  - name: any
    match: {{path: "/{{rest:path}}"}}
    upstream: api
    plugins: [{{use: tenant_header, with: {{{options}}}}}]
"""


def shared(gateway: Any) -> Directory:
    found = [each for key, each in gateway.runtime._shared.items() if key[0] == "tenant_header"]
    (directory,) = found
    return directory  # type: ignore[no-any-return]


def test_a_directory(tmp_path: Path) -> None:
    """503 until it has answered; then its tenants, and the last known ones while it is down."""
    asyncio.run(directory_goes_and_comes(tmp_path))


async def directory_goes_and_comes(tmp_path: Path) -> None:
    down = respond(b"oops", "500 Internal Server Error")
    replies = answer(down, respond(b'["acme"]'), down)
    async with ScriptedUpstream(replies) as service, ScriptedUpstream(echo) as upstream:
        text = config(upstream.url, f'directory: "{service.url}/tenants", refresh: 1h')
        async with run_gateway(tmp_path, text) as gateway, gateway.client() as client:
            await eventually(lambda: len(service.requests) == 1)
            early = await client.get("/", headers={"X-Tenant": "acme"})
            await shared(gateway).refresh()
            known = await client.get("/", headers={"X-Tenant": "acme"})
            await gateway.reload(text + "# changed\n")
            await shared(gateway).refresh()
            still = await client.get("/", headers={"X-Tenant": "acme"})
            stranger = await client.get("/", headers={"X-Tenant": "other"})
            counted = gateway.metric(REQUESTS.name, route="any", status="2xx")

    assert [got.status_code for got in (early, known, still, stranger)] == [503, 200, 200, 400]
    assert early.json()["code"] == "tenants_unavailable"
    assert known.headers["vary"] == "x-tenant"
    assert len(service.requests) == 3  # a reload does not ask anew
    assert counted == 2


def test_suspended_tenants(tmp_path: Path) -> None:
    """The store's set turns one away at once; report mode only says so; nobody else is."""
    asyncio.run(somebody_is_suspended(tmp_path))


async def somebody_is_suspended(tmp_path: Path) -> None:
    options = "suspended: true, mode: %s"
    text = 'store: {url: embedded, data: "%s"}\n' % (tmp_path / "store")
    async with ScriptedUpstream(echo) as upstream:
        enforced = text + config(upstream.url, options % "enforce")
        async with run_gateway(tmp_path, enforced) as gateway, gateway.client() as client:
            (store,) = [e for k, e in gateway.runtime._shared.items() if k[0] == "store"]
            before = await client.get("/", headers={"X-Tenant": "acme"})
            await store.call("SADD", "lockgate:tenants:suspended", "acme")
            after = await client.get("/", headers={"X-Tenant": "acme"})
            other = await client.get("/", headers={"X-Tenant": "other"})
            await gateway.reload(text + config(upstream.url, options % "report"))
            reported = await client.get("/", headers={"X-Tenant": "acme"})

    assert [got.status_code for got in (before, after, other, reported)] == [200, 403, 200, 200]
    assert after.json()["code"] == "tenant_suspended"
