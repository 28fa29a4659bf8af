"""Embedded stores with several workers: the supervising process runs them, the workers ask it.

So there is one engine for a data directory, whatever happens to any worker. It ends when the last
worker that uses it says that it does not need it any more (after a reload), and with the gateway;
a worker that dies does not end it, because its successor needs it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import ConfigError
from gateway.server.channel import CallFailed, Channel, ChannelClosed
from gateway.store.opening import LocalEngines


class FleetEngines:
    """The supervising process's side. Workers are told apart by their numbers."""

    def __init__(self) -> None:
        self._local = LocalEngines()
        # How often each worker uses an engine: twice while one configuration replaces another.
        self._users: dict[Path, Counter[int]] = {}

    def handlers(self, number: int) -> dict[str, Callable[[msgspec.Raw], Any]]:
        """What the worker of this number may call."""

        async def acquire(payload: msgspec.Raw) -> str:
            return await self._acquire(number, Path(msgspec.json.decode(payload, type=str)))

        async def release(payload: msgspec.Raw) -> None:
            await self._release(number, Path(msgspec.json.decode(payload, type=str)))

        return {"engine_acquire": acquire, "engine_release": release}

    async def _acquire(self, number: int, data: Path) -> str:
        # One use of the engine stands for all workers: it is given back when the last one is gone.
        socket = await self._local.acquire(data)
        if data in self._users:
            await self._local.release(data)
        self._users.setdefault(data, Counter())[number] += 1
        return socket

    async def _release(self, number: int, data: Path) -> None:
        users = self._users.get(data)
        if users is None:
            return
        users[number] -= 1
        if users[number] <= 0:
            del users[number]
        if not users:
            del self._users[data]
            await self._local.release(data)

    def gone(self, number: int) -> None:
        """The worker is gone; what it used stays for its successor."""
        for users in self._users.values():
            del users[number]

    async def aclose(self) -> None:
        """Stop every engine."""
        self._users.clear()
        await self._local.aclose()


class RemoteEngines:
    """The worker's side: `Engines` over the channel to the supervising process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def acquire(self, data: Path) -> str:
        try:
            return await self._channel.call("engine_acquire", str(data), result=str)
        except (ChannelClosed, CallFailed) as error:
            message = f"the embedded store was not started ({error!r})"
            raise ConfigError(message, "store.data") from error

    async def release(self, data: Path) -> None:
        self._channel.notify("engine_release", str(data))
