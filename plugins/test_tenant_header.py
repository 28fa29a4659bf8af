"""The example policy on its own: no server, no upstream, only an exchange."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.plugin import ConfigError, Exchange, Headers, Rejection, Request
from plugins.tenant_header import TenantHeader

CONTEXT: Any = None  # this policy needs nothing of it


def policy(**config: Any) -> TenantHeader:
    return TenantHeader.build(TenantHeader.Config(**config), CONTEXT)


def check(guard: TenantHeader, seen: Exchange) -> Rejection | None:
    return asyncio.run(guard.check(seen))


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
