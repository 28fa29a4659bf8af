"""What the process does on signals: TERM and INT drain, a second one forces, HUP reloads."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Signal handling of one event loop. Install it before anything that may take long.

    `stop` is set by the first TERM or INT, `force` by the second. `on_hangup` is called at each
    HUP; until it is given, a HUP is ignored rather than fatal.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.on_hangup: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()

    def install(self) -> None:
        """Take the signals over from Python and uvicorn."""
        for number in STOPPING:
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._hangup)

    def remove(self) -> None:
        """Give the signals back, so that a later one ends the process at once."""
        for number in (*STOPPING, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        (self.force if self.stop.is_set() else self.stop).set()

    def _hangup(self) -> None:
        if self.on_hangup is not None:
            self.on_hangup()
