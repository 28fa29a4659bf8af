"""Which deliveries of webhooks were taken already: the memory behind replay protection.

A sender that gets no 2xx sends the same delivery again, with the same id, and must then be heard.
So an id is remembered only once its exchange ended with a 2xx:

    take    SET key <token> NX PX 60 s      a claim, for as long as the exchange is under way
    2xx     SET key done PX remember        from now on it is refused
    else    delete the claim, if it is ours the sender may come again

Meanwhile, a second request with that id is refused as well, with Retry-After: should the first
fail, the sender's next try is heard. If this process dies in between, the claim ends by itself.

This refuses repetition; it does not promise that an upstream sees a delivery once. If the store is
lost after an answer, or the process dies between the answer and the note about it, the same
delivery is taken again: use `idempotency` where that matters.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random as random_module
from enum import Enum
from typing import Final

from gateway.errors import StoreError
from gateway.message import Exchange
from gateway.store.base import Store
from gateway.store.script import Script

logger = logging.getLogger("gateway")

# How long a claim lasts without an end: longer than a webhook's sender waits for an answer.
CLAIM_MS: Final = 60_000
_DONE: Final = b"done"
_RELEASE: Final = Script.load("webhook_release")


class Seen(Enum):
    """What is known of a delivery."""

    NEW = "new"
    IN_FLIGHT = "in flight"
    DONE = "done"


class Deliveries:
    """The deliveries of one identity; `remember` is in seconds."""

    def __init__(
        self, store: Store, identity: str, remember: float, random: random_module.Random
    ) -> None:
        self._store = store
        self._identity = identity
        self.remember = remember
        self._remember_ms = max(1, int(remember * 1000))
        self._random = random
        self._notes: set[asyncio.Task[None]] = set()

    async def take(self, exchange: Exchange, delivery: bytes) -> Seen:
        """Claim a delivery for this exchange; NEW if it is the first. Raises StoreError.

        The exchange's end decides whether it is remembered.
        """
        key = self._key(exchange.route, delivery)
        token = b"%016x" % self._random.getrandbits(64)
        # Before the claim is made: a client that leaves meanwhile must not leave it behind.
        exchange.on_finish.append(lambda ended: self._note(ended, key, token))
        claimed = await self._store.call("SET", key, token, "NX", "PX", CLAIM_MS)
        if claimed is not None:
            return Seen.NEW
        return Seen.DONE if await self._store.call("GET", key) == _DONE else Seen.IN_FLIGHT

    def _key(self, route: str, delivery: bytes) -> bytes:
        # Of one length whatever the sender chose, and apart for each route: one event may rightly
        # be sent to two of them.
        digest = hashlib.sha256(b"%b\0%b" % (route.encode(), delivery)).hexdigest()
        prefix = self._store.key_prefix
        return b"%b:webhook:{%b:%b}" % (prefix, self._identity.encode(), digest.encode())

    def _note(self, exchange: Exchange, key: bytes, token: bytes) -> None:
        taken = 200 <= exchange.response_status < 300 and exchange.error is None
        task = asyncio.get_running_loop().create_task(self._write(key, token, taken=taken))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write(self, key: bytes, token: bytes, *, taken: bool) -> None:
        try:
            remember = self._remember_ms if taken else 0
            await self._store.run(_RELEASE, (key,), (token, remember))
        except StoreError as error:
            what = "was taken" if taken else "may come again"
            logger.warning("could not note that a webhook's delivery %s: %s", what, error.kind.code)

    async def aclose(self) -> None:
        """Wait until all that ended is written down."""
        if self._notes:
            await asyncio.gather(*self._notes, return_exceptions=True)
