"""Names to addresses, remembered for a while. Which of them is used is decided elsewhere.

The system's resolver tells no TTL and blocks a thread, so an answer is used for `refresh` seconds,
then renewed in the background while it stays in use; when the renewal fails, the last good answer
is kept. One look-up of a name runs at a time, whoever asks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.clock import Clock
from gateway.errors import DNS_FAILED, UpstreamError

REFRESH_S: Final = 30.0
# Failed look-ups are remembered briefly: each of them holds a thread for seconds.
_FAILURE_S: Final = 1.0

Lookup = Callable[[str, int], Awaitable[list[str]]]


async def system_lookup(host: str, port: int) -> list[str]:
    """Ask the system, in a thread. Addresses in the order of RFC 6724; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, so that there is nothing to resolve."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Answer:
    __slots__ = ("addresses", "error", "expires", "pending")

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.error = ""
        self.expires = 0.0
        self.pending: asyncio.Task[None] | None = None


class Resolver:
    """Resolves the names of one upstream's targets. `lookup` raises OSError when it fails."""

    def __init__(
        self, clock: Clock, lookup: Lookup = system_lookup, refresh: float = REFRESH_S
    ) -> None:
        self._now = clock.monotonic
        self._lookup = lookup
        self._refresh = refresh
        self._answers: dict[tuple[str, int], _Answer] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, at least one. Raises UpstreamError(DNS_FAILED)."""
        answer = self._answers.get((host, port))
        if answer is None:
            answer = self._answers[host, port] = _Answer()
        if self._now() >= answer.expires and answer.pending is None:
            answer.pending = asyncio.ensure_future(self._renew(host, port, answer))
        if not answer.addresses and answer.pending is not None:
            # Shielded: the look-up serves everyone who waits, and the next one who asks.
            await asyncio.shield(answer.pending)
        if not answer.addresses:
            raise UpstreamError(
                DNS_FAILED, f"{host}: {answer.error}", next_hop=f"{host}:{port}", sent=False
            )
        return answer.addresses

    def known(self, host: str, port: int) -> list[str]:
        """The last good answer, perhaps none, without waiting; an old one is renewed meanwhile."""
        answer = self._answers.get((host, port))
        if answer is None:
            return []
        if self._now() >= answer.expires and answer.pending is None:
            answer.pending = asyncio.ensure_future(self._renew(host, port, answer))
        return answer.addresses

    async def _renew(self, host: str, port: int, answer: _Answer) -> None:
        try:
            addresses = await self._lookup(host, port)
        except (OSError, UnicodeError) as error:
            addresses = []
            answer.error = getattr(error, "strerror", None) or str(error) or "no answer"
        else:
            answer.error = "" if addresses else "the name has no address"
        finally:
            answer.pending = None
        if addresses:
            answer.addresses = addresses
            answer.expires = self._now() + self._refresh
        else:
            answer.expires = self._now() + (self._refresh if answer.addresses else _FAILURE_S)

    async def aclose(self) -> None:
        """Give up the look-ups that run."""
        pending = [answer.pending for answer in self._answers.values() if answer.pending]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
