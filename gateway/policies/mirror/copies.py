"""The copies that are under way: bounded, each with its time, gone when the policy is closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.errors import GatewayError
from gateway.message import Exchange, Handler, Response
from gateway.policies.mirror.compare import Seen

logger = logging.getLogger("gateway.mirror")


class Copies:
    """Tasks nobody waits for. `bound` is how many there may be, `timeout` in seconds for each."""

    def __init__(self, bound: int, timeout: float) -> None:
        self._bound = bound
        self._timeout = timeout
        self._running: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._running) >= self._bound

    def begin(self, work: Coroutine[Any, Any, None], end: Callable[[str], None]) -> None:
        """Run it within its time; `end` is told how that ended: answered, failed, timeout or
        cancelled. What the work does once it is done with the upstream, it does by itself.
        """
        task = asyncio.get_running_loop().create_task(self._run(work, end))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, work: Coroutine[Any, Any, None], end: Callable[[str], None]) -> None:
        result = "failed"
        try:
            async with asyncio.timeout(self._timeout):
                await work
            result = "answered"
        except TimeoutError:
            result = "timeout"
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        except GatewayError:
            pass
        except Exception:
            # Whatever it is, it is no matter of the client's.
            logger.exception("a mirrored request failed")
        finally:
            end(result)

    async def aclose(self) -> None:
        """Cancel those under way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def call(exchange: Exchange, send: Handler, limit: int) -> Seen:
    """Send, and read the answer up to `limit` bytes. Raises GatewayError."""
    exchange.task = asyncio.current_task()
    response = await send(exchange)
    try:
        return Seen(response.status, response.headers, await _read(response, limit))
    finally:
        response.close()


async def _read(response: Response, limit: int) -> bytes | None:
    body = response.body
    if body is not None:
        return body if len(body) <= limit else None
    pieces: list[bytes] = []
    if response.stream is not None:
        async for piece in response.stream:
            pieces.append(piece)
            limit -= len(piece)
            if limit < 0:
                return None
    return b"".join(pieces)
