"""Upstreams that are down or broken: each gets its status and code, and the others go on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import routes
from tests.support.scripted import (
    OK,
    ScriptedUpstream,
    answer,
    answer_then_close,
    answer_then_reset,
    answer_then_wait,
    close_at_once,
    respond,
)


async def test_an_upstream_that_is_down(serve: Serve, free_port: int) -> None:
    """502 with connect_failed and Proxy-Status; log and metrics say the same."""
    async with serve(routes(f"http://127.0.0.1:{free_port}")) as gateway:
        async with gateway.client() as client:
            got = await client.get("/")
        line = await gateway.line()
        failures = gateway.metric("gateway_upstream_failures_total", code="connect_failed")
        counted = gateway.metric("gateway_requests_total", code="connect_failed")

    problem = got.json()
    assert (got.status_code, problem["code"], problem["source"]) == (
        502, "connect_failed", "upstream",
    )  # fmt: skip
    assert problem["transient"] is True
    status = got.headers["proxy-status"]
    assert status.startswith("lockgate")
    assert f'error=connection_refused; next-hop="127.0.0.1:{free_port}"' in status
    assert (line["status"], line["code"], line["source"]) == (502, "connect_failed", "upstream")
    assert line["target"] == f"127.0.0.1:{free_port}"
    assert (failures, counted) == (1, 1)


@pytest.mark.parametrize(
    ("script", "status", "code", "error"),
    [
        (close_at_once, 502, "connect_failed|upstream_reset", "connection_"),
        (answer_then_close(), 502, "upstream_reset", "connection_terminated"),
        (answer_then_reset(), 502, "upstream_reset", "connection_terminated"),
        (answer_then_close(b"HTTP/1.1 200"), 502, "response_incomplete", "http_response_incompl"),
        (answer(b"garbage\r\n\r\n"), 502, "invalid_response", "http_protocol_error"),
        (
            answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            502,
            "invalid_response",
            "http_protocol_error",
        ),
        (
            answer(b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
            502,
            "invalid_response",
            "http_protocol_error",
        ),
        (
            answer(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 200_000),
            502,
            "response_headers_too_large",
            "http_response_header_section_size",
        ),
        (answer_then_wait(), 504, "deadline_exceeded", "http_response_timeout"),
        (
            answer_then_wait(b"HTTP/1.1 200 OK\r\n"),
            504,
            "deadline_exceeded",
            "http_response_timeou",
        ),
    ],
)
async def test_broken_upstreams(
    serve: Serve, script: Any, status: int, code: str, error: str
) -> None:
    """A problem with its code, for GET and POST; afterwards nothing is held."""
    async with ScriptedUpstream(script) as upstream:
        async with serve(routes(upstream.url, options="timeout: 300ms")) as gateway:
            async with gateway.client() as client:
                got = [await client.get("/"), await client.post("/", content=b"x" * 1000)]
            await gateway.quiet()
            lines = await gateway.lines(2)

    for each in got:
        assert (each.status_code, each.json()["status"]) == (status, status)
        assert each.json()["code"] in code.split("|")
        assert f"error={error}" in each.headers["proxy-status"]
        assert each.json()["correlation_id"] == each.headers["x-correlation-id"]
    assert [line["code"] for line in lines] == [each.json()["code"] for each in got]


async def test_the_answer_after_a_broken_one_is_its_own(serve: Serve) -> None:
    """Bytes behind an answer never reach the next client."""
    poisoned = OK + respond(b"poison")
    async with ScriptedUpstream(answer(poisoned), answer(respond(b"clean"))) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.client() as client:
            got = [(await client.get("/")).text for _ in range(3)]

    assert got == ["ok", "clean", "clean"]


async def test_another_target_takes_over(serve: Serve, free_port: int) -> None:
    """A target that is down costs its requests nothing but the attempt."""
    async with ScriptedUpstream(answer(OK)) as upstream:
        text = routes(upstream.url).replace(
            f'"{upstream.url}"', f'"http://127.0.0.1:{free_port}", "{upstream.url}"'
        )
        async with serve(text) as gateway, gateway.client() as client:
            got = [await client.post("/", content=b"x") for _ in range(4)]
            failures = gateway.metric("gateway_upstream_failures_total", code="connect_failed")

    assert [each.status_code for each in got] == [200] * 4
    assert failures >= 1


async def test_weights(serve: Serve) -> None:
    """Targets get their share of the requests; one of weight 0 gets none."""
    async with (
        ScriptedUpstream(answer(OK)) as one,
        ScriptedUpstream(answer(OK)) as three,
        ScriptedUpstream(answer(OK)) as none,
    ):
        targets = f'{{url: "{one.url}", weight: 1}}, {{url: "{three.url}", weight: 3}}'
        targets += f', {{url: "{none.url}", weight: 0}}'
        text = routes(one.url).replace(f'"{one.url}"', targets)
        async with serve(text) as gateway, gateway.client() as client:
            for _ in range(16):
                await client.get("/")

    assert [len(each.requests) for each in (one, three, none)] == [4, 12, 0]
