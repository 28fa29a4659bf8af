"""W3C Trace Context: reading and making `traceparent` and `tracestate`. Pure; randomness is given.

Strict, because a wrong id ends up in other people's storage: a `traceparent` that is not exactly as
the recommendation says is as good as none, and then `tracestate` goes with it.
"""

from __future__ import annotations

import random
import re
from typing import Final

from gateway.message import Headers
from gateway.tracing import TraceContext

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
_FLAGS: Final = ("00", "01", "02", "03")  # sampled, and random of level 2; others go on as zero
_BATCH: Final = 256
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
    return trace_id.decode(), parent_id.decode(), _FLAGS[int(flags, 16) & 3]


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


class IdSource:
    """Ids for traces and spans, made a few hundred at a time because each call to a random
    generator costs more than an id may.
    """

    __slots__ = ("_random", "_ready")

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._ready: list[str] = []

    def take(self) -> str:
        """48 hex digits: a trace id in front, a span id behind. Neither is all zeros."""
        if not self._ready:
            digits = self._random.randbytes(_BATCH * 24).hex("-", 24)
            # No id is all zeros if there are no 16 zeros in a row anywhere.
            self._ready = digits.replace("0" * 16, "0" * 15 + "1").split("-")
        return self._ready.pop()


def begin(headers: Headers, ids: IdSource) -> TraceContext:
    """A new trace, written into `headers`, which have no trace context."""
    made = ids.take()
    trace_id, span_id = made[:32], made[32:]
    headers.add(b"traceparent", f"00-{trace_id}-{span_id}-{NEW_FLAGS}".encode())
    return TraceContext(trace_id, span_id, NEW_FLAGS)


def join(headers: Headers, ids: IdSource) -> TraceContext:
    """The trace that the request belongs to, continued by a span of the gateway, or a new one.

    It is written into `headers` in place of the client's, for the upstream to see: `traceparent`
    always, and `tracestate`, with the gateway's member in front, if the client's was valid.
    """
    received = headers.get(b"traceparent")
    made = ids.take()
    trace_id, span_id = made[:32], made[32:]
    fields = len(headers)
    parsed = parse_traceparent(received) if received is not None else None
    if parsed is None:
        trace = TraceContext(trace_id, span_id, NEW_FLAGS)
        headers.set(b"traceparent", f"00-{trace_id}-{span_id}-{NEW_FLAGS}".encode())
    else:
        parent_trace, parent_id, flags = parsed
        trace = TraceContext(parent_trace, span_id, flags, parent_id)
        headers.set(b"traceparent", f"00-{parent_trace}-{span_id}-{flags}".encode())
        if len(headers) != fields:
            # Two of them can't both be the parent, and an attacker may hope that readers disagree.
            trace = TraceContext(trace_id, span_id, NEW_FLAGS)
            headers.set(b"traceparent", f"00-{trace_id}-{span_id}-{NEW_FLAGS}".encode())
    if b"tracestate" in headers:
        _pass_state(headers, trace)
    return trace


def _pass_state(headers: Headers, trace: TraceContext) -> None:
    members = parse_tracestate(headers.get_all(b"tracestate")) if trace.parent_id else None
    if not members:
        headers.remove(b"tracestate")
        return
    others = [member for member in members if not member.startswith(_OUR_KEY + b"=")]
    ours = b"%s=%s" % (_OUR_KEY, trace.span_id.encode())
    trace.state = b",".join([ours, *others[: MAX_MEMBERS - 1]])
    headers.set(b"tracestate", trace.state)
