"""API keys: how they are made, what is kept of them, and whose key a presented one is.

Pure. What is kept is a SHA-256, and nothing slower: a key is 256 random bits, so nobody finds it by
trying, and hashes meant for passwords would only make each request expensive.

A presented key is found by its digest in a dictionary. That look-up takes no secret-dependent time
that helps an attacker: to learn how far a guess agrees with a stored digest, they would have to
choose the digest of what they send, which is to invert SHA-256. The digest found is compared once
more in constant time, which costs nothing and keeps the argument short.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

# Longer than any key there is, and short enough to hash without a thought.
MAX_KEY: Final = 1024
_KEY: Final = re.compile(rb"[!-~]{1,%d}" % MAX_KEY)
_PREFIX: Final = "sha256:"
_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key. `digest` is the SHA-256 of it; the times are Unix seconds, None for no bound."""

    digest: bytes
    consumer: str
    scopes: frozenset[str] = frozenset()
    not_before: float | None = None
    expires: float | None = None

    @property
    def label(self) -> str:
        """Enough of the hash to tell keys apart in logs; nothing can be made of it."""
        return self.digest.hex()[:12]


class KeyTable:
    """All keys of one identity. Raises ValueError, when it is made, if two are the same key."""

    def __init__(self, keys: Iterable[StoredKey]) -> None:
        self._keys: dict[bytes, StoredKey] = {}
        for key in keys:
            if key.digest in self._keys:
                raise ValueError(f"the key of {key.consumer} stands here twice")
            self._keys[key.digest] = key

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: bytes) -> StoredKey | None:
        """The stored key that this one is, whether it is valid now or not; None for a stranger."""
        if not is_possible(presented):
            return None
        digest = hashlib.sha256(presented).digest()
        found = self._keys.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return found


def is_possible(presented: bytes) -> bool:
    """Whether these bytes could be a key: visible ASCII, and not too much of it."""
    return _KEY.fullmatch(presented) is not None


def is_valid(key: StoredKey, now: float) -> bool:
    """Whether the key may be used now, `now` in Unix seconds."""
    if key.not_before is not None and now < key.not_before:
        return False
    return key.expires is None or now < key.expires


def hash_of(key: str) -> str:
    """What stands in the configuration for a key: `sha256:<hex>`."""
    return _PREFIX + hashlib.sha256(key.encode()).hexdigest()


def digest_of(stored: str) -> bytes:
    """The digest that `sha256:<hex>` stands for. Raises ValueError."""
    return bytes.fromhex(stored.removeprefix(_PREFIX))


def new_key(random_bytes: Callable[[int], bytes]) -> str:
    """A new key of 256 bits; `random_bytes` must be fit for secrets, such as os.urandom.

    The prefix is there for scanners that look for secrets in places where they should not be.
    """
    text = base64.urlsafe_b64encode(random_bytes(_BYTES)).decode().rstrip("=")
    return f"lgk_{text}"
