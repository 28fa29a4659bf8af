"""A master that sentinels know: asked for anew before every connection.

Only the question goes through redis-py. The connection to the master is the shared one, so that a
failover changes where it leads and nothing else. A master that was demoted is noticed by its role
in the greeting, by READONLY, and because sentinels close its clients' connections.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.config.store_url import StoreUrl
from gateway.store.base import failure
from gateway.store.reach import Place
from gateway.store.shared import SharedStore, StoreOptions

# For each sentinel; they are asked one after another, and a connection as a whole has two seconds.
_ASK_S: Final = 0.5


class SentinelStore(SharedStore):
    """A `SharedStore` on whichever server is the master now."""

    def __init__(self, options: StoreOptions) -> None:
        self._sentinel: Sentinel | None = None
        super().__init__(self._ask, options)

    async def _ask(self) -> Place:
        url = self._options.url
        # Made anew: certificates may have changed, and it is cheap beside a failover.
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(url.hosts), sentinel_kwargs=_arguments(url)
        )
        try:
            host, port = await sentinel.discover_master(url.master)
        except (RedisError, OSError, ssl.SSLError) as error:
            why = f"no sentinel names a master {url.master} ({type(error).__name__})"
            raise failure(why, sent=False) from error
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return Place(str(host), int(port))


def _arguments(url: StoreUrl) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "socket_timeout": _ASK_S,
        "socket_connect_timeout": _ASK_S,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "protocol": 2,
    }
    if url.sentinel_password is not None:
        arguments["password"] = url.sentinel_password.get_secret_value()
        arguments["username"] = url.sentinel_user or None
    if url.tls:
        arguments["ssl"] = True
        arguments["ssl_ca_certs"] = str(url.ca) if url.ca else None
        arguments["ssl_certfile"] = str(url.cert) if url.cert else None
        arguments["ssl_keyfile"] = str(url.key) if url.key else None
    return arguments
