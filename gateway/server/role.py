"""What a process is there for: it serves requests, or it delivers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gateway.config.store_url import StoreKind
from gateway.config.types import Address
from gateway.errors import ConfigError
from gateway.runtime import Loaded


@dataclass(frozen=True, slots=True)
class Role:
    """A `worker` has no public listener and delivers, whatever server.deliver says. `admin` stands
    in place of server.admin, so that a worker fits beside a gateway on one machine.
    """

    worker: bool = False
    admin: Address | None = None

    def applied(self, loaded: Loaded) -> Loaded:
        """The configuration as this process uses it. Raises ConfigError for a worker that could
        never deliver anything.
        """
        gateway = loaded.configuration.gateway
        changes: dict[str, object] = {}
        if self.admin is not None:
            if not self.admin.is_loopback and gateway.server.admin_token is None:
                message = "an admin listener that others can reach needs it"
                raise ConfigError(message, "server.admin_token")
            changes["admin"] = self.admin
        if self.worker:
            if gateway.store.url.kind is StoreKind.EMBEDDED:
                message = (
                    "a worker takes events from the store that gateways put them into, and an "
                    "embedded store belongs to one gateway alone: let them share a Redis or "
                    "Valkey, such as redis://host:6379"
                )
                raise ConfigError(message, "store.url")
            changes |= {"deliver": True, "tls": None}
        if not changes:
            return loaded
        server = gateway.server.model_copy(update=changes)
        gateway = gateway.model_copy(update={"server": server})
        return replace(loaded, configuration=replace(loaded.configuration, gateway=gateway))

    @property
    def fixed(self) -> tuple[str, ...]:
        """The keys of `server` that can't change while the process runs."""
        return ("admin",) if self.worker else ("listen", "admin")


GATEWAY: Final = Role()
