"""The control plane's client: bounded in time and size, deaf to the environment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

from gateway.control.client import ControlClient, ControlError, Trust
from tests.support.scripted import Peer, ScriptedUpstream, answer, answer_then_close, respond


async def ask(script: object, **options: object) -> object:
    """One GET to a server of this script."""
    client = ControlClient()
    try:
        async with ScriptedUpstream(script) as server:  # type: ignore[arg-type]
            return await client.get(server.url + "/x?secret=s3cret", **options)  # type: ignore[arg-type]
    finally:
        await client.aclose()


async def failed(script: object, **options: object) -> str:
    """Why that gave no answer."""
    with pytest.raises(ControlError) as caught:
        await ask(script, **options)
    assert "s3cret" not in caught.value.reason
    return caught.value.reason


async def test_an_answer() -> None:
    """Whole, whatever its status; a redirect is one, and not followed."""
    script = answer(
        respond(b"{}", "302 Found", b"Location: http://127.0.0.1:1/", b"X-A: 1", b"X-A: 2")
    )
    reply = await ask(script)

    assert (reply.status, reply.body) == (302, b"{}")  # type: ignore[attr-defined]
    assert reply.headers["x-a"] == "1, 2"  # type: ignore[attr-defined]


async def test_time_and_size_are_bounded() -> None:
    """Silence, a drip, and floods."""

    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.gone.wait()

    async def drip(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not peer.gone.is_set():
            await peer.send(b"x")
            await asyncio.sleep(0.02)

    assert await failed(silent, timeout=0.1) == "no answer within 0.1 s"
    assert await failed(drip, timeout=0.2) == "no answer within 0.2 s"
    assert "larger than 100 bytes" in await failed(answer(respond(b"x" * 101)), max_bytes=100)
    assert (await ask(answer(respond(b"x" * 100)), max_bytes=100)).body  # type: ignore[attr-defined]


async def test_what_is_no_answer() -> None:
    """Broken, compressed though not asked for, or not HTTP at all."""
    packed = respond(b"\x1f\x8b", "200 OK", b"Content-Encoding: gzip")

    assert "compressed" in await failed(answer(packed))
    assert "broke off" in await failed(
        answer_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    )
    assert "no HTTP" in await failed(answer_then_close(b"SSH-2.0-x\r\n"))


async def test_nobody_there(free_port: int) -> None:
    """Refused connections, names that are none, URLs that are none."""
    client = ControlClient()
    for url, reason in (
        (f"http://127.0.0.1:{free_port}/", "the connection failed"),
        ("ftp://a/", "neither http nor https"),
        ("http://[", ""),
        ("", ""),
    ):
        with pytest.raises(ControlError) as caught:
            await client.get(url, timeout=2.0)
        assert reason in caught.value.reason
    await client.aclose()


async def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are for others."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert (await ask(answer(respond(b"ok")))).body == b"ok"  # type: ignore[attr-defined]


async def test_a_form() -> None:
    """POST, with fields that the caller adds."""
    client = ControlClient()
    async with ScriptedUpstream(answer(respond(b"{}"))) as server:
        await client.post_form(server.url, {"token": "a b&c"}, headers={"authorization": "Basic x"})
        (request,) = server.requests
    await client.aclose()

    assert request.body == b"token=a+b%26c"
    assert request.get("content-type") == "application/x-www-form-urlencoded"
    assert request.get("authorization") == "Basic x"
    assert request.get("accept-encoding") == "identity"


async def test_authorities_are_files_that_may_change(tmp_path: Path) -> None:
    """A server of an unknown authority is refused; with its file, and after a change of it, not."""
    one, two = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    one.cert_pem.write_to_path(str(file))
    client = ControlClient()
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    two.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    async with ScriptedUpstream(answer(respond(b"ok")), tls=context) as server:
        url = server.url.replace("http://", "https://")
        for trust in (Trust(), Trust(ca=file)):
            with pytest.raises(ControlError, match="certificate"):
                await client.get(url, trust=trust)
        two.cert_pem.write_to_path(str(file))
        reply = await client.get(url, trust=Trust(ca=file))
        with pytest.raises(ControlError):
            await client.get(url, trust=Trust(ca=tmp_path / "missing.pem"))
    await client.aclose()

    assert reply.body == b"ok"
