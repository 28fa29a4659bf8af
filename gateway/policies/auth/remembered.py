"""Tokens that were verified before, by digest, so that they need not be verified again.

Bounded by two generations: what is used stays in the young one, and when that is full the old one
is dropped whole. So a hit is one look-up that changes nothing, and no list is kept in order. The
token itself is not kept: memory may be read by whoever debugs a process.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from gateway.message import Principal

CAPACITY: Final = 20_000


class Entry(NamedTuple):
    """What was found out: `principal` holds from `begins` to `ends` (seconds of the Unix epoch).

    `thumbprint` is that of the client certificate it is bound to; `key` what it was verified with.
    """

    principal: Principal
    begins: float
    ends: float
    thumbprint: str | None = None
    key: Any = None


class Remembered:
    """At most `capacity` entries, the most lately used among them.

    `young` may be read by digest where a call is too much; what is not in it, `find` knows.
    """

    __slots__ = ("_half", "_old", "young")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._half = max(1, capacity // 2)
        self.young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}

    def find(self, credentials: bytes) -> Entry | None:
        """What is known of these credentials, expired or not."""
        digest = sha256(credentials).digest()
        entry = self.young.get(digest)
        if entry is None and self._old:
            entry = self._old.pop(digest, None)
            if entry is not None:
                self._put(digest, entry)
        return entry

    def add(self, credentials: bytes, entry: Entry) -> None:
        """Remember it."""
        self._put(sha256(credentials).digest(), entry)

    def _put(self, digest: bytes, entry: Entry) -> None:
        if len(self.young) >= self._half:
            self._old, self.young = self.young, {}
        self.young[digest] = entry

    def forget(self, unless: Callable[[Entry], bool]) -> None:
        """Drop every entry of which `unless` is not true."""
        self.young = {key: each for key, each in self.young.items() if unless(each)}
        self._old = {key: each for key, each in self._old.items() if unless(each)}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
