"""A policy to copy: it finds out which tenant a request is for, and tells the upstream.

    plugins: [plugins/tenant_header.py]
    routes:
      - name: orders.read
        plugins: [{use: tenant_header, with: {header: X-Tenant, host_suffix: .api.internal}}]

The tenant is the label of the host name in front of `host_suffix`, else what the client sent in
`header`. A request whose two sources differ, or whose tenant is not a name, never gets through.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gateway.plugin import (
    BuildContext,
    ConfigError,
    ErrorCode,
    Exchange,
    Field,
    Guard,
    RefusingPolicyConfig,
    Rejection,
    Source,
)

# A code of our own: the `code` of the problem, the metric's label and the log's field.
TENANT_REFUSED = ErrorCode(
    "tenant_refused", 400, Source.CLIENT, transient=False, title="The tenant can't be accepted"
)
# One DNS label in lower case (RFC 1123 section 2.1), so that both sources mean the same.
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class TenantHeaderConfig(RefusingPolicyConfig):
    """What stands under `with:`. Descriptions end up in the JSON Schema."""

    header: str = Field(
        default="X-Tenant",
        pattern=r"^[A-Za-z0-9-]+$",
        description="The field that the client may send and the upstream gets.",
    )
    host_suffix: str = Field(
        default="",
        pattern=r"^(\.[a-z0-9-]+)*$",
        description="Hosts that end so carry the tenant in the label before it; off if empty.",
    )
    tenants: list[str] | None = Field(
        default=None, description="The tenants there are; any name will do if left out."
    )
    required: bool = Field(
        default=True, description="Whether a request without a tenant is refused."
    )


class TenantHeader(Guard):
    """Refuses a request without a proper tenant, and sets the field for the upstream."""

    name: ClassVar[str] = "tenant_header"
    Config: ClassVar[type[TenantHeaderConfig]] = TenantHeaderConfig
    after: ClassVar[str] = "access"  # who may call at all is decided first: it is cheaper

    def __init__(self, config: TenantHeaderConfig) -> None:
        # Plain attributes: `check` runs for every request, and models are slow to read.
        self.field = config.header.lower().encode()
        self.suffix = config.host_suffix
        self.tenants = None if config.tenants is None else frozenset(config.tenants)
        self.required = config.required

    @classmethod
    def build(cls, config: TenantHeaderConfig, context: BuildContext) -> TenantHeader:
        """Refuse, when the configuration is loaded, what could never work."""
        for tenant in config.tenants or ():
            if not TENANT.fullmatch(tenant):
                raise ConfigError(f"{tenant!r} is not a tenant: use a DNS label in lower case")
        return cls(config)

    async def check(self, exchange: Exchange) -> Rejection | None:
        """None to let the request pass, or why not."""
        headers = exchange.request.headers
        sent = {value.decode("latin-1") for value in headers.get_all(self.field)}
        named = self.tenant_of_host(exchange.request.host)
        if named:
            sent.add(named)
        if not sent:
            return Rejection(TENANT_REFUSED, "no tenant was named") if self.required else None
        if len(sent) > 1:
            return Rejection(TENANT_REFUSED, "host and header name different tenants")
        tenant = sent.pop()
        if not TENANT.fullmatch(tenant):
            return Rejection(TENANT_REFUSED, "the tenant is not a name")
        if self.tenants is not None and tenant not in self.tenants:
            return Rejection(TENANT_REFUSED, "there is no such tenant")
        headers.set(self.field, tenant.encode())
        return None

    def tenant_of_host(self, host: str) -> str:
        """The label in front of the suffix, or the empty string."""
        if not self.suffix or not host.endswith(self.suffix):
            return ""
        return host.removesuffix(self.suffix).rpartition(".")[2]
