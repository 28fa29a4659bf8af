"""Validation: conditions that the cache answers, and those that it sends (RFC 9111 section 4.3).

Pure functions on header fields.
"""

from __future__ import annotations

from typing import Final

from gateway.policies.cache.directives import RawHeaders, entity_tags, opaque, parse_date
from gateway.policies.cache.rules import UNSTORED

# What a 304 may not change (section 3.2): these describe the bytes that are stored.
_FIXED: Final = (UNSTORED - {b"age"}) | {b"content-encoding", b"content-length", b"content-range"}
# What a 304 leaves out (RFC 9110 section 15.4.5): the client has them with the content.
_CONTENT: Final = frozenset(
    {b"content-encoding", b"content-language", b"content-length", b"content-range",
     b"content-type"}
)  # fmt: skip


def not_modified(
    headers: RawHeaders, none_match: bytes | None, modified_since: bytes | None, now: float
) -> bool:
    """Whether a stored 200 is what the client has already, so that a 304 will do (section 4.3.2).

    `now` is Unix seconds. If-None-Match goes before If-Modified-Since; without a Last-Modified the
    latter is compared with Date.
    """
    fields = dict(headers)
    if none_match is not None:
        tag = fields.get(b"etag")
        return none_match.strip(b" \t") == b"*" or (
            tag is not None and opaque(tag) in entity_tags(none_match)
        )
    if modified_since is None:
        return False
    changed = fields.get(b"last-modified") or fields.get(b"date") or b""
    since, at = parse_date(modified_since, now), parse_date(changed, now)
    return since is not None and at is not None and at <= since


def not_modified_headers(headers: RawHeaders) -> RawHeaders:
    """The fields of the 304 that stands for a stored answer (RFC 9110 section 15.4.5)."""
    return [pair for pair in headers if pair[0] not in _CONTENT]


def confirms(stored: RawHeaders, received: RawHeaders) -> bool:
    """Whether a 304 speaks of the stored answer that was asked about (section 4.3.4).

    A validator that it carries must be that of the stored answer. Entity tags are compared weakly:
    servers that compress on the fly mark the tag of a 200 as weak, and not that of the 304.
    """
    old, new = dict(stored), dict(received)
    if (tag := new.get(b"etag")) is not None and b"etag" in old:
        return opaque(tag) == opaque(old[b"etag"])
    if (changed := new.get(b"last-modified")) is not None:
        return changed == old.get(b"last-modified")
    return tag is None


def updated(stored: RawHeaders, received: RawHeaders) -> RawHeaders:
    """Stored fields with those of a 304, or of an answer to HEAD, in their place (section 3.2).

    Date goes as well if the new answer has none, because the old one would make it old.
    """
    fresh = [pair for pair in received if pair[0] not in _FIXED]
    replaced = {name for name, _ in fresh} | {b"date"}
    return [pair for pair in stored if pair[0] not in replaced] + fresh


def head_confirms(stored: RawHeaders, received: RawHeaders) -> bool:
    """Whether an answer to HEAD shows that the stored answer to GET still holds (section 4.3.5)."""
    old, new = dict(stored), dict(received)
    return all(
        new[name] == old.get(name)
        for name in (b"etag", b"last-modified", b"content-length")
        if name in new
    )


def conditional(stored: RawHeaders, asked: RawHeaders) -> RawHeaders:
    """A request's fields, with the stored answer's validators instead of its own conditions."""
    mine = [
        (b"if-none-match" if name == b"etag" else b"if-modified-since", value)
        for name, value in stored
        if name == b"etag" or name == b"last-modified"
    ]
    return without_conditions(asked) + mine


def without_conditions(asked: RawHeaders) -> RawHeaders:
    """A request's fields without the conditions that a cache answers by itself."""
    return [
        pair for pair in asked if pair[0] != b"if-none-match" and pair[0] != b"if-modified-since"
    ]
