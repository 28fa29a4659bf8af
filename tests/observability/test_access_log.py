"""What a line of the access log says, and that it is always one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.config.model import AccessLogConfig, RedactConfig
from gateway.errors import CONNECT_FAILED, ConfigError, UpstreamError
from gateway.message import Exchange, Headers, Principal, RawHeaders, Request
from gateway.observability.access_log import AccessLog
from gateway.observability.metrics import Metrics
from gateway.tracing import TraceContext

WALL = 1_700_000_000.1239


def make_log(
    path: Path,
    sample: float = 1.0,
    random: Callable[[], float] = lambda: 0.5,
    **redact: Any,
) -> AccessLog:
    clock = ManualClock(WALL)
    config = AccessLogConfig(to=str(path), sample=sample)
    return AccessLog(config, RedactConfig(**redact), clock, Metrics(clock), random)


def make_exchange(
    path: str = "/v1/orders/1", query: bytes = b"", headers: RawHeaders | None = None
) -> Exchange:
    request = Request(
        "GET", path, query, Headers(headers or []), host="api.internal", client="192.0.2.1"
    )
    exchange = Exchange(request, 0.0)
    exchange.response_status = 200
    return exchange


async def written(log: AccessLog, path: Path, *exchanges: Exchange) -> list[dict[str, Any]]:
    for exchange in exchanges:
        log.write(exchange, 0.0123456)
    await log.aclose()
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


async def test_a_line_says_everything(tmp_path: Path) -> None:
    """Every field of a proxied exchange, with times in ms and the second in UTC."""
    exchange = make_exchange(query=b"page=2", headers=[(b"user-agent", b"curl/8")])
    exchange.route, exchange.correlation_id, exchange.generation = "orders.read", "abc-1", 3
    exchange.trace = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "01")
    exchange.principal = Principal("billing-bot")
    exchange.upstream, exchange.target, exchange.upstream_status = "orders", "10.0.0.1:80", 200
    exchange.upstream_seconds, exchange.bytes_in, exchange.bytes_out = 0.0110, 5, 1024
    exchange.reported = ["access:access_denied"]
    log = make_log(tmp_path / "a.log")
    assert await written(log, tmp_path / "a.log", exchange) == [
        {
            "ts": "2023-11-14T22:13:20.123Z",
            "method": "GET",
            "path": "/v1/orders/1",
            "status": 200,
            "duration_ms": 12.345,
            "overhead_ms": 1.345,
            "bytes_in": 5,
            "bytes_out": 1024,
            "generation": 3,
            "http_version": "1.1",
            "route": "orders.read",
            "query": "page=2",
            "host": "api.internal",
            "client": "192.0.2.1",
            "consumer": "billing-bot",
            "user_agent": "curl/8",
            "correlation_id": "abc-1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "upstream": "orders",
            "target": "10.0.0.1:80",
            "upstream_status": 200,
            "upstream_ms": 11.0,
            "reported": ["access:access_denied"],
        }
    ]


async def test_what_has_nothing_to_say_is_left_out(tmp_path: Path) -> None:
    """An exchange without upstream, identity or error has no empty fields for them."""
    (line,) = await written(make_log(tmp_path / "a.log"), tmp_path / "a.log", make_exchange())
    assert set(line) == {
        "ts", "method", "path", "status", "duration_ms", "overhead_ms", "bytes_in", "bytes_out",
        "generation", "http_version", "host", "client",
    }  # fmt: skip


async def test_an_error_is_named(tmp_path: Path) -> None:
    """Code, source, transience and detail come from the taxonomy."""
    exchange = make_exchange()
    exchange.response_status = 502
    exchange.fail(UpstreamError(CONNECT_FAILED, "10.0.0.1:80 refused"))
    (line,) = await written(make_log(tmp_path / "a.log"), tmp_path / "a.log", exchange)
    assert line["code"] == "connect_failed"
    assert line["source"] == "upstream"
    assert line["transient"] is True
    assert line["detail"] == "10.0.0.1:80 refused"


async def test_secrets_are_masked(tmp_path: Path) -> None:
    """Configured query parameters and header fields show as ***."""
    exchange = make_exchange(query=b"access_token=s3cret&a=1", headers=[(b"user-agent", b"s3cret")])
    log = make_log(tmp_path / "a.log", headers=["User-Agent", "Host"], query=["access_token"])
    (line,) = await written(log, tmp_path / "a.log", exchange)
    assert line["query"] == "access_token=***&a=1"
    assert line["user_agent"] == line["host"] == "***"


async def test_sampling_never_loses_a_failure(tmp_path: Path) -> None:
    """With a sample of nothing, errors and 5xx are still logged, and what went well is not."""
    fine, failed, upstream = make_exchange("/fine"), make_exchange("/failed"), make_exchange("/5xx")
    failed.fail(UpstreamError(CONNECT_FAILED))
    upstream.response_status = 503
    log = make_log(tmp_path / "a.log", sample=0.25, random=lambda: 0.25)
    lines = await written(log, tmp_path / "a.log", fine, failed, upstream)
    assert [line["path"] for line in lines] == ["/failed", "/5xx"]
    log = make_log(tmp_path / "b.log", sample=0.25, random=lambda: 0.2499)
    assert len(await written(log, tmp_path / "b.log", fine)) == 1


async def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    """Lines before it are in the renamed file, lines after it in a new one."""
    path = tmp_path / "a.log"
    log = make_log(path)
    log.write(make_exchange("/before"), 0.001)
    path.rename(tmp_path / "a.log.1")
    log.reopen()
    (line,) = await written(log, path, make_exchange("/after"))
    assert line["path"] == "/after"
    assert json.loads((tmp_path / "a.log.1").read_bytes())["path"] == "/before"


async def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    """The log names clients, so others can't read it."""
    await make_log(tmp_path / "a.log").aclose()
    assert (tmp_path / "a.log").stat().st_mode & 0o007 == 0


def test_a_path_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    """It is refused when the configuration is built, naming its key."""
    with pytest.raises(ConfigError) as caught:
        make_log(tmp_path / "missing" / "a.log")
    assert caught.value.path == "telemetry.access_log.to"
    assert "No such file" in caught.value.message


async def test_dropped_lines_are_counted(tmp_path: Path) -> None:
    """What can't be written shows in the metrics."""
    clock = ManualClock()
    metrics = Metrics(clock)
    log = AccessLog(AccessLogConfig(to="/dev/full"), RedactConfig(), clock, metrics)
    log.write(make_exchange(), 0.001)
    log.write(make_exchange(), 0.001)
    await log.aclose()
    assert metrics.access_log_dropped == 2


async def test_lines_leave_together_after_a_moment(tmp_path: Path) -> None:
    """Lines wait a few milliseconds for each other, and are then written at once."""
    path = tmp_path / "a.log"
    log = make_log(path)
    for _ in range(3):
        log.write(make_exchange(), 0.001)
    assert path.read_bytes() == b""
    until = time.monotonic() + 5
    while not (written := path.read_bytes()) and time.monotonic() < until:
        await asyncio.sleep(0.001)
    assert len(written.splitlines()) == 3
    await log.aclose()


async def test_many_lines_do_not_wait(tmp_path: Path) -> None:
    """So many that they fill a write leave at once; those behind them wait as usual."""
    path = tmp_path / "a.log"
    log = make_log(path)
    for _ in range(300):
        log.write(make_exchange(), 0.001)
    assert len(path.read_bytes().splitlines()) == 256
    await log.aclose()
    assert len(path.read_bytes().splitlines()) == 300


nasty = "\x00\n\r\x1b\x7f\x85\u2028\ud800" + "\\" + '"'
hostile = st.text(st.characters(), max_size=20) | st.text(nasty, max_size=8)


@settings(max_examples=60, deadline=None)
@given(hostile, hostile, st.binary(max_size=20), st.binary(max_size=20), hostile, st.lists(hostile))
def test_a_line_is_one_line_of_json_whatever_is_in_it(
    path: str, host: str, query: bytes, agent: bytes, detail: str, reported: list[str]
) -> None:
    """No value can end a line early, begin another, or reach a terminal as a control character."""

    async def run(target: Path) -> None:
        exchange = make_exchange(path, query, [(b"user-agent", agent)])
        exchange.request.host = host
        exchange.fail(UpstreamError(CONNECT_FAILED, detail))
        exchange.reported = reported
        log = make_log(target)
        log.write(exchange, 0.001)
        log.write(exchange, 0.001)
        await log.aclose()

    descriptor, name = tempfile.mkstemp()
    os.close(descriptor)
    try:
        asyncio.run(run(Path(name)))
        data = Path(name).read_bytes()
    finally:
        Path(name).unlink()
    first, second, rest = data.split(b"\n")
    assert rest == b""
    assert first == second
    assert first.decode("ascii").isprintable()
    line = json.loads(first)
    assert line["status"] == 200
    if not any("\ud800" <= char <= "\udfff" for char in path + host):
        assert line["path"] == path
        assert line.get("host", "") == host
