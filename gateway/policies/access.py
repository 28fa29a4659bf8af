"""access: which addresses may call a route, before anything costs more than a look-up.

The address is the client's behind trusted proxies. A client without an address, on a unix socket or
behind a proxy that does not say whose request it brings, is in no network: an allow list shuts it
out, a deny list alone does not.
"""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import Field

from gateway.addresses import Networks
from gateway.config.base import RefusingPolicyConfig
from gateway.config.types import Cidr
from gateway.errors import ACCESS_DENIED, Rejection
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard

# One for all: it says nothing about the request, so that lists can't be read out by trying.
_REFUSAL: Final = Rejection(ACCESS_DENIED)


class AccessConfig(RefusingPolicyConfig):
    """Who may call, by IP address."""

    allow: list[Cidr] = Field(default=[], description="Networks that may call; everyone if empty.")
    deny: list[Cidr] = Field(
        default=[], description="Networks that may not call, even if they are in allow."
    )


class AccessPolicy(Guard):
    """Refuses clients by their address; a match in `deny` wins over one in `allow`."""

    name: ClassVar[str] = "access"
    Config: ClassVar[type[AccessConfig]] = AccessConfig
    switchable: ClassVar[bool] = False

    def __init__(self, config: AccessConfig) -> None:
        self._allow = Networks(config.allow) if config.allow else None
        self._deny = Networks(config.deny) if config.deny else None

    @classmethod
    def build(cls, config: AccessConfig, context: BuildContext) -> AccessPolicy:
        """Index the networks."""
        del context
        return cls(config)

    def check(self, exchange: Exchange) -> Rejection | None:
        """Refuse with 403 who is denied, or not among the allowed."""
        client = exchange.request.client
        if self._deny is not None and self._deny.contains(client):
            return _REFUSAL
        if self._allow is not None and not self._allow.contains(client):
            return _REFUSAL
        return None
