"""What is kept of an idempotent request, and what a second one with its key is told. Pure.

A record is `claimed` while its request is under way and `completed` once its answer is final. The
claim is a lease: it is renewed while the call runs, and lapses if the gateway that holds it dies.
The store holds one string for each key:

    c <token> <fingerprint>                     claimed, by the exchange that drew this token
    d <fingerprint> <msgpack of the answer>     completed

draft-ietf-httpapi-idempotency-key-header-07; the rules on what is final are ours, see `is_final`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.message import RawHeaders

TOKEN_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 32
_CLAIMED: Final = b"c"
_COMPLETED: Final = b"d"
# Below 500, yet about the moment and not about the request: the caller is meant to try again.
_PASSING: Final = frozenset({408, 409, 421, 423, 425, 429})


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A stored answer. `body` is None for one that was too large, or endless, to be kept."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    stored_at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """Another exchange carries the request out right now."""

    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """The request was carried out, and this was the answer."""

    fingerprint: bytes
    answer: Answer


Record = Claimed | Completed


class UnreadableRecord(ValueError):
    """What the store holds under the key is no record of ours."""


def fingerprint(method: str, path: str, query: bytes, content_type: bytes, body: bytes) -> bytes:
    """32 bytes that differ if the requests do. Lengths keep neighbouring parts apart."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode(), query, content_type, body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def encode_claim(token: bytes, print_: bytes) -> bytes:
    """The string of a claim: what only its owner can replace."""
    return _CLAIMED + token + print_


def encode_completed(print_: bytes, answer: Answer) -> bytes:
    """The string of a final answer."""
    return _COMPLETED + print_ + msgspec.msgpack.encode(answer)


def decode(text: bytes) -> Record:
    """The record of a string. Raises UnreadableRecord."""
    kind, rest = text[:1], text[1:]
    if kind == _CLAIMED and len(rest) == TOKEN_BYTES + _FINGERPRINT_BYTES:
        return Claimed(rest[TOKEN_BYTES:])
    if kind == _COMPLETED and len(rest) > _FINGERPRINT_BYTES:
        try:
            answer = msgspec.msgpack.decode(rest[_FINGERPRINT_BYTES:], type=Answer)
        except msgspec.MsgspecError as error:
            raise UnreadableRecord("the stored answer can't be read") from error
        return Completed(rest[:_FINGERPRINT_BYTES], answer)
    raise UnreadableRecord("no record of an idempotent request")


def is_final(status: int) -> bool:
    """Whether an answer of this status ends the matter.

    Success and the caller's mistakes do. A failure of the upstream (500 and above) may be over at
    the next try, and so may what is about the moment (425, 429, ...): the claim is given back, and
    the request may be sent again.
    """
    return status < 500 and status not in _PASSING


def storable_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The fields that a replayed answer has too: not those that belong to one exchange."""
    return [pair for pair in headers if pair[0] not in _NOT_STORED]


_NOT_STORED: Final = frozenset(
    {b"age", b"connection", b"keep-alive", b"proxy-status", b"trailer", b"transfer-encoding"}
)
