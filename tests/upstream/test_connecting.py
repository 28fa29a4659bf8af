"""Names, addresses and TLS: what each failure is called, and what is done about it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.clock import ManualClock
from gateway.config.model import UpstreamConfig
from gateway.errors import (
    CONNECT_TIMEOUT,
    DNS_FAILED,
    TLS_CERTIFICATE,
    TLS_FAILED,
    ConfigError,
    UpstreamError,
)
from gateway.upstream import Upstream
from gateway.upstream.resolver import Resolver
from tests.support.scripted import OK, Peer, ScriptedUpstream, answer
from tests.support.sending import eventually, fetch, make_exchange, running


class Names:
    """A look-up whose answers a test sets. `asked` counts the questions."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await self.answer.wait()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.addresses


async def test_every_address_of_a_name_is_used() -> None:
    """Connections go to the addresses in turn; one that refuses is passed over."""
    names = Names("127.0.0.1", "127.0.0.2")
    options = {"resolver": Resolver(ManualClock(), names)}
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(f"http://orders.test:{server.port}", options=options) as upstream,
    ):
        # Nobody listens on 127.0.0.2: the server is bound to one address only.
        for _ in range(4):
            exchange = make_exchange()
            response = await upstream.send(exchange, "GET", b"/", "upstream")
            assert response.body == b"ok"
            await asyncio.gather(*(fetch(upstream) for _ in range(3)))
        assert server.requests[0].get("host") == f"orders.test:{server.port}"
        assert exchange.target == f"orders.test:{server.port}"
        assert names.asked == 1


async def test_a_name_without_address() -> None:
    """An unknown name is dns_failed, and the failure is remembered for a moment only."""
    clock = ManualClock()
    names = Names()
    options = {"resolver": Resolver(clock, names)}
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(f"http://nowhere.test:{server.port}", options=options) as upstream,
    ):
        for _ in range(3):
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert (caught.value.kind, caught.value.sent) == (DNS_FAILED, False)
            assert "nowhere.test" in caught.value.detail
        assert names.asked == 1
        names.addresses = ["127.0.0.1"]
        clock.advance(1.1)
        assert await fetch(upstream) == b"ok"


async def test_the_last_good_answer_is_kept() -> None:
    """While the name server fails, the addresses that were known go on being used."""
    clock = ManualClock()
    names = Names("127.0.0.1")
    resolver = Resolver(clock, names, refresh=30)
    assert await resolver.resolve("a.test", 80) == ["127.0.0.1"]
    names.addresses = []
    clock.advance(31)
    assert await resolver.resolve("a.test", 80) == ["127.0.0.1"]
    await eventually(lambda: names.asked == 2)
    assert await resolver.resolve("a.test", 80) == ["127.0.0.1"]
    names.addresses = ["127.0.0.9"]
    clock.advance(31)
    # The old answer is given at once, the new one as soon as it is there.
    assert await resolver.resolve("a.test", 80) == ["127.0.0.1"]
    await eventually(lambda: resolver.known("a.test", 80) == ["127.0.0.9"])
    await resolver.aclose()


async def test_one_look_up_at_a_time() -> None:
    """However many ask, a name is looked up once; leaving does not cancel it for the others."""
    names = Names("127.0.0.1")
    names.answer.clear()
    resolver = Resolver(ManualClock(), names)
    tasks = [asyncio.create_task(resolver.resolve("a.test", 80)) for _ in range(5)]
    await eventually(lambda: names.asked == 1)
    tasks[0].cancel()
    await asyncio.sleep(0)
    names.answer.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [["127.0.0.1"]] * 4
    assert names.asked == 1
    await resolver.aclose()


async def test_a_look_up_that_hangs() -> None:
    """A name server that does not answer costs connect_timeout and is dns_failed."""
    names = Names("127.0.0.1")
    names.answer.clear()
    options = {"resolver": Resolver(ManualClock(), names)}
    async with running("http://slow.test:1", options=options, connect_timeout="50ms") as upstream:
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert (caught.value.kind, caught.value.sent) == (DNS_FAILED, False)


async def test_connections_leave_addresses_that_are_gone() -> None:
    """When a name moves, idle connections to the old address are closed, and new ones made."""
    clock = ManualClock()
    names = Names("127.0.0.1")
    options = {"resolver": Resolver(clock, names, refresh=30)}
    async with (
        ScriptedUpstream(answer(OK)) as server,
        running(
            f"http://orders.test:{server.port}",
            options=options,
            clock=clock,
            connections={"keep_alive": "1h"},
        ) as upstream,
    ):
        await fetch(upstream)
        clock.advance(31)
        names.addresses = ["127.0.0.3"]
        upstream.sweep()
        await eventually(lambda: names.asked == 2)
        await asyncio.sleep(0)
        assert upstream.status()["targets"][0]["idle"] == 1
        upstream.sweep()
        assert upstream.status()["targets"][0]["idle"] == 0
        assert upstream.status()["targets"][0]["addresses"] == ["127.0.0.3"]


async def test_an_ipv6_target() -> None:
    """A target may be an IPv6 address, in brackets."""
    try:
        server = await asyncio.start_server(lambda reader, writer: None, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    port = server.sockets[0].getsockname()[1]
    server.close()
    async with running(f"http://[::1]:{port}") as upstream:
        exchange = make_exchange()
        with pytest.raises(UpstreamError):
            await upstream.send(exchange, "GET", b"/", "upstream")
        assert exchange.target == f"[::1]:{port}"


async def test_connect_timeout() -> None:
    """An address that does not answer costs connect_timeout, and nothing was sent."""
    with socket.socket() as listener:
        # A full backlog drops SYNs, so connects hang as with a host that is gone.
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with running(f"http://127.0.0.1:{port}", connect_timeout="100ms") as upstream:
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert (caught.value.kind, caught.value.sent) == (CONNECT_TIMEOUT, False)
        for filler in fillers:
            filler.close()


class Certificates:
    """A certificate authority with its files, and a server context made from it."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(self.context)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for localhost names; making keys is slow, so once for the module."""
    return Certificates(tmp_path_factory.mktemp("tls"), "127.0.0.1", "orders.internal")


@pytest.mark.parametrize("server_name", [None, "orders.internal"])
async def test_tls(certificates: Certificates, server_name: str | None) -> None:
    """A target may speak TLS, verified against our own authority, by its address or a name."""
    tls = {"ca": certificates.ca}
    if server_name:
        tls["server_name"] = server_name  # type: ignore[assignment]
    async with (
        ScriptedUpstream(answer(OK), tls=certificates.context) as server,
        running(server.url, tls=tls) as upstream,
    ):
        for _ in range(3):
            assert await fetch(upstream) == b"ok"
        assert await fetch(upstream, "POST", body=b"x" * 500_000) == b"ok"
        assert len(server.peers) <= 2


async def test_another_authority(certificates: Certificates, tmp_path: Path) -> None:
    """A certificate from an authority that is not trusted is tls_certificate."""
    other = Certificates(tmp_path, "127.0.0.1")
    async with (
        ScriptedUpstream(answer(OK), tls=certificates.context) as server,
        running(server.url, tls={"ca": other.ca}) as upstream,
    ):
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert (caught.value.kind, caught.value.sent) == (TLS_CERTIFICATE, False)
        assert server.requests == []


async def test_another_name(certificates: Certificates) -> None:
    """A certificate for another name is tls_certificate as well."""
    async with (
        ScriptedUpstream(answer(OK), tls=certificates.context) as server,
        running(server.url, tls={"ca": certificates.ca, "server_name": "billing.test"}) as upstream,
    ):
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream)
        assert caught.value.kind is TLS_CERTIFICATE


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad\r\n\r\n", b""], ids=["http", "close"])
async def test_a_target_that_does_not_speak_tls(certificates: Certificates, garbage: bytes) -> None:
    """What is no TLS, or ends in the handshake, is tls_failed."""

    async def script(peer: Peer) -> None:
        await peer.read()
        if garbage:
            await peer.send(garbage)
        peer.close()

    async with ScriptedUpstream(script) as server:
        url = server.url.replace("http:", "https:")
        async with running(url, tls={"ca": certificates.ca}) as upstream:
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert (caught.value.kind, caught.value.sent) == (TLS_FAILED, False)


async def test_a_slow_handshake(certificates: Certificates) -> None:
    """The handshake is part of connect_timeout."""

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with ScriptedUpstream(script) as server:
        url = server.url.replace("http:", "https:")
        tls = {"ca": certificates.ca}
        async with running(url, tls=tls, connect_timeout="100ms") as upstream:
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert caught.value.kind is CONNECT_TIMEOUT
            # The half-made connection is not left behind.
            await asyncio.wait_for(server.peers[0].gone.wait(), 20)


async def test_a_client_certificate(certificates: Certificates, tmp_path: Path) -> None:
    """The configured certificate is shown to a server that asks for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.authority.issue_cert("127.0.0.1").configure_cert(context)
    certificates.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = certificates.authority.issue_cert("gateway.test")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))
    mine.private_key_pem.write_to_path(str(key))
    async with ScriptedUpstream(answer(OK), tls=context) as server:
        tls = {"ca": certificates.ca, "cert": cert, "key": key}
        async with running(server.url, tls=tls) as upstream:
            assert await fetch(upstream) == b"ok"
        async with running(server.url, tls={"ca": certificates.ca}) as upstream:
            # With TLS 1.3 the refusal comes behind the handshake, in place of an answer.
            with pytest.raises(UpstreamError):
                await fetch(upstream)


async def test_changed_files_are_used_after_a_reload(
    certificates: Certificates, tmp_path: Path
) -> None:
    """New connections use what the files hold now; broken files change nothing and are reported."""
    ca = tmp_path / "ca.pem"
    wrong = trustme.CA()
    wrong.cert_pem.write_to_path(str(ca))
    async with (
        ScriptedUpstream(answer(OK), tls=certificates.context) as server,
        running(server.url, tls={"ca": ca}) as upstream,
    ):
        with pytest.raises(UpstreamError):
            await fetch(upstream)
        assert not upstream.reload_tls()
        ca.write_bytes(certificates.ca.read_bytes())
        assert upstream.reload_tls()
        assert await fetch(upstream) == b"ok"
        ca.write_text("garbage")
        with pytest.raises(ConfigError) as caught:
            upstream.reload_tls()
        assert caught.value.path == "upstreams.orders.tls.ca"
        assert str(ca) in caught.value.message
        assert await fetch(upstream) == b"ok"


@pytest.mark.parametrize("content", [None, "garbage"], ids=["missing", "garbage"])
async def test_files_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    """A TLS file that is missing or broken is a configuration error at start, naming the key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file in (cert, key):
        if content is not None:
            file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        async with running("https://127.0.0.1:1", tls={"cert": cert, "key": key}):
            pass
    assert caught.value.path == "upstreams.orders.tls.cert"
    assert str(cert) in caught.value.message


def test_names_of_targets() -> None:
    """Label and Host of a target: the port is left out of Host where it is the scheme's own."""
    import random

    config = UpstreamConfig.model_validate(
        {"targets": ["http://a.test", "https://b.test", "http://c.test:443", "http://[::1]:81"]}
    )
    upstream = Upstream(
        "orders", config, clock=ManualClock(), random=random.Random(1), pseudonym="x"
    )
    assert [(target.label, target.authority) for target in upstream.targets] == [
        ("a.test:80", b"a.test"),
        ("b.test:443", b"b.test"),
        ("c.test:443", b"c.test:443"),
        ("[::1]:81", b"[::1]:81"),
    ]
