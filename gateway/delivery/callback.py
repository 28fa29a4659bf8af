"""The target that is told how all the others ended: a POST of the event's status."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.control.client import ControlClient, ControlError
from gateway.delivery.event import as_json
from gateway.delivery.outcome import Failed, Outcome, judge_status
from gateway.delivery.queue import Queue
from gateway.delivery.sign import Signer
from gateway.delivery.status import read, status_of
from gateway.delivery.target import Work, key_field
from gateway.message import Headers

_TIMEOUT_S = 10.0


class CallbackTarget:
    """Posts to a URL of the configuration, repeated like every delivery."""

    def __init__(
        self, url: str, client: ControlClient, queue: Queue, signer: Signer | None, clock: Clock
    ) -> None:
        self._url = url
        self._client = client
        self._queue = queue
        self._signer = signer
        self._clock = clock

    async def attempt(self, work: Work) -> Outcome:
        """Tell. Raises StoreError if the status can't be asked for, msgspec.MsgspecError if a newer
        gateway has written it.
        """
        event = work.event
        stored = read(event.id, await self._queue.fields(event.id))
        if stored is None:
            return Failed(True, code="event_gone")
        body = as_json(status_of(stored))
        headers = Headers(
            [
                (b"content-type", b"application/json"),
                (b"idempotency-key", key_field(event.head, work.record, ".callback")),
                (b"x-correlation-id", event.head.correlation_id.encode()),
            ]
        )
        if self._signer is not None:
            self._signer.sign(headers, f"{event.id}.callback", self._clock.wall(), body)
        fields = {name.decode(): value.decode("latin-1") for name, value in headers.raw}
        try:
            reply = await self._client.post(self._url, body, headers=fields, timeout=_TIMEOUT_S)
        except ControlError as error:
            return Failed(False, code="callback_failed", detail=error.reason)
        after = reply.headers.get("retry-after")
        return judge_status(reply.status, after.encode() if after else None, self._clock.wall())
