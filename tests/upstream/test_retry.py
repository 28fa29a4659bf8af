"""The two retries: a stale connection, and another target when connecting failed. And no other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.errors import CONNECT_FAILED, UPSTREAM_RESET, UpstreamError
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer, close_at_once, respond
from tests.support.sending import fetch, make_exchange, running


async def one_answer_then_close_on_request(peer: Peer) -> None:
    """Answer one request and reset the connection when the next one arrives: a stale connection."""
    await peer.request()
    await peer.send(OK)
    await peer.head()
    peer.reset()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_stale_connection_is_replaced_for_idempotent_methods(method: str) -> None:
    """A reused connection that dies before an answer is retried once, on a fresh connection."""
    async with (
        ScriptedUpstream(one_answer_then_close_on_request, answer(OK)) as server,
        running(server.url) as upstream,
    ):
        await fetch(upstream)
        body = b"hello" if method == "PUT" else b""
        await fetch(upstream, method, body=body)
        assert [len(peer.requests) for peer in server.peers] == [2, 1]
        assert server.peers[1].requests[0].body == body


@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPFIND", "get"])
async def test_a_stale_connection_is_an_error_for_other_methods(method: str) -> None:
    """What might have been done already is never sent twice."""
    async with (
        ScriptedUpstream(one_answer_then_close_on_request, answer(OK)) as server,
        running(server.url) as upstream,
    ):
        await fetch(upstream)
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream, method, body=b"hello")
        assert (caught.value.kind, caught.value.sent) == (UPSTREAM_RESET, True)
        assert [len(peer.requests) for peer in server.peers] == [2]


async def test_a_streamed_body_is_not_retried() -> None:
    """A body that was not kept can't be sent again, whatever the method."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"hello"
        await asyncio.sleep(60)

    async with (
        ScriptedUpstream(one_answer_then_close_on_request, answer(OK)) as server,
        running(server.url) as upstream,
    ):
        await fetch(upstream)
        with pytest.raises(UpstreamError):
            await fetch(upstream, "PUT", stream=stream())
        assert len(server.peers) == 1


async def test_it_is_retried_once() -> None:
    """The fresh connection's failure is final."""
    dying = one_answer_then_close_on_request

    async def die(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with ScriptedUpstream(dying, die, answer(OK)) as server, running(server.url) as upstream:
        await fetch(upstream)
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert caught.value.kind is UPSTREAM_RESET
        assert len(server.peers) == 2


async def test_a_fresh_connection_is_not_retried() -> None:
    """An upstream that closes new connections has a fault of its own; it is not asked again."""

    async def die(peer: Peer) -> None:
        await peer.head()
        peer.close()

    async with ScriptedUpstream(die, answer(OK)) as server, running(server.url) as upstream:
        with pytest.raises(UpstreamError):
            await fetch(upstream)
        assert len(server.peers) == 1


async def test_no_retry_behind_the_first_byte() -> None:
    """One byte of an answer is an answer: nothing is sent again."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.head()
        await peer.send(b"H")
        peer.close()

    async with ScriptedUpstream(script, answer(OK)) as server, running(server.url) as upstream:
        await fetch(upstream)
        with pytest.raises(UpstreamError):
            await fetch(upstream)
        assert len(server.peers) == 1


async def test_the_retry_keeps_to_the_bound() -> None:
    """With every slot in use, the fresh connection takes the slot of an idle one."""
    dying = one_answer_then_close_on_request
    async with (
        ScriptedUpstream(dying, dying, answer(OK)) as server,
        running(server.url, connections={"max": 2}) as upstream,
    ):
        await asyncio.gather(fetch(upstream), fetch(upstream))
        assert await fetch(upstream) == b"ok"
        assert upstream.status()["targets"][0]["open"] <= 2


async def test_a_closed_idle_connection_is_no_retry() -> None:
    """A connection that the upstream closed while it idled is noticed before anything is sent."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        peer.close()

    async with ScriptedUpstream(script) as server, running(server.url) as upstream:
        for _ in range(5):
            assert await fetch(upstream, "POST", body=b"x") == b"ok"
        assert [len(peer.requests) for peer in server.peers] == [1] * 5


async def test_the_next_target_when_one_refuses() -> None:
    """A target that can't be reached costs no request, POST included, since nothing was sent."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with ScriptedUpstream(answer(OK)) as server, running(dead, server.url) as upstream:
            for _ in range(4):
                exchange = make_exchange("POST", body=b"x")
                response = await upstream.send(exchange, "POST", b"/")
                assert response.body == b"ok"
                assert exchange.target == f"127.0.0.1:{server.port}"
            first, second = upstream.status()["targets"]
            assert first["failures"] == {"connect_failed": 2}
            assert second["requests"] == 4


async def test_every_target_once() -> None:
    """With no target left, the last one's error comes out, after one try each."""
    with socket.socket() as one, socket.socket() as two:
        for closed in (one, two):
            closed.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{closed.getsockname()[1]}" for closed in (one, two)]
        async with running(*urls, balance="least_requests") as upstream:
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert (caught.value.kind, caught.value.sent) == (CONNECT_FAILED, False)
            failures = [target["failures"] for target in upstream.status()["targets"]]
            assert failures == [{"connect_failed": 1}] * 2


async def test_a_failure_behind_the_connect_does_not_move_on() -> None:
    """Once something was sent, another target is not tried."""

    async def die(peer: Peer) -> None:
        await peer.head()
        peer.close()

    async with (
        ScriptedUpstream(die) as bad,
        ScriptedUpstream(answer(respond(b"good"))) as good,
        running(bad.url, good.url) as upstream,
    ):
        results = await asyncio.gather(*(fetch(upstream) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(each, UpstreamError) for each in results) == 2
        assert results.count(b"good") == 2


async def test_a_target_that_closes_on_accept_counts_as_unreachable() -> None:
    """The exchange gets an answer from the other target, or a clean failure; never a hang."""
    async with (
        ScriptedUpstream(close_at_once) as bad,
        ScriptedUpstream(answer(OK)) as good,
        running(bad.url, good.url) as upstream,
    ):
        requests = (asyncio.wait_for(fetch(upstream), 20) for _ in range(4))
        for result in await asyncio.gather(*requests, return_exceptions=True):
            if result != b"ok":
                assert isinstance(result, UpstreamError)
                assert result.kind is UPSTREAM_RESET


async def test_the_next_target_serves_from_its_idle_connections() -> None:
    """A stand-in's idle connection is used, even when no further connection may be opened."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with (
            ScriptedUpstream(answer(OK)) as server,
            running(dead, server.url, connections={"max": 1}) as upstream,
        ):
            for _ in range(6):
                assert await fetch(upstream) == b"ok"
            assert len(server.peers) == 1
