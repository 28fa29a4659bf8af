"""The keys of one issuer, kept fresh in the background. Long-lived: it survives reloads.

Fetching is single flight: however many requests wait for keys, the provider is asked once. When it
can't be reached, the last good keys go on for a while (`freshness.py` decides all of that).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.clock import Clock
from gateway.observability.families import Counts
from gateway.policies.auth.freshness import Freshness
from gateway.policies.auth.keys import Key, KeySet
from gateway.policies.auth.places import NoKeys, Place

logger = logging.getLogger("gateway.auth")

_SHORTEST_SLEEP_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider can't be asked: nobody knows whether the key exists. Seconds to the next try."""

    retry_after: float


class KeySource:
    """`keys` is what there is now, None if there never were any or they became too old.

    `name` is for logs and counts: the identity that first asked for it. `patience` is how long one
    request waits for a fetch, in seconds: there may be two calls in it.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        freshness: Freshness,
        *,
        clock: Clock,
        counts: Counts,
        patience: float,
    ) -> None:
        self._name = name
        self._place = place
        self._freshness = freshness
        self._now = clock.monotonic
        self._counts = counts
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._flight: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[frozenset[bytes]], None]] = []
        self.keys: KeySet | None = None

    async def start(self) -> None:
        """Begin to fetch in the background; waits for nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"keys of {self._name}")

    async def aclose(self) -> None:
        """Stop, and cut a fetch under way."""
        tasks = [each for each in (self._task, self._flight) if each is not None]
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_change(self, listener: Callable[[frozenset[bytes]], None]) -> None:
        """Have `listener` called with the digests of all keys that are good from now on."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def off_change(self, listener: Callable[[frozenset[bytes]], None]) -> None:
        """Call it no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def known(self, kid: str | None, algorithm: str) -> list[Key] | None:
        """The keys to try. None if there are none of that name here: ask `look`."""
        return None if self.keys is None else self.keys.find(kid, algorithm)

    async def look(self, kid: str | None, algorithm: str) -> list[Key] | Unknown:
        """The same after asking the provider, if it may be asked now; empty if there is no key."""
        freshness = self._freshness
        now = self._now()
        if self.keys is None:
            if freshness.failures and not freshness.is_due(now) and self._flight is None:
                return Unknown(freshness.next_fetch - now)
            await self.fetch(self._patience)
        elif kid is not None and freshness.is_unknown(now, kid):
            return []
        elif self._flight is not None or freshness.may_look(now):
            await self.fetch(self._patience)
            if self._flight is not None:
                return Unknown(1.0)
            if kid is not None and not freshness.failures and self.known(kid, algorithm) is None:
                freshness.note_unknown(self._now(), kid)
        found = self.known(kid, algorithm)
        if found is not None:
            return found
        if self.keys is None or freshness.failures:
            return Unknown(freshness.next_fetch - self._now())
        return []

    async def fetch(self, timeout: float | None = None) -> None:
        """Ask the provider, together with whoever else waits for the answer; at most so long."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch(), name=f"fetching keys of {self._name}")
            self._flight.add_done_callback(self._landed)
        # Not awaited itself: a client that leaves must not take the others' answer with it, and a
        # flight that is cut when the source closes cancels nobody who waits.
        await asyncio.wait([self._flight], timeout=timeout)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _fetch(self) -> None:
        try:
            keys, headers = await self._place.read()
        except NoKeys as error:
            self._failed(error.reason)
        except Exception:
            logger.exception("reading keys failed", extra={"identity": self._name})
            self._failed("internal error")
        else:
            self._succeeded(keys, headers)

    def _failed(self, reason: str) -> None:
        self._freshness.failed(self._now())
        self._counts.add(self._name, "failed")
        level = logging.WARNING if self._freshness.failures == 1 else logging.DEBUG
        left = "the last ones are used meanwhile" if self.keys else "there are none"
        logger.log(level, "can't get keys, %s: %s", left, reason, extra={"identity": self._name})

    def _succeeded(self, keys: KeySet, headers: Mapping[str, str]) -> None:
        if self._freshness.failures:
            logger.info("keys can be had again", extra={"identity": self._name})
        self._freshness.succeeded(self._now(), headers)
        self._counts.add(self._name, "ok")
        if keys.same_as(self.keys):
            return
        for reason in keys.skipped:
            logger.warning("a key is not used: %s", reason, extra={"identity": self._name})
        self._freshness.forget_unknown()
        self._replace(keys)

    def _replace(self, keys: KeySet | None) -> None:
        self.keys = keys
        digests = frozenset[bytes]() if keys is None else keys.digests()
        for listener in list(self._listeners):
            listener(digests)

    async def _run(self) -> None:
        freshness = self._freshness
        while True:
            if freshness.is_due(self._now()):
                await self.fetch()
            now = self._now()
            wake = freshness.next_fetch
            if self.keys is not None:
                if now >= freshness.usable_until:
                    logger.error("the keys are too old to be used", extra={"identity": self._name})
                    self._replace(None)
                else:
                    wake = min(wake, freshness.usable_until)
            await asyncio.sleep(max(wake - now, _SHORTEST_SLEEP_S))
