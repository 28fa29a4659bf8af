"""W3C Trace Context: reading and making `traceparent` and `tracestate`. Pure; randomness is given.

Strict, because a wrong id ends up in other people's storage: a `traceparent` that is not exactly as
the recommendation says is as good as none, and then `tracestate` goes with it.
"""

from __future__ import annotations

import random
import re
from typing import Final

from gateway.message import Headers, TraceContext

MAX_MEMBERS: Final = 32
_MAX_STATE_BYTES: Final = 8192
_TRACEPARENT: Final = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
# Level 2, section 3.3.1.3: list-member = key "=" value; the multi-tenant form of a key has one "@".
_MEMBER: Final = re.compile(
    rb"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_OUR_KEY: Final = b"lockgate"
_KNOWN_FLAGS: Final = 0x03  # sampled, and random of level 2; all others must go on as zero
_NOT_ZERO: Final = 1 << 64 | 1  # the lowest bit of each id: an id of zeros is invalid
NEW_FLAGS: Final = "01"
"""A trace that begins here is marked as sampled: the gateway has no reason against recording it,
and services that follow their parent's decision would otherwise never record anything."""


def parse_traceparent(value: bytes) -> tuple[str, str, str] | None:
    """Trace id, parent id and flags of a `traceparent`, or None if it is not valid (section 3.2).

    Of a version that is not known yet the first four parts are read. Unknown flags come out as 0.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    known = int(flags, 16) & _KNOWN_FLAGS
    return trace_id.decode(), parent_id.decode(), f"{known:02x}"


def parse_tracestate(values: list[bytes]) -> list[bytes] | None:
    """The members of all `tracestate` fields, in order, or None if they are not valid as a whole
    (section 3.3): a malformed member, a key given twice, more than 32 members.
    """
    members: list[bytes] = []
    keys: set[bytes] = set()
    if sum(map(len, values)) > _MAX_STATE_BYTES:
        return None
    for part in b",".join(values).split(b","):
        member = part.strip(b" \t")
        if not member:
            continue
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in keys or len(members) == MAX_MEMBERS:
            return None
        keys.add(found[1])
        members.append(member)
    return members


def begin(source: random.Random) -> TraceContext:
    """A new trace, with the gateway's own span as its root."""
    ids = f"{source.getrandbits(192) | _NOT_ZERO:048x}"
    return TraceContext(ids[:32], ids[32:], NEW_FLAGS)


def accept(headers: Headers, source: random.Random) -> TraceContext:
    """The trace that the request belongs to, continued by a span of the gateway, or a new one.

    `state` is the `tracestate` to send on: the caller's, with the gateway's member in front.
    """
    value = headers.get(b"traceparent")
    if value is None:
        return begin(source)
    parsed = parse_traceparent(value)
    # Two of them can't both be the parent, and an attacker may hope that readers disagree.
    if parsed is None or len(headers.get_all(b"traceparent")) != 1:
        return begin(source)
    trace_id, parent_id, flags = parsed
    span_id = f"{source.getrandbits(64) | 1:016x}"
    state = b""
    if b"tracestate" in headers:
        members = parse_tracestate(headers.get_all(b"tracestate"))
        if members:
            others = [member for member in members if not member.startswith(_OUR_KEY + b"=")]
            ours = b"%s=%s" % (_OUR_KEY, span_id.encode())
            state = b",".join([ours, *others[: MAX_MEMBERS - 1]])
    return TraceContext(trace_id, span_id, flags, parent_id, state)


def propagate(trace: TraceContext, headers: Headers) -> None:
    """Write the trace into the fields that go to the upstream, in place of the client's."""
    value = f"00-{trace.trace_id}-{trace.span_id}-{trace.flags}".encode()
    headers.set(b"traceparent", value)
    if b"tracestate" in headers:
        if trace.state:
            headers.set(b"tracestate", trace.state)
        else:
            headers.remove(b"tracestate")
