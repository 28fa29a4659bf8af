"""A stored answer, and the selectors by which stored answers are purged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.policies.cache.directives import RawHeaders
from gateway.policies.cache.key import Slot, Uri
from gateway.policies.cache.rules import Store

# What Python needs for an answer beside its bytes; a little more than was measured.
_PER_ENTRY: Final = 1500
_PER_FIELD: Final = 170
_MAX_TAGS: Final = 64
_MAX_TAG: Final = 256

TAG_FIELDS: Final = frozenset({b"cache-tag", b"surrogate-key"})
"""Fields in which upstreams name an answer's tags. They are meant for the cache, and end here."""


class Entry:
    """A stored answer to GET. All moments are `Clock.monotonic` seconds.

    `names` and `values` say what Vary selected it by. `reply` is its header list as it was last
    given, at the age of `second` seconds; `size` is what it takes in memory, in bytes. `asked` is
    the last moment at which the store was asked whether it still holds, `version` what that is
    compared with. `refresh_at` is when it may next be fetched anew in the background, and until
    `failing_until` its upstream is not asked again because it just failed.
    """

    __slots__ = (
        "asked", "body", "born", "error_until", "failing_until", "fresh_until", "headers",
        "may_stale", "names", "open", "refresh_at", "refresh_until", "reply", "second", "size",
        "slot", "status", "tags", "uri", "values", "version",
    )  # fmt: skip

    def __init__(
        self,
        place: tuple[Uri, Slot],
        values: tuple[bytes | None, ...],
        plan: Store,
        status: int,
        body: bytes,
        now: float,
    ) -> None:
        self.uri, self.slot = place
        self.names = plan.names
        self.values = values
        self.status = status
        self.body = body
        self.headers, self.tags = _prepare(plan.headers, status, len(body))
        self.born = born = now - plan.age
        self.fresh_until = until = born + plan.lifetime
        self.refresh_until = until + plan.while_revalidate
        self.error_until = until + plan.if_error
        self.may_stale = plan.may_stale
        self.open = plan.open
        self.second = -1
        self.reply: RawHeaders = []
        self.refresh_at = 0.0
        self.failing_until = 0.0
        self.asked = now
        self.version: tuple[bytes, bytes] = (b"", b"")
        self.size = size_of(self)

    @property
    def lasts_until(self) -> float:
        """When it stops being of any use but for validation."""
        return max(self.fresh_until, self.refresh_until, self.error_until)

    def covers_failure(self, now: float) -> bool:
        """Whether it may be given in place of a failure (RFC 5861 section 4)."""
        return self.fresh_until < self.error_until and now < self.error_until


def size_of(entry: Entry) -> int:
    """What an entry takes in memory, in bytes, a little more than less."""
    fields = sum(len(name) + len(value) + _PER_FIELD for name, value in entry.headers)
    key = sum(map(len, entry.uri)) + sum(len(value or b"") for value in entry.values)
    return _PER_ENTRY + len(entry.body) + fields + key + sum(map(len, entry.tags))


def _prepare(headers: RawHeaders, status: int, length: int) -> tuple[RawHeaders, frozenset[bytes]]:
    """The fields to give again, framed by a length, and the tags that stood among them."""
    tags = find_tags(headers)
    dropped = TAG_FIELDS | {b"content-length"}
    kept = [pair for pair in headers if pair[0] not in dropped]
    if status not in (204, 304):
        kept.append((b"content-length", b"%d" % length))
    return kept, tags


def find_tags(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The tags of Cache-Tag (separated by commas) and Surrogate-Key (by spaces)."""
    tags: list[bytes] = []
    for name, value in headers:
        if name == b"cache-tag":
            tags += [stripped for each in value.split(b",") if (stripped := each.strip(b" \t"))]
        elif name == b"surrogate-key":
            tags += value.split()
    return frozenset([tag for tag in tags if len(tag) <= _MAX_TAG][:_MAX_TAGS])


@dataclass(frozen=True, slots=True)
class Selector:
    """Which stored answers a purge takes; exactly one of the four is given.

    `prefix` is the beginning of a path if it starts with a slash, else of host and path.
    """

    route: str = ""
    prefix: str = ""
    tag: str = ""
    all: bool = False

    def takes(self, uri: Uri, route: str, tags: Iterable[bytes]) -> bool:
        """Whether an answer of this URI, route and tags is meant."""
        if self.route:
            return route == self.route
        if self.tag:
            return self.tag.encode("utf-8", "surrogateescape") in tags
        if self.prefix.startswith("/"):
            return uri[2].startswith(self.prefix)
        if self.prefix:
            return f"{uri[0].decode('latin-1')}{uri[2]}".startswith(self.prefix)
        return self.all
