"""The records in the store: claimed, renewed, completed or given back, each in one script.

Every change names the claim it is made for, so that a gateway whose lease has lapsed, and whose
place another has taken, changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import StoreError
from gateway.policies.idempotency.record import (
    TOKEN_BYTES,
    Answer,
    Record,
    UnreadableRecord,
    decode,
    encode_claim,
    encode_completed,
)
from gateway.store.base import Store, failure
from gateway.store.script import Script

logger = logging.getLogger("gateway.idempotency")

_CLAIM: Final = Script.load("idempotency_claim")
_SETTLE: Final = Script.load("idempotency_settle")
# An answer that could not be stored is tried again after these many seconds, as long as the claim
# may still stand: what was carried out must not be carried out again because the store blinked.
_AGAIN_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Claim:
    """One exchange's right to carry a request out. `text` is what the store holds for it."""

    record: bytes
    text: bytes
    fingerprint: bytes


class Ledger:
    """The records of one route. `lease` and `ttl` are in seconds."""

    def __init__(self, store: Store, route: str, lease: float, ttl: float) -> None:
        self._store = store
        # A record that a power cut undoes is a request that is carried out twice.
        store.require_durability()
        self._lease = lease
        self._lease_ms = round(lease * 1000)
        self._ttl_ms = round(ttl * 1000)
        self._prefix = b"%b:idempotency:%b:" % (store.key_prefix, route.encode())
        self._later: set[asyncio.Task[None]] = set()

    def claim(self, consumer: str, key: str, print_: bytes) -> Claim:
        """A new claim on a consumer's key; nothing is stored yet."""
        # Hashed: a key may be long, and may be somebody's secret.
        scope = hashlib.sha256(b"%d:" % len(consumer.encode()) + (consumer + key).encode())
        record = self._prefix + scope.hexdigest().encode()
        # Random for real: a token that two processes share would let both go on.
        return Claim(record, encode_claim(os.urandom(TOKEN_BYTES), print_), print_)

    async def take(self, claim: Claim) -> Record | None:
        """None if the record is ours now, otherwise what it says. Raises StoreError."""
        found = await self._store.run(_CLAIM, (claim.record,), (claim.text, self._lease_ms))
        if found is None:
            return None
        try:
            return decode(found[0])
        except UnreadableRecord as error:
            raise failure("the store holds something else under this key") from error

    def keep(self, claim: Claim) -> asyncio.Task[None]:
        """Renew the lease until the task is cancelled."""
        return asyncio.get_running_loop().create_task(self._renew(claim))

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self._put(claim, self._lease_ms)
            except StoreError as error:
                # The next renewal may go well; until then the lease has two thirds left.
                logger.warning("a claim was not renewed", extra={"reason": error.detail})

    async def complete(self, claim: Claim, answer: Answer) -> None:
        """Store the answer; if the store can't take it now, go on trying behind the caller."""
        text = encode_completed(claim.fingerprint, answer)
        try:
            await self._put(claim, self._ttl_ms, text)
        except StoreError:
            task = asyncio.get_running_loop().create_task(self._complete_later(claim, text))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _complete_later(self, claim: Claim, text: bytes) -> None:
        reason = ""
        for pause in _AGAIN_S:
            await asyncio.sleep(pause)
            try:
                await self._put(claim, self._ttl_ms, text)
            except StoreError as error:
                reason = error.detail
            else:
                return
        logger.error("an idempotent answer was not stored", extra={"reason": reason})

    async def give_back(self, claim: Claim) -> None:
        """Let the next request with this key go ahead; without the store, its lease lapses."""
        try:
            await self._put(claim, 0)
        except StoreError as error:
            logger.warning("a claim was not given back", extra={"reason": error.detail})

    async def _put(self, claim: Claim, milliseconds: int, text: bytes | None = None) -> Any:
        end = () if text is None else (text,)
        return await self._store.run(_SETTLE, (claim.record,), (claim.text, milliseconds, *end))
