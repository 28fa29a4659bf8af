"""Cases of RFC 9111, a line each: what is said first, and what a second request gets a while later.

Every row names its section. `stored` is an answer from the cache, `fetched` a plain request to the
origin, `validated` a conditional one. The second reply of the origin is always a 200 that says
no-store, so that nothing but the first answer is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

STORED, FETCHED, VALIDATED = "stored", "fetched", "validated"


@dataclass(frozen=True)
class Row:
    """`said` are the first answer's fields; `first` and `then` those of the two requests."""

    section: str
    what: str
    how: str
    said: tuple[str, ...] = ()
    after: float = 1.0
    first: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    status: int = 200
    config: dict[str, Any] = field(default_factory=dict)
    method: str = "GET"

    @property
    def id(self) -> str:
        """The test's name: the section, and what makes the case."""
        asked = f" [{', '.join(self.then)}]" if self.section.startswith("5.2.1") else ""
        config = f" {self.config}" if self.config else ""
        return f"{self.section} {self.what}{asked}{config} after {self.after:g}"


def _cc(section: str, value: str, how: str, after: float = 1.0, *more: str, **facts: Any) -> Row:
    """A row about one Cache-Control of the answer."""
    said = (f"Cache-Control: {value}", *more)
    return Row(section, facts.pop("what", value), how, said, after, **facts)


_LM: Final = "Last-Modified: Mon, 06 Nov 2023 00:00:00 GMT"
_ETAG: Final = 'ETag: "a"'
_AUTH: Final = ("Authorization: Bearer x",)

FRESHNESS: Final = [
    _cc("4.2.1", "max-age=60", STORED, 59),
    _cc("4.2.1", "max-age=60", FETCHED, 60, what="max-age=60 at its end"),
    _cc("4.2.1", "max-age=0", FETCHED, 0),
    _cc("4.2.1", "s-maxage=60", STORED, 59),
    _cc("4.2.1", "max-age=1, s-maxage=60", STORED, 59),
    _cc("4.2.1", "max-age=60, s-maxage=1", FETCHED, 2),
    _cc("4.2.1", "max-age=60, max-age=60", STORED, 59),
    _cc("4.2.1", "max-age=1, max-age=60", FETCHED, 0, what="two that differ"),
    _cc("4.2.1", "max-age=60, max-age=1", FETCHED, 0, what="two that differ, turned round"),
    _cc("4.2.1", "max-age=60", STORED, 59, "Cache-Control: max-age=60", what="twice on lines"),
    _cc("4.2.1", "max-age=2", FETCHED, 3, "Expires: {now+3600}", what="max-age before Expires"),
    _cc("4.2.1", "max-age=60", STORED, 9, "Expires: {now-60}", what="max-age over a past Expires"),
    _cc("4.2.1", "max-age=100a", FETCHED, 0),
    _cc("4.2.1", "max-age=a100", FETCHED, 0),
    _cc("4.2.1", "max-age=1.5", FETCHED, 0),
    _cc("4.2.1", "max-age=-1", FETCHED, 0),
    _cc("4.2.1", "max-age=+60", FETCHED, 0),
    _cc("4.2.1", "max-age=", FETCHED, 0),
    _cc("4.2.1", "max-age", FETCHED, 0),
    _cc("4.2.1", "max-age='60'", FETCHED, 0),
    _cc("4.2.1", "max-age =60", FETCHED, 0, what="space before ="),
    _cc("4.2.1", "max-age= 60", FETCHED, 0, what="space after ="),
    _cc("4.2.1", "max-age=bad", FETCHED, 0, "Expires: {now+60}", what="unreadable over Expires"),
    _cc("1.2.2", "max-age=060", STORED, 59, what="leading zero"),
    _cc("1.2.2", "max-age=2147483648", STORED, 100_000),
    _cc("1.2.2", "max-age=99999999999999999999", STORED, 100_000),
    _cc("5.2", 'max-age="60"', STORED, 59, what="quoted form"),
    _cc("5.2", "MAX-AGE=60", STORED, 59, what="any case"),
    _cc("5.2", "foo, max-age=60", STORED, 59, what="unknown directive"),
    _cc("5.2", "foo=bar, max-age=60", STORED, 59, what="unknown with argument"),
    _cc("5.2", ",, max-age=60,", STORED, 59, what="empty members"),
    _cc("5.2", "max-age=60,", STORED, 59, "Cache-Control: foo", what="two lines"),
    _cc("5.2", 'foo="max-age=3600, x", max-age=1', FETCHED, 2, what="quoted comma"),
    _cc("5.2", 'foo="a\\"b, no-store", max-age=60', STORED, 59, what="escaped quote"),
    _cc("5.2", 'foo="bar, max-age=60', FETCHED, 0, what="open quote"),
    _cc("5.2", 'max-age=60, foo="no-store', FETCHED, 0, what="open quote behind"),
    Row("4.2.1", "Expires ahead", STORED, ("Expires: {now+60}",), 59),
    Row("4.2.1", "Expires over", FETCHED, ("Expires: {now+60}",), 61),
    Row("4.2.1", "Expires against Date", STORED, ("Expires: {now+10}", "Date: {now-60}"), 9),
    Row("4.2.1", "Expires past", FETCHED, ("Expires: {now-60}",), 0),
    Row("4.2.1", "two Expires", FETCHED, ("Expires: {now+60}", "Expires: {now+70}"), 0),
    Row("4.2.1", "Expires over two lines", FETCHED,
        ("Expires: Thu", "Expires: 18 Aug 2050 02:01:18 GMT"), 0),
    Row("5.3", "Expires: 0", FETCHED, ("Expires: 0",), 0),
    Row("5.3", "Expires: -1", FETCHED, ("Expires: -1",), 0),
    Row("5.3", "Expires that is no date", FETCHED, ("Expires: tomorrow",), 0),
    Row("4.2", "rfc850 date", STORED, ("Expires: Thursday, 18-Aug-50 02:01:18 GMT",), 9),
    Row("4.2", "asctime date", STORED, ("Expires: Thu Aug 18 02:01:18 2050",), 9),
    Row("4.2", "asctime day", STORED, ("Expires: Mon Aug  8 02:01:18 2050",), 9),
    Row("4.2", "month in lower case", STORED, ("Expires: Thu, 18 aug 2050 02:01:18 GMT",), 9),
    Row("4.2", "zone in lower case", STORED, ("Expires: Thu, 18 Aug 2050 02:01:18 gmt",), 9),
    Row("4.2", "weekday in upper case", STORED, ("Expires: THU, 18 Aug 2050 02:01:18 GMT",), 9),
    Row("4.2", "UTC is no zone", FETCHED, ("Expires: Thu, 18 Aug 2050 02:01:18 UTC",), 0),
    Row("4.2", "other zone", FETCHED, ("Expires: Thu, 18 Aug 2050 02:01:18 AEST",), 0),
    Row("4.2", "hour of one digit", FETCHED, ("Expires: Thu, 18 Aug 2050 2:01:18 GMT",), 0),
    Row("4.2", "year of two digits", FETCHED, ("Expires: Thu, 18 Aug 50 02:01:18 GMT",), 0),
    Row("4.2", "dashes", FETCHED, ("Expires: Thu, 18-Aug-2050 02:01:18 GMT",), 0),
    Row("4.2", "no comma", FETCHED, ("Expires: Thu 18 Aug 2050 02:01:18 GMT",), 0),
    Row("4.2", "two spaces", FETCHED, ("Expires: Thu, 18  Aug 2050 02:01:18 GMT",), 0),
    Row("4.2", "periods in the time", FETCHED, ("Expires: Thu, 18 Aug 2050 02.01.18 GMT",), 0),
    Row("4.2", "no such day", FETCHED, ("Expires: Thu, 31 Feb 2050 02:01:18 GMT",), 0),
    Row("4.2", "far future", STORED, ("Expires: Sun, 21 Nov 9999 04:46:07 GMT",), 100_000),
    Row("4.2.2", "no heuristics", FETCHED, (_LM,), 0),
    Row("4.2.2", "nothing at all", FETCHED, (), 0),
    Row("4.2.2", "public alone", FETCHED, ("Cache-Control: public",), 0),
    Row("4.2.2", "ttl", STORED, (), 29, config={"ttl": "30s"}),
    Row("4.2.2", "ttl over", FETCHED, (), 30, config={"ttl": "30s"}),
    Row("4.2.2", "ttl and own freshness", STORED, ("Cache-Control: max-age=60",), 59,
        config={"ttl": "30s"}),
    Row("4.2.2", "ttl and own staleness", FETCHED, ("Cache-Control: max-age=0",), 0,
        config={"ttl": "30s"}),
    Row("4.2.2", "ttl and past Expires", FETCHED, ("Expires: 0",), 0, config={"ttl": "30s"}),
    Row("4.2.2", "ttl on a 404", STORED, (), 29, status=404, config={"ttl": "30s"}),
    Row("4.2.2", "ttl not on a 500", FETCHED, (), 0, status=500, config={"ttl": "30s"}),
    Row("4.2.2", "ttl not on a 302", FETCHED, (), 0, status=302, config={"ttl": "30s"}),
    Row("4.2.2", "ttl on a public 302", STORED, ("Cache-Control: public",), 29, status=302,
        config={"ttl": "30s"}),
    Row("4.2.2", "force", STORED, ("Cache-Control: max-age=0",), 29,
        config={"ttl": "30s", "force": True}),
    Row("4.2.2", "force shortens", FETCHED, ("Cache-Control: s-maxage=600",), 31,
        config={"ttl": "30s", "force": True}),
    Row("4.2.2", "force not over no-store", FETCHED, ("Cache-Control: no-store",), 0,
        config={"ttl": "30s", "force": True}),
    Row("4.2.2", "force not over private", FETCHED, ("Cache-Control: private",), 0,
        config={"ttl": "30s", "force": True}),
    Row("4.2.2", "ttl not over an event stream", FETCHED, ("Content-Type: text/event-stream",), 0,
        config={"ttl": "30s"}),
]  # fmt: skip

AGE: Final = [
    _cc("4.2.3", "max-age=60", FETCHED, 31, "Age: 30", what="Age counts"),
    _cc("4.2.3", "max-age=60", STORED, 29, "Age: 30", what="Age counts, still fresh"),
    _cc("4.2.3", "max-age=60", FETCHED, 31, "Date: {now-30}", what="Date counts"),
    _cc("4.2.3", "max-age=60", STORED, 59, "Date: {now+3600}", what="Date ahead is no gain"),
    _cc("4.2.3", "max-age=60", FETCHED, 11, "Age: 30", "Date: {now-50}", what="the larger one"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: abc", what="Age that is no number"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: -7200", what="negative Age"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: 7200.0", what="Age with a point"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: 7200;foo=1", what="Age with a parameter"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: a7200", what="Age with a prefix"),
    _cc("5.1", "max-age=60", FETCHED, 0, "Age: 2147483648", what="large Age"),
    _cc("5.1", "max-age=60", FETCHED, 0, "Age: 99999999999999", what="huge Age"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: 0, 7200", what="first of a list"),
    _cc("5.1", "max-age=60", FETCHED, 0, "Age: 7200, 0", what="first of a list, old"),
    _cc("5.1", "max-age=60", STORED, 59, "Age: 0", "Age: 7200", what="first of two lines"),
    _cc("5.1", "max-age=60", FETCHED, 0, "Age: 7200", "Age: 0", what="first of two lines, old"),
]  # fmt: skip

STORING: Final = [
    _cc("5.2.2.5", "no-store, max-age=60", FETCHED, 0),
    _cc("5.2.2.5", "No-StOrE, max-age=60", FETCHED, 0),
    _cc("5.2.2.5", "no-store=foo, max-age=60", FETCHED, 0),
    _cc("5.2.2.7", "private, max-age=60", FETCHED, 0),
    _cc("5.2.2.7", "private, s-maxage=60", FETCHED, 0),
    _cc("5.2.2.7", 'private="X-A", max-age=60', STORED, 9),
    _cc("5.2.2.7", 'private="", max-age=60', FETCHED, 0),
    _cc("5.2.2.7", 'private="a b", max-age=60', FETCHED, 0),
    _cc("5.2.2.4", "no-cache, max-age=60", FETCHED, 0),
    _cc("5.2.2.4", "no-cache, max-age=60", VALIDATED, 0, _ETAG, what="no-cache with ETag"),
    _cc("5.2.2.4", "NO-CACHE, max-age=60", VALIDATED, 0, _ETAG),
    _cc("5.2.2.4", "no-cache", VALIDATED, 0, _ETAG, what="no-cache alone"),
    _cc("5.2.2.4", 'no-cache="X-A", max-age=60', STORED, 9),
    _cc("5.2.2.4", 'no-cache="X-A", no-cache, max-age=60', VALIDATED, 0, _ETAG),
    _cc("5.2.2.3", "no-store, must-understand, max-age=60", STORED, 9),
    _cc("5.2.2.3", "must-understand, max-age=60", FETCHED, 0, status=299),
    _cc("5.2.2.3", "no-store, must-understand, max-age=60", FETCHED, 0, status=599),
    _cc("5.4", "max-age=60", STORED, 9, "Pragma: no-cache", what="Pragma of an answer is nothing"),
    _cc("7.3", "max-age=60", FETCHED, 0, "Set-Cookie: a=b"),
    _cc("7.3", 'no-cache="Set-Cookie", max-age=60', STORED, 9, "Set-Cookie: a=b"),
    _cc("7.3", "public, max-age=60", FETCHED, 0, "Set-Cookie: a=b", what="public with a cookie"),
    _cc("3", "max-age=60", FETCHED, 0, status=206),
    *[
        _cc("3", "max-age=60", STORED, 9, status=status, what=f"{status} with freshness")
        for status in (203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599)
    ],
    _cc("3", "max-age=60", FETCHED, 0, method="POST", what="another method"),
    _cc("3", "max-age=60", FETCHED, 0, first=("Range: bytes=0-1",), what="a range is left alone"),
    _cc("3", "max-age=60", FETCHED, 0, then=("Range: bytes=0-1",), what="a range asked later"),
    _cc("3.5", "max-age=60", FETCHED, 0, first=_AUTH, then=_AUTH, what="Authorization"),
    _cc("3.5", "max-age=60, public", STORED, 9, first=_AUTH, then=_AUTH),
    _cc("3.5", "max-age=60, must-revalidate", STORED, 9, first=_AUTH, then=_AUTH),
    _cc("3.5", "s-maxage=60", STORED, 9, first=_AUTH, then=_AUTH),
    _cc("3.5", "max-age=60, public", STORED, 9, first=_AUTH, what="public, then without"),
    _cc("3.5", "max-age=60", FETCHED, 0, then=_AUTH, what="stored without, asked with"),
    _cc("3.5", "max-age=60", FETCHED, 0, first=("Cookie: a=b",), then=("Cookie: a=b",),
        what="Cookie"),
    _cc("3.5", "max-age=60, public", STORED, 9, first=("Cookie: a=b",), then=("Cookie: c=d",),
        what="Cookie, public"),
    _cc("3", "max-age=60", FETCHED, 0, first=("Cache-Control: no-store",),
        what="the request says no-store"),
]  # fmt: skip

REQUESTS: Final = [
    _cc("5.2.1.1", "max-age=60", FETCHED, 1, then=("Cache-Control: max-age=0",), what="max-age=0"),
    _cc("5.2.1.1", "max-age=60", VALIDATED, 1, _ETAG, then=("Cache-Control: max-age=0",),
        what="max-age=0, ETag"),
    _cc("5.2.1.1", "max-age=60", STORED, 5, then=("Cache-Control: max-age=5",), what="young"),
    _cc("5.2.1.1", "max-age=60", FETCHED, 6, then=("Cache-Control: max-age=5",), what="too old"),
    _cc("5.2.1.1", "max-age=60", FETCHED, 1, "Age: 30", then=("Cache-Control: max-age=5",),
        what="too old on arrival"),
    _cc("5.2.1.1", "max-age=60", FETCHED, 1, then=("Cache-Control: max-age=x",), what="unreadable"),
    _cc("5.2.1.2", "max-age=60", STORED, 65, then=("Cache-Control: max-stale=10",)),
    _cc("5.2.1.2", "max-age=60", FETCHED, 75, then=("Cache-Control: max-stale=10",)),
    _cc("5.2.1.2", "max-age=60", STORED, 3600, then=("Cache-Control: max-stale",)),
    _cc("5.2.1.2", "max-age=60, must-revalidate", FETCHED, 65, then=("Cache-Control: max-stale",)),
    _cc("5.2.1.2", "max-age=60, proxy-revalidate", FETCHED, 65, then=("Cache-Control: max-stale",)),
    _cc("5.2.1.2", "s-maxage=60", FETCHED, 65, then=("Cache-Control: max-stale",)),
    _cc("5.2.1.2", "no-cache", VALIDATED, 65, _ETAG, then=("Cache-Control: max-stale",)),
    _cc("5.2.1.3", "max-age=60", STORED, 49, then=("Cache-Control: min-fresh=10",)),
    _cc("5.2.1.3", "max-age=60", FETCHED, 51, then=("Cache-Control: min-fresh=10",)),
    _cc("5.2.1.4", "max-age=60", FETCHED, 1, then=("Cache-Control: no-cache",)),
    _cc("5.2.1.4", "max-age=60", VALIDATED, 1, _LM, then=("Cache-Control: no-cache",),
        what="validated"),
    _cc("5.2.1.5", "max-age=60", STORED, 1, then=("Cache-Control: no-store",)),
    _cc("5.2.1.7", "max-age=60", STORED, 1, then=("Cache-Control: only-if-cached",)),
    _cc("5.4", "max-age=60", FETCHED, 1, then=("Pragma: no-cache",)),
    _cc("5.4", "max-age=60", STORED, 1, then=("Pragma: no-cache", "Cache-Control: max-age=9"),
        what="Cache-Control goes before Pragma"),
    _cc("5.4", "max-age=60", STORED, 1, then=("Pragma: foo",), what="unknown Pragma"),
    _cc("4.3.2", "max-age=60", FETCHED, 1, _ETAG, then=('If-Match: "a"',), what="If-Match"),
    _cc("4.3.2", "max-age=60", FETCHED, 1, _ETAG, then=("If-Unmodified-Since: x",)),
]  # fmt: skip

VARY: Final = [
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Foo", first=("Foo: 1",), then=("Foo: 1",),
        what="same"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", first=("Foo: 1",), then=("Foo: 2",),
        what="other"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", first=("Foo: 1",), what="absent later"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", then=("Foo: 1",), what="absent first"),
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Foo", what="absent both times"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", then=("Foo: ",), what="absent is not empty"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: *", what="star"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo, *", what="star in a list"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: *, Foo", what="star first"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: , *", what="star behind nothing"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: ", "Vary: *", what="star on a second line"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo Bar", what="no list of names"),
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Foo", first=("Foo: 1, 2",),
        then=("Foo: 1", "Foo: 2"), what="lines are joined"),
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Foo", first=("Foo: 1,2",), then=("Foo: 1 , 2",),
        what="white space"),
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Accept-Language",
        first=("Accept-Language: en, DE",), then=("Accept-Language: EN,de",), what="case"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", first=("Foo: a",), then=("Foo: A",),
        what="case of unknown fields"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", first=("Foo: 1, 2",), then=("Foo: 2, 1",),
        what="order"),
    _cc("4.1", "max-age=60", STORED, 9, "Vary: Foo, BAR", first=("Foo: 1", "Bar: 2"),
        then=("Bar: 2", "Foo: 1"), what="two fields"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo, Bar", first=("Foo: 1", "Bar: 2"),
        then=("Foo: 1", "Bar: 3"), what="one of two"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: Foo", "Vary: Bar", first=("Foo: 1", "Bar: 2"),
        then=("Foo: 1", "Bar: 3"), what="two lines"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Vary: User-Agent", first=("User-Agent: a, b",),
        then=("User-Agent: a,b",), what="white space where there are no lists"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Content-Encoding: gzip",
        first=("Accept-Encoding: gzip",), what="an encoding without Vary"),
    _cc("4.1", "max-age=60", FETCHED, 9, "Access-Control-Allow-Origin: https://a",
        first=("Origin: https://a",), then=("Origin: https://b",), what="an origin without Vary"),
    _cc("4.1", "max-age=60", STORED, 9, "Access-Control-Allow-Origin: *",
        first=("Origin: https://a",), then=("Origin: https://b",), what="every origin"),
]  # fmt: skip

STALE: Final = [
    _cc("4.2.4", "max-age=60", FETCHED, 61, what="stale is fetched"),
    _cc("4.3.1", "max-age=60", VALIDATED, 61, _ETAG, what="stale with ETag"),
    _cc("4.3.1", "max-age=60", VALIDATED, 61, _LM, what="stale with Last-Modified"),
    _cc("5861-3", "max-age=60, stale-while-revalidate=30", STORED, 89),
    _cc("5861-3", "max-age=60, stale-while-revalidate=30", FETCHED, 90, what="over"),
    _cc("5861-3", "max-age=60", STORED, 89, config={"stale_while_revalidate": "30s"},
        what="by configuration"),
    _cc("5861-3", "max-age=60, stale-while-revalidate=5", FETCHED, 70,
        config={"stale_while_revalidate": "30s"}, what="the answer's own goes first"),
    _cc("4.2.4", "max-age=60, must-revalidate, stale-while-revalidate=30", FETCHED, 61),
    _cc("4.2.4", "max-age=60, proxy-revalidate, stale-while-revalidate=30", FETCHED, 61),
    _cc("4.2.4", "s-maxage=60, stale-while-revalidate=30", FETCHED, 61),
    _cc("4.2.4", "no-cache, stale-while-revalidate=30", VALIDATED, 0, _ETAG),
    _cc("4.2.4", "max-age=60, must-revalidate", FETCHED, 61,
        config={"stale_while_revalidate": "30s"}, what="must-revalidate over configuration"),
    _cc("5861-3", "max-age=60, stale-while-revalidate=x", FETCHED, 61, what="unreadable"),
]  # fmt: skip

ROWS: Final = [*FRESHNESS, *AGE, *STORING, *REQUESTS, *VARY, *STALE]
