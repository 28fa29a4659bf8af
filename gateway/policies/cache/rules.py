"""What RFC 9111 says a shared cache may store, reuse and update. Pure: every moment is passed in.

Nothing here keeps or sends anything. Decisions are small closed types; whoever drives them matches
on all their cases and ends with `assert_never`.

Where the RFC leaves a choice, this is taken:
- Heuristic freshness (section 4.2.2) is off: an answer that says nothing about its freshness is
  stored only if the route's `ttl` says for how long, and only with a status that section 4.2.2
  allows or with `public`.
- Credentials (section 3.5) are Authorization, Cookie, and a caller that the gateway knows. Their
  answers are stored only with `public`, `must-revalidate` or `s-maxage`, unless the key parts
  callers (`vary_on`); and what was stored without such a word is not given to a request with them.
- Set-Cookie keeps an answer out of the store, unless `no-cache="Set-Cookie"` or
  `private="Set-Cookie"` says that the rest of it may be kept (section 7.3).
- An answer with a Content-Encoding, or with an Access-Control-Allow-Origin that names somebody, is
  treated as if its Vary named Accept-Encoding or Origin.
- `s-maxage` says proxy-revalidate (section 5.2.2.10), so it also rules out stale answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Protocol

from gateway.policies.cache.directives import (
    FOREVER,
    RawHeaders,
    RequestControl,
    ResponseControl,
    format_date,
    parse_age,
    parse_date,
    response_control,
    vary_names,
)

HEURISTIC: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Cacheable without explicit freshness (RFC 9110 section 15.1); 206 is never stored here."""

UNDERSTOOD: Final = frozenset(
    {*HEURISTIC, *range(302, 304), 307, *range(400, 418), 421, 422, 426, *range(500, 506)}
)
"""Statuses whose meaning for a cache is known (`must-understand`, section 5.2.2.3)."""

ERRORS: Final = frozenset({500, 502, 503, 504})
"""The answers in whose place a stale one may be given (RFC 5861 section 4)."""

SAFE: Final = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "REPORT", "SEARCH", "PRI"}
)
"""Methods that change nothing. All others invalidate, unknown ones too (section 4.4)."""

UNSTORED: Final = frozenset(
    {
        b"age",
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"set-cookie",
        b"set-cookie2",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection or one exchange (section 3.1), and Age, which is worked out anew."""


class Skip(StrEnum):
    """Why an answer is not stored."""

    REQUEST = "the request says no-store"
    STATUS = "the status is never stored, or not understood"
    MALFORMED = "Cache-Control can't be read"
    NO_STORE = "the answer says no-store"
    PRIVATE = "the answer is private"
    CREDENTIALS = "the request has credentials and the answer does not allow it"
    SET_COOKIE = "the answer sets a cookie"
    VARY = "the answer matches no other request"
    ENDLESS = "the answer is an event stream"
    UNSTATED = "nothing says for how long it is fresh"
    USELESS = "it could never be used"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route adds to the answers' own words; all in seconds.

    `ttl` is the freshness of answers that state none, of all if `force`. The windows hold where an
    answer does not state its own.
    """

    ttl: float | None = None
    force: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0


class Answer:
    """An answer as it came, and when. `asked_at` and `came_at` are Unix seconds."""

    __slots__ = ("_names", "asked_at", "came_at", "headers", "status")

    def __init__(self, status: int, headers: RawHeaders, asked_at: float, came_at: float) -> None:
        self.status = status
        self.headers = headers
        self.asked_at = asked_at
        self.came_at = came_at
        self._names = {name for name, _ in headers}

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        if name not in self._names:
            return []
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class Store:
    """An answer may be stored. Times are seconds from the moment it came.

    `age` is how old it was then. The windows are how long past freshness it may be used while it
    is fetched anew, and while that fails. `may_stale` is False if it is never used stale. `open`
    says that requests with credentials may have it too. `names` are what Vary selects by.
    """

    age: float
    lifetime: float
    while_revalidate: float
    if_error: float
    may_stale: bool
    open: bool
    names: tuple[bytes, ...]
    headers: RawHeaders


class Times(Protocol):
    """The moments of a stored answer that `judge` compares, on one clock, in seconds.

    `born` is when it was made by its origin; the others are the ends of its freshness and of its
    two windows.
    """

    born: float
    fresh_until: float
    refresh_until: float
    error_until: float
    may_stale: bool


class Verdict(Enum):
    """What a stored answer is good for."""

    FRESH = "fresh"
    """Give it."""
    REFRESH = "refresh"
    """Give it though it is stale, and fetch it anew meanwhile (RFC 5861 section 3)."""
    STALE = "stale"
    """Give it though it is stale: the client says that it may be (max-stale)."""
    EXPIRED = "expired"
    """It must be validated first, because it is stale or says so itself."""
    ASKED = "asked"
    """It must be validated first, because the request asks for that."""


def joined(values: list[bytes]) -> bytes:
    """Several lines of one list field as one."""
    return values[0] if len(values) == 1 else b",".join(values)


def freshness(answer: Answer, control: ResponseControl, terms: Terms) -> float | None:
    """How many seconds an answer is fresh, counted from its birth; None if nothing says.

    RFC 9111 section 4.2.1, with what is unreadable or contradicts itself read as stale.
    """
    if terms.force and terms.ttl is not None:
        return terms.ttl
    if control.s_maxage is not None:
        return control.s_maxage
    if control.max_age is not None:
        return control.max_age
    expires = answer.values(b"expires")
    if expires:
        until = parse_date(expires[0], answer.came_at) if len(set(expires)) == 1 else None
        return 0.0 if until is None else max(0.0, until - _date(answer))
    if terms.ttl is not None and (control.public or answer.status in HEURISTIC):
        return terms.ttl
    return None


def initial_age(answer: Answer) -> float:
    """How old an answer was when it came (RFC 9111 section 4.2.3)."""
    apparent = max(0.0, answer.came_at - _date(answer))
    corrected = parse_age(answer.values(b"age")) + max(0.0, answer.came_at - answer.asked_at)
    return min(max(apparent, corrected), FOREVER)


def _date(answer: Answer) -> float:
    """When its origin made it; the moment it came if Date is missing or unreadable."""
    values = answer.values(b"date")
    moment = parse_date(values[0], answer.came_at) if values else None
    return answer.came_at if moment is None else moment


def storable(
    answer: Answer, asked: RequestControl | None, terms: Terms, *, credentials: bool
) -> Store | Skip:
    """Whether an answer to GET may be stored, and what follows from its fields then.

    RFC 9111 section 3. `credentials` says that the request had some that its key does not part.
    """
    control = response_control(joined(answer.values(b"cache-control")))
    refusal = _refusal(answer, control, asked, credentials=credentials)
    if refusal is not None:
        return refusal
    names = _selecting(answer)
    if names is None:
        return Skip.VARY
    lifetime = freshness(answer, control, terms)
    may_validate = control.no_cache and (control.public or answer.status in HEURISTIC)
    if lifetime is None and not may_validate:
        return Skip.UNSTATED
    if control.no_cache or lifetime is None:
        lifetime = 0.0
    return _stored(answer, control, terms, lifetime, names)


def _refusal(
    answer: Answer, control: ResponseControl, asked: RequestControl | None, *, credentials: bool
) -> Skip | None:
    status = answer.status
    if asked is not None and asked.no_store:
        return Skip.REQUEST
    if not _has_storable_status(status, control):
        return Skip.STATUS
    if control.broken:
        return Skip.MALFORMED
    if control.no_store and not control.must_understand:
        return Skip.NO_STORE
    if control.private:
        return Skip.PRIVATE
    if credentials and not is_open(control):
        return Skip.CREDENTIALS
    if answer.values(b"set-cookie") and b"set-cookie" not in control.hidden:
        return Skip.SET_COOKIE
    if joined(answer.values(b"content-type")).lower().startswith(b"text/event-stream"):
        return Skip.ENDLESS
    return None


def _has_storable_status(status: int, control: ResponseControl) -> bool:
    if control.must_understand and status not in UNDERSTOOD:
        return False
    return 200 <= status <= 599 and status not in (206, 304)


def is_open(control: ResponseControl) -> bool:
    """Whether an answer may be shared although credentials were sent (section 3.5)."""
    return control.public or control.must_revalidate or control.s_maxage is not None


def _selecting(answer: Answer) -> tuple[bytes, ...] | None:
    """What Vary names, and what it should have: an encoding or an origin that was chosen."""
    names = vary_names(answer.values(b"vary"))
    if names is None:
        return None
    implied = set()
    if answer.values(b"content-encoding"):
        implied.add(b"accept-encoding")
    if answer.values(b"access-control-allow-origin") not in ([], [b"*"]):
        implied.add(b"origin")
    return tuple(sorted({*names, *implied})) if implied else names


def _stored(
    answer: Answer,
    control: ResponseControl,
    terms: Terms,
    lifetime: float,
    names: tuple[bytes, ...],
) -> Store | Skip:
    may_stale = not (
        control.no_cache
        or control.must_revalidate
        or control.proxy_revalidate
        or control.s_maxage is not None
    )
    refresh, error = control.stale_while_revalidate, control.stale_if_error
    while_revalidate = terms.stale_while_revalidate if refresh is None else float(refresh)
    if_error = terms.stale_if_error if error is None else float(error)
    if not may_stale:
        while_revalidate = if_error = 0.0
    headers = stored_headers(answer, control.hidden)
    age = initial_age(answer)
    usable = max(lifetime - age, lifetime + max(while_revalidate, if_error) - age)
    if usable <= 0 and not has_validator(headers):
        return Skip.USELESS
    return Store(
        age=age,
        lifetime=lifetime,
        while_revalidate=while_revalidate,
        if_error=if_error,
        may_stale=may_stale,
        open=is_open(control),
        names=names,
        headers=headers,
    )


def stored_headers(answer: Answer, hidden: frozenset[bytes]) -> RawHeaders:
    """The fields that are kept (section 3.1), with a Date if the answer had none."""
    dropped = UNSTORED | hidden
    headers = [pair for pair in answer.headers if pair[0] not in dropped]
    if not any(name == b"date" for name, _ in headers):
        headers.append((b"date", format_date(answer.came_at)))
    return headers


def has_validator(headers: RawHeaders) -> bool:
    """Whether the origin can be asked if an answer is still good (section 4.3.1)."""
    return any(name in (b"etag", b"last-modified") for name, _ in headers)


def judge(times: Times, asked: RequestControl | None, now: float) -> Verdict:
    """What a stored answer that matches a request is good for (section 4 and 5.2.1)."""
    if asked is None:
        if now < times.fresh_until:
            return Verdict.FRESH
        return Verdict.REFRESH if now < times.refresh_until else Verdict.EXPIRED
    if asked.no_cache or not _young_enough(times, asked, now):
        return Verdict.ASKED
    if now < times.fresh_until:
        return Verdict.FRESH if now + asked.min_fresh < times.fresh_until else Verdict.ASKED
    if asked.min_fresh:
        return Verdict.EXPIRED
    if asked.max_stale is not None:
        if times.may_stale and now - times.fresh_until <= asked.max_stale:
            return Verdict.REFRESH if now < times.refresh_until else Verdict.STALE
        return Verdict.EXPIRED
    return Verdict.REFRESH if now < times.refresh_until else Verdict.EXPIRED


def _young_enough(times: Times, asked: RequestControl, now: float) -> bool:
    # `max-age=0` is how a client asks for validation, whatever the clock's resolution.
    return asked.max_age is None or (asked.max_age > 0 and now - times.born <= asked.max_age)
