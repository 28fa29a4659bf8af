"""A signed JWT in its compact form, taken apart before any library sees it. Pure.

RFC 7515 and 7519 as RFC 8725 wants them read: three parts in canonical base64url without padding, a
header and a payload that are JSON objects with one meaning, no critical extensions (none is
understood here), no key that the token brings itself. `jku`, `x5u`, `jwk` and `x5c` are never
looked at: a token that names its own key proves nothing.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Final

from gateway.policies.auth.strict_json import NotStrict, parse_object

MAX_KID: Final = 256
_PART: Final = re.compile(rb"[A-Za-z0-9_-]+")
# Types of tokens that may grant access. Others (logout, dpop, secevent) are JWTs for other ends
# (RFC 8725 section 3.11); "application/" may be left out (RFC 7515 section 4.1.9).
PLAIN_TYPES: Final = frozenset({"jwt", "at+jwt"})
ACCESS_TOKEN: Final = "at+jwt"  # noqa: S105 - the name of a type


class Malformed(ValueError):
    """Not a signed JWT that could be judged. `reason` quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signed:
    """A token taken apart; nothing in it is proved yet. `type` is in lower case, "" for none."""

    algorithm: str
    kid: str | None
    type: str
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def take_apart(token: bytes) -> Signed:
    """The token's parts. Raises Malformed."""
    parts = token.split(b".")
    if len(parts) == 5:
        raise Malformed("the token is encrypted (JWE), not signed")
    if len(parts) != 3:
        raise Malformed("the token is not a signed JWT")
    header = _object(parts[0], "the token's header")
    if not parts[2]:
        raise Malformed("the token is not signed")
    algorithm, kid, kind = _header(header)
    return Signed(
        algorithm,
        kid,
        kind,
        _object(parts[1], "the token's payload"),
        token[: -len(parts[2]) - 1],
        _decoded(parts[2], "the token's signature"),
    )


def _header(header: dict[str, Any]) -> tuple[str, str | None, str]:
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str):
        raise Malformed("the token's header has no alg")
    if "crit" in header:
        # RFC 7515 section 4.1.11: what must be understood and is not makes the token invalid.
        raise Malformed("the token's header has critical extensions")
    if "enc" in header or "zip" in header:
        raise Malformed("the token's header is that of an encrypted token")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise Malformed("the token's kid is not the name of a key")
    if not isinstance(kind, str):
        raise Malformed("the token's typ is not text")
    return algorithm, kid, kind.lower().removeprefix("application/")


def _object(part: bytes, name: str) -> dict[str, Any]:
    try:
        return parse_object(_decoded(part, name))
    except NotStrict as error:
        raise Malformed(f"{name} {error.reason}") from None


def _decoded(part: bytes, name: str) -> bytes:
    if not _PART.fullmatch(part) or len(part) % 4 == 1:
        raise Malformed(f"{name} is not base64url")
    data = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    # The last character may have bits to spare, which must be zero (RFC 4648 section 3.5): else
    # one token has several spellings.
    rest = len(data) % 3
    if rest and urlsafe_b64encode(data[-rest:]).rstrip(b"=") != part[-rest - 1 :]:
        raise Malformed(f"{name} is not canonical base64url")
    return data
