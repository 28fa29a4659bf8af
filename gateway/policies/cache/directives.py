"""The fields that caching is about, read from bytes: Cache-Control, dates, Age, Vary, entity tags.

Pure functions. Whatever is malformed gets the reading that stores and reuses less (RFC 9111 section
4.2.1): freshness that can't be read is none; what restricts holds, however it is spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

RawHeaders = list[tuple[bytes, bytes]]

FOREVER: Final = 2**31
"""Seconds; what is larger counts as this (RFC 9111 section 1.2.2)."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PIECES: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[^",]+|,|"', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_ETAGS: Final = re.compile(rb'(?:W/)?"[^"]*"|[^\s,"]+')
_MONTHS: Final = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAY: Final = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY: Final = rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH: Final = rb"(%b)" % b"|".join(_MONTHS)
_CLOCK: Final = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF: Final = re.compile(
    rb"%b, ([0-9]{2}) %b ([0-9]{4}) %b gmt" % (_DAY, _MONTH, _CLOCK), re.IGNORECASE
)
_RFC850: Final = re.compile(
    rb"%b, ([0-9]{2})-%b-([0-9]{2}) %b gmt" % (_LONG_DAY, _MONTH, _CLOCK), re.IGNORECASE
)
_ASCTIME: Final = re.compile(
    rb"%b %b ([0-9]{2}| [0-9]) %b ([0-9]{4})" % (_DAY, _MONTH, _CLOCK), re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ResponseControl:
    """Cache-Control of an answer. Seconds are None where the directive is absent, 0 if unreadable.

    `no_cache` and `private` are the unqualified forms; `hidden` are the fields that a qualified
    form names, which may not be given to anybody else. `broken` is a field that can't be divided.
    """

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    hidden: frozenset[bytes] = frozenset()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    broken: bool = False


@dataclass(frozen=True, slots=True)
class RequestControl:
    """Cache-Control of a request. `max_stale` without a number is `FOREVER`."""

    max_age: int | None = None
    min_fresh: int = 0
    max_stale: int | None = None
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False


@dataclass(frozen=True, slots=True)
class _Directive:
    """One member: its name in lower case, and its argument, None if it has none or it is unusable.

    `plain` is False if an argument stands there that is neither token nor quoted string.
    """

    name: bytes
    argument: bytes | None
    plain: bool


def list_members(value: bytes) -> list[bytes] | None:
    """The members of a list field, commas in quoted strings left alone; None if a quote is open."""
    if b'"' not in value:
        return [stripped for each in value.split(b",") if (stripped := each.strip(b" \t"))]
    members: list[bytes] = []
    current = b""
    for piece in _PIECES.findall(value):
        if piece == b'"':
            return None
        if piece == b",":
            members.append(current.strip(b" \t"))
            current = b""
        else:
            current += piece
    members.append(current.strip(b" \t"))
    return [member for member in members if member]


def _directives(value: bytes) -> tuple[list[_Directive], bool]:
    """The directives of a Cache-Control field, and whether it could not be divided."""
    members = list_members(value)
    if members is None:
        # What stands before the open quote still counts if it restricts.
        head = value.partition(b'"')[0]
        return _directives(head)[0], True
    return [_directive(member) for member in members], False


def _directive(member: bytes) -> _Directive:
    name, equals, argument = member.partition(b"=")
    key = name.strip(b" \t").lower()
    if not equals:
        return _Directive(key, None, plain=True)
    if name != name.rstrip(b" \t"):
        return _Directive(key, None, plain=False)
    if len(argument) >= 2 and argument[:1] == argument[-1:] == b'"':
        return _Directive(key, _ESCAPED.sub(rb"\1", argument[1:-1]), plain=True)
    if _TOKEN.fullmatch(argument):
        return _Directive(key, argument, plain=True)
    return _Directive(key, None, plain=False)


def delta_seconds(text: bytes | None) -> int | None:
    """A number of seconds (RFC 9111 section 1.2.2), None if it is none."""
    if text is None or not text.isdigit():
        return None
    text = text.lstrip(b"0")
    return FOREVER if len(text) > 10 else min(int(text or b"0"), FOREVER)


def _seconds_once(directives: Iterable[_Directive], name: bytes) -> int | None:
    """The seconds of a directive; 0 if it is unreadable or stands there with two values."""
    found: int | None = None
    for each in directives:
        if each.name == name:
            seconds = delta_seconds(each.argument) or 0
            if found is not None and found != seconds:
                return 0
            found = seconds
    return found


def _all_seconds(directives: Iterable[_Directive], name: bytes) -> list[int]:
    return [delta_seconds(each.argument) or 0 for each in directives if each.name == name]


def _qualified(directives: Iterable[_Directive], name: bytes) -> tuple[bool, set[bytes]]:
    """Whether `no-cache` or `private` stands there without usable field names, and the names."""
    bare = False
    fields: set[bytes] = set()
    for each in directives:
        if each.name != name:
            continue
        names = (each.argument or b"").lower().split(b",")
        names = [stripped for each_name in names if (stripped := each_name.strip(b" \t"))]
        if names and all(_TOKEN.fullmatch(each_name) for each_name in names):
            fields.update(names)
        else:
            bare = True
    return bare, fields


@lru_cache(maxsize=1024)
def response_control(value: bytes) -> ResponseControl:
    """Cache-Control of an answer, its lines joined with commas (RFC 9111 section 5.2.2)."""
    directives, broken = _directives(value)
    names = {each.name for each in directives}
    no_cache, uncached = _qualified(directives, b"no-cache")
    private, personal = _qualified(directives, b"private")
    return ResponseControl(
        max_age=_seconds_once(directives, b"max-age"),
        s_maxage=_seconds_once(directives, b"s-maxage"),
        no_store=b"no-store" in names,
        no_cache=no_cache,
        private=private,
        hidden=frozenset(uncached | personal),
        public=any(each.name == b"public" and each.plain for each in directives),
        must_revalidate=b"must-revalidate" in names,
        proxy_revalidate=b"proxy-revalidate" in names,
        must_understand=b"must-understand" in names,
        stale_while_revalidate=_seconds_once(directives, b"stale-while-revalidate"),
        stale_if_error=_seconds_once(directives, b"stale-if-error"),
        broken=broken,
    )


@lru_cache(maxsize=1024)
def request_control(value: bytes) -> RequestControl:
    """Cache-Control of a request, its lines joined with commas (RFC 9111 section 5.2.1).

    Of two values for one directive the stricter one holds.
    """
    directives, _ = _directives(value)
    names = {each.name for each in directives}
    ages = [delta_seconds(each.argument) or 0 for each in directives if each.name == b"max-age"]
    margins = [
        delta_seconds(each.argument) or 0 for each in directives if each.name == b"min-fresh"
    ]
    stale = [
        FOREVER if each.argument is None and each.plain else delta_seconds(each.argument) or 0
        for each in directives
        if each.name == b"max-stale"
    ]
    return RequestControl(
        max_age=min(ages) if ages else None,
        min_fresh=max(margins) if margins else 0,
        max_stale=min(stale) if stale else None,
        no_cache=b"no-cache" in names,
        no_store=b"no-store" in names,
        only_if_cached=b"only-if-cached" in names,
    )


def parse_date(value: bytes, now: float) -> float | None:
    """Unix seconds of an HTTP-date in any of the three formats, None if it is none.

    Names are matched in any case, and no zone but GMT is known (RFC 9111 section 4.2). `now` tells
    the century of a two-digit year (RFC 9110 section 5.6.7).
    """
    if match := _IMF.fullmatch(value):
        day, month, year, *clock = match.groups()
    elif match := _ASCTIME.fullmatch(value):
        month, day, *clock, year = match.groups()
    elif match := _RFC850.fullmatch(value):
        day, month, year, *clock = match.groups()
        this_year = datetime.fromtimestamp(now, UTC).year
        century = this_year - this_year % 100 + int(year)
        year = b"%d" % (century - 100 if century > this_year + 50 else century)
    else:
        return None
    hour, minute, second = map(int, clock)
    number = _MONTHS.index(month.lower()) + 1
    try:
        # A leap second is the second before it, which is "equal to or earlier" (section 4.2).
        second = 59 if second == 60 else second
        moment = datetime(int(year), number, int(day), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp()


def format_date(moment: float) -> bytes:
    """Unix seconds as an HTTP-date."""
    at = datetime.fromtimestamp(moment, UTC)
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][at.weekday()]
    month = _MONTHS[at.month - 1].decode().title()
    return f"{day}, {at:%d} {month} {at:%Y %H:%M:%S} GMT".encode()


def parse_age(values: Sequence[bytes]) -> int:
    """The seconds that Age says, 0 if it says nothing; of several members the first counts.

    RFC 9111 section 5.1: what is no number is ignored.
    """
    if not values:
        return 0
    return delta_seconds(values[0].partition(b",")[0].strip(b" \t")) or 0


def vary_names(values: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The fields that Vary names, sorted and once each; None if no request ever matches.

    That is so for `*` anywhere, and for what is no list of field names (RFC 9110 section 12.5.5).
    """
    names: set[bytes] = set()
    for value in values:
        for each in value.lower().split(b","):
            name = each.strip(b" \t")
            if name == b"*" or (name and not _TOKEN.fullmatch(name)):
                return None
            if name:
                names.add(name)
    return tuple(sorted(names))


def entity_tags(value: bytes) -> list[bytes]:
    """The tags of an If-None-Match field without their weakness marks (weak comparison)."""
    return [opaque(tag) for tag in _ETAGS.findall(value)]


def opaque(tag: bytes) -> bytes:
    """An entity tag without `W/`: two are weakly equal if these are (RFC 9110 section 8.8.3.2)."""
    return tag.removeprefix(b"W/")
