"""Calls between two processes over a socket pair: answers, failures, and the other end's death."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from gateway.config.issues import ConfigErrors, Issue
from gateway.errors import ConfigError
from gateway.server.channel import CallFailed, Channel, ChannelClosed, open_channel


async def pair(**handlers: Any) -> tuple[Channel, Channel]:
    """Two ends; the second one has the handlers."""
    ours, theirs = socket.socketpair()
    return await open_channel(ours, {}), await open_channel(theirs, handlers)


async def close(*channels: Channel) -> None:
    for channel in channels:
        await channel.aclose()


async def test_calls_are_answered_in_any_order() -> None:
    """A slow call does not hold up a fast one, and a large payload arrives whole."""
    first = asyncio.Event()

    async def slow(payload: msgspec.Raw) -> str:
        await first.wait()
        return "slow"

    async def length(payload: msgspec.Raw) -> int:
        return len(msgspec.json.decode(payload, type=bytes))

    ours, theirs = await pair(slow=slow, length=length)
    waiting: asyncio.Task[Any] = asyncio.create_task(ours.call("slow"))
    assert await ours.call("length", b"x" * 3_000_000, result=int) == 3_000_000
    first.set()
    assert await waiting == "slow"
    await close(ours, theirs)


async def test_failures_keep_their_kind() -> None:
    """Errors of the configuration come back with their issues; others with their words."""
    issue = Issue("a.yaml", 3, 4, "routes[0]", "wrong", "right")

    async def refuse(payload: msgspec.Raw) -> None:
        raise ConfigErrors([issue])

    async def deny(payload: msgspec.Raw) -> None:
        raise ConfigError("wrong", "server.tls")

    async def fail(payload: msgspec.Raw) -> None:
        raise ValueError("broken")

    ours, theirs = await pair(refuse=refuse, deny=deny, fail=fail)
    with pytest.raises(ConfigErrors) as refused:
        await ours.call("refuse")
    assert refused.value.issues == [issue]
    with pytest.raises(ConfigError) as denied:
        await ours.call("deny")
    assert denied.value.path == "server.tls"
    assert denied.value.message == "wrong"
    with pytest.raises(CallFailed, match="broken"):
        await ours.call("fail")
    with pytest.raises(CallFailed):
        await ours.call("nobody knows this")
    await close(ours, theirs)


async def test_the_end_of_the_other_side_is_noticed() -> None:
    """Calls under way and calls to come raise, and `gone` is set."""

    async def never(payload: msgspec.Raw) -> None:
        await asyncio.Event().wait()

    ours, theirs = await pair(never=never)
    waiting: asyncio.Task[Any] = asyncio.create_task(ours.call("never"))
    await asyncio.sleep(0)
    await theirs.aclose()

    with pytest.raises(ChannelClosed):
        await waiting
    await ours.gone.wait()
    with pytest.raises(ChannelClosed):
        await ours.call("never")
    ours.notify("never")
    await close(ours)


async def test_garbage_ends_the_conversation() -> None:
    """Bytes that are no frame close the channel rather than confuse it."""
    ours, theirs = socket.socketpair()
    channel = await open_channel(ours, {})
    theirs.sendall(b"\x00\x00\x00\x05hello")

    await channel.gone.wait()
    await close(channel)
    theirs.close()
