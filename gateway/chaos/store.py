"""A store that can be stopped, held up and started again while the gateway uses it.

It is the embedded engine itself, in a temporary folder. The gateway is given the path of a link,
so that an engine that was started anew is found in the old place.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from gateway.store.engine import Engine, find_binary

State = Literal["up", "down", "stall"]

# sockaddr_un; see gateway/store/engine.py.
_MAX_PATH: Final = 100
_PATIENCE_S: Final = 1.0


class StoreStandIn:
    """The engine behind every embedded store of one runtime: an `Engines` with a switch."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "store"
        self._link = folder / "store.sock"
        self._engine: Engine | None = None
        self._users = 0

    @property
    def is_used(self) -> bool:
        """Whether anything configured needs a store."""
        return self._users > 0

    async def acquire(self, data: Path) -> str:
        """The socket's path. Raises ConfigError if the engine can't be started."""
        del data
        self._users += 1
        await self._start()
        return str(self._link)

    async def release(self, data: Path) -> None:
        """One user less; the last one's engine is stopped."""
        del data
        self._users -= 1
        if self._users <= 0:
            await self._stop()

    async def settle(self, state: State, length: float) -> None:
        """Be in this state for `length` seconds; calls wait that long at most while it stalls."""
        if not self.is_used:
            return
        if state == "down":
            await self._stop()
            return
        await self._start()
        if state == "stall":
            await self._hold(length)

    async def aclose(self) -> None:
        """Stop the engine."""
        await self._stop()

    async def _start(self) -> None:
        if self._engine is not None:
            return
        engine = Engine(self._data, find_binary())
        await engine.start()
        self._engine = engine
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(engine.socket)

    async def _stop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.aclose()

    async def _hold(self, length: float) -> None:
        """Have the engine take commands and answer none. It goes on by itself when that is over.

        Not by stopping its process: one that is stopped would stay if this process were killed.
        """
        assert self._engine is not None
        reader, writer = await asyncio.open_unix_connection(self._engine.socket)
        try:
            milliseconds = b"%d" % max(1, int(length * 1000))
            words = (b"CLIENT", b"PAUSE", milliseconds, b"ALL")
            writer.write(b"*%d\r\n" % len(words))
            writer.writelines(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            async with asyncio.timeout(_PATIENCE_S):
                await reader.readline()
        finally:
            writer.close()


def make_folder() -> Path:
    """A folder that only this user can enter, with a path that is short enough for a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes it private
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="lockgate-chaos-", dir=parent))
            if len(os.fsencode(folder / "store.sock")) <= _MAX_PATH:
                return folder
            folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="lockgate-chaos-"))
