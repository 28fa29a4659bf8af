"""A policy to copy: it finds out which tenant a request is for, and tells the upstream.

    plugins: [plugins/tenant_header.py]
    routes:
      - name: orders.read
        plugins: [{use: tenant_header, with: {header: X-Tenant, host_suffix: .api.internal}}]

The tenant is the label of the host name in front of `host_suffix`, else what the client sent in
`header`. A request whose two sources differ, or whose tenant is not a name, never gets through.

Which tenants there are may be written down (`tenants`), or kept by a service (`directory`) that is
asked now and then. With `suspended`, an operator turns one away at once, on every gateway that
shares the store:

    valkey-cli SADD lockgate:tenants:suspended acme
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable
from typing import ClassVar, Literal

from gateway.plugin import (
    BuildContext,
    ConfigError,
    ControlClient,
    ControlError,
    Counts,
    Declaration,
    Duration,
    ErrorCode,
    Exchange,
    Field,
    Guard,
    Kind,
    RefusingPolicyConfig,
    Rejection,
    Source,
    Store,
    StoreError,
)

logger = logging.getLogger("gateway.plugin.tenant_header")

# Codes of our own: the `code` of the problem, the metric's label and the log's field.
TENANT_REFUSED = ErrorCode(
    "tenant_refused", 400, Source.CLIENT, transient=False, title="The tenant can't be accepted"
)
TENANT_SUSPENDED = ErrorCode(
    "tenant_suspended", 403, Source.CLIENT, transient=False, title="The tenant is suspended"
)
TENANTS_UNAVAILABLE = ErrorCode(
    "tenants_unavailable", 503, Source.GATEWAY, transient=True, title="Tenants can't be told now"
)
# A metric of our own. Labels are few and ours: a tenant's name is the client's to choose.
REQUESTS = Declaration(
    "tenant_requests_total",
    Kind.COUNTER,
    "Requests by where their tenant was named, and the class of their answer's status.",
    ("route", "named_by", "status"),
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
    directory: str | None = Field(
        default=None,
        pattern=r"^https?://[!-~]+$",
        description="A URL that answers with a JSON list of the tenants there are.",
    )
    refresh: Duration = Field(default=60.0, ge=1.0, description="How often the directory is asked.")
    suspended: bool = Field(
        default=False,
        description="Whether the set tenants:suspended in the store turns tenants away.",
    )
    on_store_error: Literal["open", "closed"] = Field(
        default="open", description="Without the store: open lets everyone in, closed nobody."
    )
    required: bool = Field(
        default=True, description="Whether a request without a tenant is refused."
    )


class Directory:
    """The tenants that a service knows, kept fresh for all routes that ask for them.

    `names` is None until there was an answer; from then on, the last good one counts.
    """

    def __init__(self, url: str, refresh_s: float, http: ControlClient) -> None:
        self.names: frozenset[str] | None = None
        self._url = url
        self._refresh_s = refresh_s
        self._http = http
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Called for each configuration that uses it; it must not wait for the service."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:
                logger.exception("asking the directory failed")
            await asyncio.sleep(self._refresh_s)

    async def refresh(self) -> None:
        """Ask once."""
        try:
            reply = await self._http.get(self._url)
            names = json.loads(reply.body) if reply.status == 200 else None
        except (ControlError, ValueError, RecursionError) as error:
            logger.warning("no tenants from the directory: %s", type(error).__name__)
            return
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            logger.warning("the directory's answer (%s) is no list of names", reply.status)
            return
        self.names = frozenset(names)

    async def aclose(self) -> None:
        """Called when no configuration asks for it any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class TenantHeader(Guard):
    """Refuses a request without a proper tenant, and sets the field for the upstream."""

    name: ClassVar[str] = "tenant_header"
    Config: ClassVar[type[TenantHeaderConfig]] = TenantHeaderConfig
    after: ClassVar[str] = "access"  # who may call at all is decided first: it is cheaper

    def __init__(
        self,
        config: TenantHeaderConfig,
        counts: Counts,
        directory: Directory | None,
        store: Store | None,
    ) -> None:
        # Plain attributes: `check` runs for every request, and models are slow to read.
        self.field = config.header.lower().encode()
        self.suffix = config.host_suffix
        self.tenants = None if config.tenants is None else frozenset(config.tenants)
        self.required = config.required
        self.fails_open = config.on_store_error == "open"
        self.counts = counts
        self.directory = directory
        self.store = store

    @classmethod
    def build(cls, config: TenantHeaderConfig, context: BuildContext) -> TenantHeader:
        """Refuse, when the configuration is loaded, what could never work."""
        for tenant in config.tenants or ():
            if not TENANT.fullmatch(tenant):
                raise ConfigError(f"{tenant!r} is not a tenant: use a DNS label in lower case")
        if config.tenants is not None and config.directory is not None:
            raise ConfigError("tenants and directory can't both say which tenants there are")
        directory = None
        if config.directory is not None:
            url, refresh, http = config.directory, config.refresh, context.http()
            # One for all routes and configurations that ask the same of the same service.
            directory = context.shared(
                ("tenant_header", url, refresh), lambda: Directory(url, refresh, http)
            )
        # Asking for the store is what has it started, so ask only if it is needed.
        store = context.store() if config.suspended else None
        return cls(config, context.metrics.counts(REQUESTS), directory, store)

    def check(self, exchange: Exchange) -> Rejection | Awaitable[Rejection | None] | None:
        """None to let the request pass, or why not; an awaitable only if the store is asked."""
        headers = exchange.request.headers
        sent = {value.decode("latin-1") for value in headers.get_all(self.field)}
        named = self.tenant_of_host(exchange.request.host)
        named_by = "host" if named else "header"
        if named:
            sent.add(named)
        if not sent:
            return Rejection(TENANT_REFUSED, "no tenant was named") if self.required else None
        if len(sent) > 1:
            return Rejection(TENANT_REFUSED, "host and header name different tenants")
        tenant = sent.pop()
        rejection = self.judge(tenant)
        if rejection is not None:
            return rejection
        headers.set(self.field, tenant.encode())
        # On whatever answer leaves: what a cache keeps for one tenant is not for another.
        exchange.reply_headers.append((b"vary", self.field))
        exchange.on_finish.append(
            lambda ended: self.counts.add(
                ended.route, named_by, f"{ended.response_status // 100}xx"
            )
        )
        return None if self.store is None else self.ask_store(self.store, tenant)

    def judge(self, tenant: str) -> Rejection | None:
        """Whether there is such a tenant."""
        if not TENANT.fullmatch(tenant):
            return Rejection(TENANT_REFUSED, "the tenant is not a name")
        known = self.tenants
        if self.directory is not None:
            known = self.directory.names
            if known is None:
                return Rejection(TENANTS_UNAVAILABLE, headers=[(b"retry-after", b"5")])
        if known is not None and tenant not in known:
            return Rejection(TENANT_REFUSED, "there is no such tenant")
        return None

    async def ask_store(self, store: Store, tenant: str) -> Rejection | None:
        """Whether the tenant is suspended. The store answers within its timeout, or fails."""
        key = b"%b:tenants:suspended" % store.key_prefix
        try:
            suspended = await store.call("SISMEMBER", key, tenant)
        except StoreError as error:
            return None if self.fails_open else Rejection(error.kind)
        return Rejection(TENANT_SUSPENDED) if suspended else None

    def tenant_of_host(self, host: str) -> str:
        """The label in front of the suffix, or the empty string."""
        if not self.suffix or not host.endswith(self.suffix):
            return ""
        return host.removesuffix(self.suffix).rpartition(".")[2]
