"""What an exchange knows of its trace.

Apart from `message.py`, because mypyc loses what a class statement says beside its bases.
"""

from __future__ import annotations

import msgspec


class TraceContext(msgspec.Struct, gc=False):
    """W3C trace context: ids in lower-case hex, `flags` as two hex digits.

    `span_id` is the gateway's own, which the upstream is told; `parent_id` is the caller's, empty
    if the trace began here. `state` is the `tracestate` that goes on. A Struct, because one is made
    for every exchange and a class in Python costs four times as much to make.
    """

    trace_id: str
    span_id: str
    flags: str
    parent_id: str = ""
    state: bytes = b""
