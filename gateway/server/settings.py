"""What an operator can set about connections; one object that every connection reads as it goes.

A reload assigns to its attributes, and connections that are already open follow at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import ErrorCode

OnRefused = Callable[[ErrorCode, str, str], None]


def _ignore(kind: ErrorCode, detail: str, client: str) -> None:
    """Nobody asked to hear of refusals."""


@dataclass(slots=True)
class ServerSettings:
    """Limits in bytes or pieces, timeouts in seconds.

    `headers_timeout` bounds a whole head, from its first byte, or from the connect for the first
    one. `body_idle_timeout` bounds the wait for the next byte of a request body, and for a client
    that does not read its answer. Beside it a body must arrive at `body_min_rate` bytes a second on
    average, after `body_grace` seconds (0 bytes a second switches that off). `connections` is the
    most that may be open at once: one more is answered 503 and closed. `on_refused(kind, detail,
    client)` hears of each request that the protocol itself refused; it must not raise.
    """

    head_bytes: int = 32 * 1024
    header_count: int = 128
    target_bytes: int = 8 * 1024
    connections: int = 10_000
    headers_timeout: float = 10.0
    body_idle_timeout: float = 30.0
    body_min_rate: float = 240.0
    body_grace: float = 10.0
    keep_alive_timeout: float = 75.0
    on_refused: OnRefused = _ignore
