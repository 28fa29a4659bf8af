"""The contract of an identity: one way for a caller to prove who it is.

To add a kind: its model in `config/`, a module here with a function `build(name, config, context)`
that returns an Identity, and a line in `kinds.py`. An identity is built once for a configuration
and serves all its routes. One that should outlive a reload (because it remembers something) is
made by `kinds.keep`, which gives back the one that is there while nothing about it changed.

An identity judges only credentials of its own kind. Whether the caller may do what it wants is the
policy's business.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from gateway.errors import IDENTITY_UNAVAILABLE, Rejection
from gateway.message import Exchange, Principal

Verdict = Principal | Rejection | None


class Identity:
    """Base of all kinds. `name` is the one in the configuration.

    `challenge` goes into WWW-Authenticate of a 401 (RFC 9110 section 11.6.1); empty for a kind that
    has none. `fields` are the lower-case names of the header fields that carry its credentials;
    `secrets` are those of them that no upstream gets, whichever identity proved the caller.
    `start` and `aclose` are the runtime's to call, if the identity came from `kinds.keep`.
    """

    name: str = ""
    challenge: str = ""
    fields: frozenset[bytes] = frozenset()
    secrets: frozenset[bytes] = frozenset()

    def authenticate(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """Judge the credentials in the request.

        A Principal: proved. A Rejection: presented and bad (401; 403 if proved, but not welcome;
        503 by `unavailable` if it can't be told now). None: nothing of this kind was presented.

        Return the verdict itself where nothing must be waited for, which saves a coroutine; else an
        awaitable. A Rejection may bring a WWW-Authenticate of its own in its `headers`, which then
        stands in for `challenge`; its `detail` is read by the caller's developer. Nothing that a
        client sends may raise.
        """
        raise NotImplementedError

    async def start(self) -> None:
        """Begin what runs in the background; it must not wait for anything remote."""

    async def aclose(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True, slots=True)
class Foreign(Rejection):
    """Bad for this identity, but by its looks meant for another: says less than other refusals."""


def unavailable(detail: str, retry_after: float) -> Rejection:
    """The refusal for credentials that can't be checked now: 503, and when to try again."""
    # Bounded first: a moment that never comes is no whole number.
    seconds = b"%d" % int(min(60.0, max(1.0, retry_after)) + 0.999)
    return Rejection(IDENTITY_UNAVAILABLE, detail, headers=[(b"retry-after", seconds)])
