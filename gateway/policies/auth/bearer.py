"""Bearer tokens in requests (RFC 6750 section 2.1): where they are taken from, and refused how.

In the Authorization field, once, and nowhere else: a token in a query would stand in logs,
histories and Referer fields (RFC 9700 section 4.3.2), and one in a body had to be read first.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import INVALID_CREDENTIALS, Rejection
from gateway.message import Exchange
from gateway.policies.auth.challenge import bearer
from gateway.policies.auth.identity import Foreign, Identity

_CREDENTIALS: Final = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
_SCHEME: Final = re.compile(rb"bearer(?![!#$%&'*+\-.^_`|~0-9a-z])", re.IGNORECASE)
FIELD: Final = b"authorization"


class BearerIdentity(Identity):
    """Base of identities that are proved by a bearer token of at most `max_token` bytes."""

    fields = frozenset({FIELD})

    def __init__(self, name: str, max_token: int) -> None:
        self.name = name
        self.challenge = bearer(name)
        self._max_token = max_token

    def token(self, exchange: Exchange, credentials: bytes) -> bytes | Rejection | None:
        """The token in the field's value; None if it holds something else than a bearer token."""
        headers = exchange.request.headers
        if len(headers.index) != len(headers.raw):
            several = headers.get_all(FIELD)
            if len(several) > 1:
                if not any(_SCHEME.match(each) for each in several):
                    return None
                return self.refuse("several Authorization fields were sent", "invalid_request")
        if len(credentials) > self._max_token:
            if not _SCHEME.match(credentials):
                return None
            return self.refuse(f"a token may have {self._max_token} bytes")
        match = _CREDENTIALS.fullmatch(credentials)
        if match is not None:
            return match[1]
        if _SCHEME.match(credentials):
            return self.refuse("the Authorization field holds no bearer token", "invalid_request")
        return None

    def refuse(
        self, detail: str, error: str = "invalid_token", *, foreign: bool = False
    ) -> Rejection:
        """The refusal of a token, with the challenge that says why (RFC 6750 section 3.1)."""
        challenge = bearer(self.name, error, detail).encode("ascii", "replace")
        kind = Foreign if foreign else Rejection
        return kind(INVALID_CREDENTIALS, detail, [(b"www-authenticate", challenge)])
