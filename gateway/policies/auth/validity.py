"""Whether a token's claims let it be used here and now (RFC 7519 section 4.1, RFC 9068). Pure.

Times are seconds of the Unix epoch; `leeway` forgives clocks that are apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The end of the year 9999: whatever lies behind it is no date, but a token without end.
MAX_DATE: Final = 253_402_300_799
_PROFILE_CLAIMS: Final = ("sub", "client_id", "iat", "jti")


class Unacceptable(ValueError):
    """The claims do not let the token be used. `reason` names claims, no values.

    `foreign` says that it was issued by or for somebody else.
    """

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.foreign = foreign


@dataclass(frozen=True, slots=True)
class Window:
    """From when (inclusive) until when (exclusive) a token may be used, leeway included.

    `thumbprint` is that of the client certificate it is bound to, or None.
    """

    begins: float
    ends: float
    thumbprint: str | None


def check_issuer(claims: Mapping[str, Any], issuer: str) -> None:
    """The issuer is compared as it stands. Raises Unacceptable."""
    if "iss" not in claims:
        raise Unacceptable("the token names no issuer")
    if claims["iss"] != issuer:
        raise Unacceptable("the token is of another issuer", foreign=True)


def check_audience(claims: Mapping[str, Any], audiences: frozenset[str]) -> None:
    """One of the token's audiences must be one of ours, as a whole. Raises Unacceptable."""
    named = claims.get("aud")
    if isinstance(named, str):
        named = [named]
    if not isinstance(named, list) or not named or not all(isinstance(n, str) for n in named):
        raise Unacceptable("the token names no audience")
    if audiences.isdisjoint(named):
        raise Unacceptable("the token is for another audience", foreign=True)


def check_profile(claims: Mapping[str, Any]) -> None:
    """What RFC 9068 section 2.2 requires beside iss, aud and exp. Raises Unacceptable."""
    for name in _PROFILE_CLAIMS:
        if name not in claims:
            raise Unacceptable(f"the token has no {name}, which access tokens have (RFC 9068)")
        if name != "iat" and not (isinstance(claims[name], str) and claims[name]):
            raise Unacceptable(f"the token's {name} is not text")


def window(
    claims: Mapping[str, Any], now: float, leeway: float, *, must_end: bool = True
) -> Window:
    """When the token may be used, `now` being one such moment. Raises Unacceptable."""
    expires = _date(claims, "exp")
    if expires is None and must_end:
        raise Unacceptable("the token has no exp")
    ends = float("inf") if expires is None else expires + leeway
    begins = max(_date(claims, name) or 0.0 for name in ("nbf", "iat")) - leeway
    if now >= ends:
        raise Unacceptable("the token has expired")
    if now < begins:
        raise Unacceptable("the token is not valid yet")
    return Window(begins, ends, _thumbprint(claims))


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if name not in claims:
        return None
    # bool is a kind of int in Python, and no date.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unacceptable(f"the token's {name} is not a date")
    if not 0 <= value <= MAX_DATE:
        raise Unacceptable(f"the token's {name} is not a date")
    return float(value)


def _thumbprint(claims: Mapping[str, Any]) -> str | None:
    """The certificate that the token is bound to (RFC 8705 section 3.1).

    A token bound in any other way (RFC 7800, RFC 9449) is not one that whoever holds it may use,
    and the other ways are not checked here.
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise Unacceptable("the token is bound to a key in a way that is not taken here")
    thumbprint = confirmation["x5t#S256"]
    if not isinstance(thumbprint, str) or not thumbprint.isascii():
        raise Unacceptable("the token's cnf is not a thumbprint")
    return thumbprint
