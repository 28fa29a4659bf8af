"""Tells a webhook of events that were given up: gathered, at most once a minute for each reason.

What happened is only noted where it happens; everything else is done by a task of its own. The
counts are put together in the store, so that several gateways tell once between them. It is best
effort: what can't be told after some tries is counted and let go of; the letters are still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.control.client import ControlClient, ControlError
from gateway.delivery.event import Event, Record
from gateway.delivery.queue import Queue
from gateway.errors import StoreError
from gateway.observability.delivery import ALERTS
from gateway.observability.metrics import Metrics
from gateway.store.script import Script

logger = logging.getLogger("gateway.delivery")

_ALERT: Final = Script.load("delivery_alert")
# What fails together is told of together.
_GATHER_S: Final = 1.0
_STORE_AGAIN_S: Final = 5.0
_TIMEOUT_S: Final = 5.0
_TRIES: Final = (1.0, 5.0, 0.0)
"""Seconds after each try."""
_LAST_S: Final = 2.0

Key = tuple[str, str]


class Newest(msgspec.Struct):
    """The event that came last. Nothing of its payload."""

    event_id: str
    correlation_id: str
    target: str
    status: int
    code: str


class Alert(msgspec.Struct):
    """What is posted. `text` says the same for chats; `since` (Unix seconds) is when the first of
    the `count` events was given up.
    """

    type: str
    text: str
    route: str
    reason: str
    count: int
    since: float
    newest: Newest


@dataclass(slots=True)
class _Noted:
    count: int
    newest: Newest


class Alerts:
    """See the module. `every` is how often the same may be told, in seconds."""

    def __init__(
        self,
        url: str,
        client: ControlClient,
        queue: Queue,
        monotonic: Callable[[], float],
        metrics: Metrics,
        *,
        every: float = 60.0,
    ) -> None:
        self._url = url
        self._client = client
        self._queue = queue
        self._monotonic = monotonic
        self._counts = metrics.counts(ALERTS)
        self._every = every
        self._noted: dict[Key, _Noted] = {}
        self._due: dict[Key, float] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def dead(self, target: str, event: Event, record: Record) -> None:
        """An event was given up for a target."""
        head = event.head
        key = (head.route, record.reason)
        newest = Newest(event.id, head.correlation_id, target, record.status, record.code)
        before = self._noted.get(key)
        self._noted[key] = _Noted(before.count + 1 if before is not None else 1, newest)
        if key not in self._due:
            self._due[key] = self._monotonic() + _GATHER_S
            self._wake.set()

    async def start(self) -> None:
        """Begin to tell. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._tell())

    async def aclose(self) -> None:
        """Tell what was noted, if that is quickly done, and stop."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                for key in list(self._noted):
                    await self._turn(key)

    async def _tell(self) -> None:
        while True:
            now = self._monotonic()
            for key in [key for key, due in self._due.items() if due <= now]:
                del self._due[key]
                try:
                    await self._turn(key)
                except Exception:
                    logger.exception("an alert could not be made")
            self._wake.clear()
            pause = min(self._due.values(), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if pause is None else max(0.0, pause - now)):
                    await self._wake.wait()

    async def _turn(self, key: Key) -> None:
        """Put what was noted to the rest, and tell if it is time."""
        noted = self._noted.pop(key, None)
        newest = msgspec.json.encode(noted.newest) if noted is not None else b""
        count = noted.count if noted is not None else 0
        about = f"{key[0]}:{key[1]}"
        try:
            wait, total, newest, since = await self._queue.store.run(
                _ALERT, (self._queue.base,), (about, count, newest, round(self._every * 1000))
            )
        except StoreError:
            if noted is not None:
                later = self._noted.get(key)
                self._noted[key] = _Noted(
                    count + (later.count if later else 0), (later or noted).newest
                )
                self._due[key] = self._monotonic() + _STORE_AGAIN_S
            return
        if wait:
            self._due[key] = self._monotonic() + wait / 1000
        elif total:
            newest_one = msgspec.json.decode(newest, type=Newest)
            await self._post(make_alert(*key, total, since / 1000, newest_one))

    async def _post(self, alert: Alert) -> None:
        body = msgspec.json.encode(alert)
        headers = {"content-type": "application/json"}
        failure = ""
        for pause in _TRIES:
            try:
                reply = await self._client.post(
                    self._url, body, headers=headers, timeout=_TIMEOUT_S
                )
            except ControlError as error:
                failure = error.reason
            else:
                if 200 <= reply.status < 300:
                    self._counts.add(alert.route, "sent")
                    return
                failure = f"the answer was {reply.status}"
            await asyncio.sleep(pause)
        self._counts.add(alert.route, "failed")
        logger.error(
            "nobody could be told of dead letters",
            extra={"route": alert.route, "reason": alert.reason, "detail": failure},
        )


def make_alert(route: str, reason: str, count: int, since: float, newest: Newest) -> Alert:
    """What is posted of `count` events."""
    events = "1 event" if count == 1 else f"{count} events"
    met = newest.code or newest.status
    text = f"Lockgate gave up {events} of {route} ({reason}); the newest is {newest.event_id}"
    if met:
        text += f", which met {met}"
    return Alert("dead_letters", text, route, reason, count, since, newest)
