"""What an upstream tells about itself: the admin API's view, and the metrics."""

from __future__ import annotations

import socket

import pytest

from gateway.clock import ManualClock
from gateway.errors import UpstreamError
from gateway.observability.metrics import Metrics
from tests.support.scripted import OK, ScriptedUpstream, answer, answer_then_wait
from tests.support.sending import fetch, running, send


async def test_status() -> None:
    """Every target is shown with its connections, counts and newest error."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        async with (
            ScriptedUpstream(answer(OK)) as server,
            running(server.url, f"http://{dead}", clock=ManualClock(5.0)) as upstream,
        ):
            for _ in range(4):
                await fetch(upstream)
            status = upstream.status()
            assert (status["name"], status["balance"]) == ("orders", "round_robin")
            first, second = status["targets"]
            assert first == {
                "target": f"127.0.0.1:{server.port}",
                "scheme": "http",
                "weight": 1,
                "priority": 0,
                "addresses": [],
                "active": 0,
                "idle": 1,
                "open": 1,
                "waiting": 0,
                "max_connections": 256,
                "requests": 4,
                "connects": 1,
                "reuses": 3,
                "waits": 0,
                "failures": {},
                "last_error": None,
                "last_error_at": None,
            }
            assert second["failures"] == {"connect_failed": 2}
            assert second["last_error"] == f"connect_failed: {dead}: Connection refused"
            assert second["last_error_at"] == 5.0


async def test_metrics() -> None:
    """Gauges and totals are right whenever they are read."""
    metrics = Metrics(ManualClock())
    split = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
    scripts = answer(OK, split), answer_then_wait(b"garbage")
    async with (
        ScriptedUpstream(*scripts) as server,
        running(server.url, options={"metrics": metrics}) as upstream,
    ):
        series = metrics.target("orders", f"127.0.0.1:{server.port}")
        await fetch(upstream)
        metrics.snapshot()
        assert (series.active, series.idle, series.connects) == (0, 1, 1)
        streaming = await send(upstream)
        metrics.snapshot()
        assert (series.active, series.idle, series.connects) == (1, 0, 1)
        with pytest.raises(UpstreamError):
            await fetch(upstream)
        streaming.close()
        metrics.snapshot()
        assert (series.active, series.idle, series.connects) == (0, 0, 2)
        assert series.failures == {"invalid_response": 1}
    metrics.snapshot()
    assert (series.active, series.idle) == (0, 0)
    assert metrics.before_snapshot == []


async def test_two_upstreams_of_one_name_share_their_series() -> None:
    """Around a reload the old and the new upstream count into one series; neither overwrites."""
    metrics = Metrics(ManualClock())
    options = {"metrics": metrics}
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(server.url, options=options) as old,
        running(server.url, options=options, connect_timeout="2s") as new,
    ):
        await fetch(old)
        await fetch(new)
        metrics.snapshot()
        series = metrics.target("orders", f"127.0.0.1:{server.port}")
        assert (series.connects, series.idle) == (2, 2)
        await old.aclose()
        metrics.snapshot()
        assert (series.connects, series.idle) == (2, 1)
