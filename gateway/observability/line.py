"""One line of the access log, field by field.

Apart from `access_log.py`, because mypyc loses what a class statement says beside its bases.
"""

from __future__ import annotations

import msgspec


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One line, in the order in which its fields are written. What has a default is left out while
    it has it; defaults are singletons because the encoder tells them by identity.
    """

    ts: str
    method: str
    path: str
    status: int
    duration_ms: float
    overhead_ms: float
    bytes_in: int
    bytes_out: int
    generation: int
    http_version: str
    route: str = ""
    query: str = ""
    host: str = ""
    client: str = ""
    consumer: str = ""
    user_agent: str = ""
    correlation_id: str = ""
    trace_id: str = ""
    upstream: str = ""
    target: str = ""
    upstream_status: int = 0
    upstream_ms: float | None = None
    code: str = ""
    source: str = ""
    transient: bool | None = None
    detail: str = ""
    reported: list[str] | None = None
    cache: str = ""
    attempts: int = 1
    side: str = ""
