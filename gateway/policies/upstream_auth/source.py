"""One token for all routes and upstreams that share the credentials, fetched once for all who wait.

It lives in the registry under a key made of the credentials, so that a reload keeps the token and a
changed secret begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.errors import UPSTREAM_CREDENTIALS, GatewayError
from gateway.policies.upstream_auth.endpoint import Granted, NoToken
from gateway.policies.upstream_auth.machine import TokenState

logger = logging.getLogger("gateway")


class TokenSource:
    """Keeps a token fresh. `fetch` gets a new one, or raises NoToken; `count` is told the outcome.

    `name` says in logs whose token it is; it holds no secret.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[Granted]],
        clock: Clock,
        random: random_module.Random,
        count: Callable[[str], None],
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._now = clock.monotonic
        self._chance = random.random
        self._count = count
        self._state = TokenState()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"TokenSource({self._name})"

    async def start(self) -> None:
        """Begin to fetch a token, so that the first request need not wait; nothing waits here.

        An endpoint that is down is no reason not to start.
        """
        if self._state.wants_fetch(self._now()):
            self._begin()

    def current(self) -> str | None:
        """The token, if it is good; a new one is on its way if that is due."""
        state, now = self._state, self._now()
        if now >= state.refresh_at and state.wants_fetch(now):
            self._begin()
        return state.value if state.usable(now) else None

    async def obtain(self) -> str:
        """The token, waited for. Raises GatewayError(UPSTREAM_CREDENTIALS)."""
        token = self.current()
        if token is None and self._task is not None:
            # It is fetched for everyone, whoever of them leaves.
            await asyncio.wait((self._task,))
            token = self.current()
        if token is None:
            raise self._unavailable()
        return token

    async def replace(self, refused: str) -> str | None:
        """Another token than the one that the upstream refused; None if there is none to be had."""
        if self._task is None and not self._state.rejected(refused, self._now()):
            return None
        token = self.current()
        if self._task is not None and token == refused:
            await asyncio.wait((self._task,))
            token = self.current()
        return None if token == refused else token

    def reject(self, refused: str) -> None:
        """The upstream refused this token: have another one fetched, and don't wait for it."""
        if self._state.rejected(refused, self._now()):
            self.current()

    def _unavailable(self) -> GatewayError:
        retry_after = str(self._state.retry_after(self._now())).encode()
        return GatewayError(
            UPSTREAM_CREDENTIALS, sent=False, headers=[(b"retry-after", retry_after)]
        )

    def _begin(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("fetching a token failed in an unforeseen way", exc_info=error)

    async def _run(self) -> None:
        state = self._state
        began = self._now()
        try:
            granted = await self._fetch()
        except NoToken as error:
            self._failed(str(error))
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._failed("the gateway failed")
            raise
        else:
            if state.failures:
                logger.info("there is a token again", extra={"token": self._name})
            # Its life began when it was asked for, at the latest.
            state.fetched(granted.token, granted.life, began, self._chance())
            self._count("success")

    def _failed(self, reason: str) -> None:
        state, now = self._state, self._now()
        if not state.failures:
            left = max(0.0, state.unusable_at - now) if state.value else 0.0
            logger.warning(
                "no new token: %s; the last one is good for %.0f s",
                reason,
                left,
                extra={"token": self._name},
            )
        state.failed(now, self._chance())
        self._count("failure")

    async def aclose(self) -> None:
        """Stop fetching."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
