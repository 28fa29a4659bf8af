"""What a caller is told: draft-ietf-httpapi-ratelimit-headers-10, or the older X-RateLimit-*.

`RateLimit-Policy` names every limit, `RateLimit` the one that leaves least. `q` and `r` count units
of cost; `w` is how long an empty bucket takes to fill up, so that q/w is the rate; `t` is when the
quota is whole again, and with a refusal when this request would pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.message import RawHeaders
from gateway.policies.rate_limit.decide import Limit

Write = Callable[[RawHeaders, int, int, int], None]
"""Append the fields: place of the limit to tell of, what remains of it, seconds to its reset."""


def standard_fields(names: Sequence[str], limits: Sequence[Limit], shown: Sequence[int]) -> Write:
    """RateLimit-Policy and RateLimit: two lists of Structured Fields (RFC 9651)."""
    policies = b", ".join(_policy(names[place], limits[place]) for place in shown)
    policy = (b"ratelimit-policy", policies)
    # A Name holds no quote.
    forms = [f'"{name}";r=' for name in names]

    def write(into: RawHeaders, place: int, remaining: int, reset_s: int) -> None:
        into.append(policy)
        into.append((b"ratelimit", f"{forms[place]}{remaining};t={reset_s}".encode("ascii")))

    return write


def _policy(name: str, limit: Limit) -> bytes:
    window = b";w=%d" % limit.window_s if limit.window_s else b""
    return b'"%b";q=%d%b' % (name.encode("ascii"), limit.quota, window)


def legacy_fields(limits: Sequence[Limit]) -> Write:
    """X-RateLimit-Limit, -Remaining and -Reset, the last in seconds from now."""
    quotas = [(b"x-ratelimit-limit", b"%d" % limit.quota) for limit in limits]

    def write(into: RawHeaders, place: int, remaining: int, reset_s: int) -> None:
        into.append(quotas[place])
        into.append((b"x-ratelimit-remaining", b"%d" % remaining))
        into.append((b"x-ratelimit-reset", b"%d" % reset_s))

    return write
