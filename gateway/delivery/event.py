"""An event, and what is known of its way to one target: plain data, as it stands in the store."""

from __future__ import annotations

from typing import Any, Final

import msgspec

ORIGIN_REQUEST: Final = "request"
SCHEDULE_FIELD: Final = b"x-lockgate-schedule"
TICK_FIELD: Final = b"x-lockgate-tick"
STREAM_FIELD: Final = b"x-lockgate-stream"
ENTRY_FIELD: Final = b"x-lockgate-entry"
SOURCE_FIELDS: Final = frozenset({SCHEDULE_FIELD, TICK_FIELD, STREAM_FIELD, ENTRY_FIELD})
"""What tells a target where an event came from; no client may say it."""
_HISTORY: Final = 50


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The request that an event was, without its body.

    `origin` says where it came from: request, schedule:<name> or stream:<name>. `trace` is (trace
    id, flags, tracestate). `received_at` is Unix seconds. `key` is its idempotency key, the event's
    id if it had none. `client`, `scheme` and `port` are as in Request.
    """

    route: str
    method: str
    path: str
    query: bytes
    host: str
    headers: list[tuple[bytes, bytes]]
    params: dict[str, str]
    raw_params: dict[str, str]
    consumer: str
    identity: str
    tier: str
    correlation_id: str
    trace: tuple[str, str, bytes] | None
    received_at: float
    generation: int
    key: str
    origin: str = ORIGIN_REQUEST
    client: str = ""
    scheme: str = "http"
    port: int = 0


class Try(msgspec.Struct, frozen=True, array_like=True):
    """One attempt: its number in its epoch, when it began (Unix seconds), how long it took (ms).

    `code` is that of the taxonomy, or empty if there was an answer; `status` is 0 without one.
    """

    number: int
    at: float
    ms: int
    status: int
    code: str = ""
    epoch: int = 1


class Record(msgspec.Struct, array_like=True):
    """What is known of an event's way to one target.

    `epoch` counts from 1; a replay begins the next one. `attempts` counts the attempts that were
    made in it. `begun_at` is when it began (Unix seconds): `max_total` counts from there.
    `reason`, `status`, `code`, `detail` and `answer` say why it was given up: the class, what
    the last attempt met, and the beginning of its answer. `version` is the corrected body that is
    sent, 0 for the one that came. `progress` is for targets that save their state between steps;
    a replay keeps it, for they decide by the epoch what of it still counts.
    """

    epoch: int = 1
    attempts: int = 0
    begun_at: float = 0.0
    history: list[Try] = []
    reason: str = ""
    status: int = 0
    code: str = ""
    detail: str = ""
    answer: bytes = b""
    version: int = 0
    progress: bytes = b""
    replay_of: str = ""

    def note(self, attempt: Try) -> None:
        """Keep an attempt; of very many the last ones."""
        self.history = [*self.history, attempt][-_HISTORY:]


class Event(msgspec.Struct, frozen=True):
    """An event that was handed out for one target. `accepted_at` is Unix seconds, by the store."""

    id: str
    head: Head
    body: bytes
    accepted_at: float


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(Head).decode
_record = msgspec.msgpack.Decoder(Record).decode


def encode(value: Head | Record) -> bytes:
    """As it stands in the store."""
    return _encode(value)


def decode_head(data: bytes) -> Head:
    """Raises msgspec.MsgspecError."""
    return _head(data)


def decode_record(data: bytes) -> Record:
    """An empty one for nothing. Raises msgspec.MsgspecError."""
    return _record(data) if data else Record()


def as_json(value: Any) -> bytes:
    """JSON for people and for callbacks."""
    return msgspec.json.encode(value)
