"""What the admin API shows of a target."""

from __future__ import annotations

from typing import Any

from gateway.upstream.pool import Pool
from gateway.upstream.supervision import Supervision


def target_status(
    pool: Pool, addresses: list[str], supervision: Supervision | None
) -> dict[str, Any]:
    """A target with its connections, counts and last error; its state, if somebody watches it."""
    target = pool.target
    return {
        "target": target.label,
        "scheme": "unix" if target.address.path else "https" if target.address.tls else "http",
        "weight": target.weight,
        "priority": target.priority,
        "addresses": addresses,
        "active": target.active,
        "idle": len(pool.idle),
        "open": pool.open,
        "waiting": pool.waiting,
        "max_connections": pool.limit,
        "requests": target.requests,
        "connects": target.connects,
        "reuses": target.reuses,
        "waits": target.waits,
        "failures": dict(target.failures),
        "last_error": target.last_error or None,
        "last_error_at": target.last_error_at or None,
        **({} if supervision is None else supervision.target_status(target)),
    }
