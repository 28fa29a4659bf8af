"""What the rest of the gateway sees of the store: two calls, one kind of failure, and its state."""

from __future__ import annotations

import abc
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import STORE_UNAVAILABLE, StoreError
from gateway.store.script import Script

Part = bytes | str | int | float
"""One word of a command. A number is sent as its decimal text."""

UNAVAILABLE: Final = frozenset(
    {
        "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOREPLICAS",
        "OOM", "READONLY", "TRYAGAIN", "WRONGPASS",
    }
)  # fmt: skip
"""Error replies of a store that can't do its work now, whatever it is asked."""


def failure(detail: str, *, sent: bool = True) -> StoreError:
    """A call that came to nothing.

    `sent` is False only if it is proved that the command never left this process; otherwise it may
    have been carried out. The detail goes to clients and says nothing about the store's address.
    """
    return StoreError(STORE_UNAVAILABLE, detail, sent=sent)


class ReplyError(StoreError):
    """The store answered with an error. `reply` is its text, for the log, never for a client."""

    def __init__(self, reply: str) -> None:
        self.code = reply.partition(" ")[0]
        self.reply = reply
        super().__init__(STORE_UNAVAILABLE, f"the store refused a command ({self.code})")

    def __str__(self) -> str:
        return f"{self.kind.code}: {self.reply}"

    @property
    def unavailable(self) -> bool:
        """Whether the store refuses everything, and not this command alone."""
        return self.code in UNAVAILABLE


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store is, for people and for metrics; free of secrets.

    `state` is `up`, `down` (not reached), `failing` (reached, and left alone after failures in
    a row) or `closed`. `since` and `error_at` are Unix seconds. `persistence` is what the server
    says of itself: `none`, `snapshots`, `everysec`, `always`, or `unknown`; `eviction` is its
    policy if it may drop keys. `nodes` are a cluster's.
    """

    state: str
    since: float
    kind: str
    address: str
    last_error: str = ""
    error_at: float = 0.0
    server: str = ""
    role: str = ""
    persistence: str = "unknown"
    eviction: str = ""
    in_flight: int = 0
    nodes: tuple[StoreStatus, ...] = ()


class Channel(abc.ABC):
    """A connection of its own for commands that wait in the store, such as XREADGROUP with BLOCK.

    One command at a time. After a failure the next call connects anew.
    """

    @abc.abstractmethod
    async def call(self, *parts: Part, timeout: float) -> Any:
        """The reply to one command, waited for at most `timeout` seconds. Raises StoreError."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close the connection; a call that waits fails."""


class Store(abc.ABC):
    """The store, in whichever way it is reached.

    Replies are what RESP2 has: `bytes`, `int`, `None` and lists of these. Every failure is a
    `StoreError`, within `timeout` seconds. A command that may have been carried out is never sent
    a second time.
    """

    key_prefix: bytes
    timeout: float

    @abc.abstractmethod
    async def call(self, *parts: Part) -> Any:
        """The reply to one command. Raises StoreError."""

    @abc.abstractmethod
    def run(self, script: Script, keys: tuple[Part, ...], args: tuple[Part, ...]) -> Awaitable[Any]:
        """The reply of a script, to be awaited at once; all of `keys` share a hash tag.

        Raises StoreError, now or when awaited.
        """

    @abc.abstractmethod
    def channel(self) -> Channel:
        """A connection of its own for blocking reads; its owner closes it."""

    @abc.abstractmethod
    def require_durability(self) -> None:
        """Say that something must survive a power cut. May be called at any time, and again.

        The embedded engine then confirms nothing before it is on disk. A store that others run is
        only looked at, and a warning says so if it keeps less than that.
        """

    @abc.abstractmethod
    def status(self) -> StoreStatus:
        """How it is now."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Connect. Idempotent. A store that can't be reached is no error: it is tried again in the
        background. Raises ConfigError if the embedded engine can't be started.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close every connection; calls that wait fail. Safe to call twice."""
