"""Trouble made on purpose, as callers meet it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from gateway.errors import ConfigError
from tests.e2e.conftest import Serve
from tests.support.gateway import load, routes
from tests.support.scripted import ScriptedUpstream, answer, respond

ALLOWED = {"GATEWAY_ALLOW_FAULTS": "1"}
BODY = b"x" * 1000


def fault(upstream: ScriptedUpstream, yaml: str) -> str:
    return routes(upstream.url, options=f"fault: {yaml}, timeout: 15s")


async def test_an_abort(serve: Serve) -> None:
    """The status that was asked for, a code that says that it is no accident; nothing is sent."""
    async with (
        ScriptedUpstream(answer(respond())) as upstream,
        serve(fault(upstream, "{abort: {status: 429}}"), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        got = await client.get("/a")

        assert got.status_code == 429
        assert got.json()["code"] == "fault_injected"
        assert got.headers["x-lockgate-fault"] == "abort"
        assert not upstream.peers
        assert gateway.metric("gateway_faults_injected_total", route="any", kind="abort") == 1


async def test_a_delay(serve: Serve) -> None:
    """The answer is the upstream's, later."""
    async with (
        ScriptedUpstream(answer(respond())) as upstream,
        serve(fault(upstream, "{delay: {for: 200ms}}"), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        began = time.monotonic()
        got = await client.get("/a")

        assert got.text == "ok"
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("kind", ["reset: {}", "truncate: {after: 10}"])
async def test_what_breaks_off(serve: Serve, kind: str) -> None:
    """A client can tell that the answer is not whole, and everything is given back."""
    async with (
        ScriptedUpstream(answer(respond(BODY))) as upstream,
        serve(fault(upstream, f"{{{kind}}}"), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(httpx.TransportError):
            await client.get("/a")
        await gateway.quiet()


async def test_a_reset_has_no_answer(serve_lean: Serve) -> None:
    """The lean protocol resets the connection before a byte of an answer."""
    async with (
        ScriptedUpstream(answer(respond())) as upstream,
        serve_lean(fault(upstream, "{reset: {}}"), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(httpx.ReadError):
            await client.get("/a")
        assert (await gateway.line())["code"] == "client_disconnected"
        assert not upstream.peers
        await gateway.quiet()


async def test_a_slow_body(serve: Serve) -> None:
    """It drips at the rate that was asked for, and comes whole."""
    async with (
        ScriptedUpstream(answer(respond(BODY))) as upstream,
        serve(fault(upstream, "{slow: {rate: 5000}}"), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        began = time.monotonic()
        got = await client.get("/a")

        assert got.content == BODY
        assert time.monotonic() - began >= 0.15


async def test_only_whom_it_concerns(serve: Serve) -> None:
    """Others pass as if there were no fault."""
    text = "{abort: {}, when: {header: X-Chaos, value: please}}"
    async with (
        ScriptedUpstream(answer(respond())) as upstream,
        serve(fault(upstream, text), environ=ALLOWED) as gateway,
        gateway.client() as client,
    ):
        assert (await client.get("/a")).status_code == 200
        assert (await client.get("/a", headers={"X-Chaos": "no"})).status_code == 200
        assert (await client.get("/a", headers={"X-Chaos": "please"})).status_code == 503


@pytest.mark.parametrize(
    ("environ", "yaml", "message"),
    [
        ({}, "{abort: {}}", "not allowed in this environment"),
        ({"GATEWAY_ALLOW_FAULTS": "no"}, "{abort: {}}", "not allowed in this environment"),
        (ALLOWED, "{abort: {percent: 60%}, reset: {percent: 60%}}", "more than 100%"),
    ],
)
def test_where_it_does_not_load(
    tmp_path: Path, environ: dict[str, str], yaml: str, message: str
) -> None:
    """A rehearsal's configuration can't slip into production."""
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, routes("http://127.0.0.1:1", options=f"fault: {yaml}"), environ)
    assert "routes[0].fault" in str(caught.value)


@pytest.mark.parametrize("kind", ["delay: {for: 10s}", "slow: {rate: 10}"])
async def test_a_client_that_does_not_wait(serve: Serve, kind: str) -> None:
    """Leaving in the middle of the trouble leaves nothing behind."""
    async with (
        ScriptedUpstream(answer(respond(BODY))) as upstream,
        serve(fault(upstream, f"{{{kind}}}"), environ=ALLOWED) as gateway,
        gateway.client(timeout=0.1) as client,
    ):
        with pytest.raises(httpx.TimeoutException):
            await client.get("/a")
        await gateway.quiet()
