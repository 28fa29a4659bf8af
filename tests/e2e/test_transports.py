"""TLS, client certificates and unix sockets, at the front and towards the upstream."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tests.conformance.wire import Ended
from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, routes
from tests.support.raw import raw_unix
from tests.support.scripted import OK, ScriptedUpstream, answer, echo

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Files:
    """An authority, and certificates of it as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *names: str) -> tuple[Path, Path]:
        """A certificate and its key, as files."""
        made = self.authority.issue_cert(*names)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return cert, key

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client of the gateway trusts and shows."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def service(self, *, client_certificate: bool) -> ssl.SSLContext:
        """What an upstream for 127.0.0.1 shows, and whether it asks for a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("service", "127.0.0.1"))
        if client_certificate:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def server(files: Files, client_cert: str = "") -> str:
    cert, key = files.issue("front", "localhost", "127.0.0.1")
    more = f", client_ca: {files.ca}, client_cert: {client_cert}" if client_cert else ""
    return (
        f'server: {{listen: "127.0.0.1:0", admin: null, tls: {{cert: {cert}, key: {key}{more}}}}}\n'
    )


async def _status(gateway: RunningGateway, tls: ssl.SSLContext) -> int:
    async with gateway.raw(tls) as client:
        return (await client.ask(GET)).status


async def test_a_tls_listener(serve: Serve, files: Files) -> None:
    """The upstream is told that the client used https; plain HTTP gets nothing."""
    async with ScriptedUpstream(echo) as upstream:
        async with serve(server(files) + routes(upstream.url)) as gateway:
            assert await _status(gateway, files.client()) == 200
            async with gateway.raw() as plain:
                await plain.send(GET)
                assert not (await plain.rest()).startswith(b"HTTP/1.1 200")

    (request,) = upstream.requests
    assert request.get("x-forwarded-proto") == "https"
    assert "proto=https" in (request.get("forwarded") or "")


async def test_a_websocket_over_tls(serve: Serve, files: Files) -> None:
    """wss at the front, ws behind."""
    from websockets.asyncio.client import connect

    from tests.e2e.test_websocket import service

    async with service() as upstream, serve(server(files) + routes(upstream.url)) as gateway:
        url = f"wss://localhost:{gateway.port}/live"
        async with connect(url, ssl=files.client(), host="127.0.0.1", proxy=None) as client:
            await client.send("x")
            assert await client.recv() == "x"

    request = upstream.connections[0].request
    assert request is not None
    assert request.headers["X-Forwarded-Proto"] == "https"


async def test_required_client_certificates(serve: Serve, files: Files) -> None:
    """Without one, or with a stranger's, nobody gets in."""
    mine = files.issue("client", "me@example.org")
    (files.folder / "other").mkdir()
    strange = Files(files.folder / "other").issue("client", "me@example.org")
    async with ScriptedUpstream(answer(OK)) as upstream:
        async with serve(server(files, "required") + routes(upstream.url)) as gateway:
            assert await _status(gateway, files.client(mine)) == 200
            for context in (files.client(), files.client(strange)):
                with pytest.raises((ssl.SSLError, ConnectionError, Ended)):
                    await _status(gateway, context)

    assert len(upstream.requests) == 1


async def test_optional_client_certificates(serve: Serve, files: Files) -> None:
    """One may be shown, but not a stranger's."""
    mine = files.issue("client", "me@example.org")
    async with ScriptedUpstream(answer(OK)) as upstream:
        async with serve(server(files, "optional") + routes(upstream.url)) as gateway:
            assert await _status(gateway, files.client(mine)) == 200
            assert await _status(gateway, files.client()) == 200


async def test_a_tls_upstream_with_its_own_authority(serve: Serve, files: Files) -> None:
    """With our certificate, where it asks for one."""
    cert, key = files.issue("gateway", "gateway.internal")
    tls = f"tls: {{ca: {files.ca}, cert: {cert}, key: {key}}}"
    context = files.service(client_certificate=True)
    async with ScriptedUpstream(answer(OK), tls=context) as upstream:
        text = routes(upstream.url).replace("connect_timeout: 2s", tls)
        async with serve(text) as gateway, gateway.client() as client:
            assert (await client.get("/")).text == "ok"


async def test_a_tls_upstream_that_is_not_trusted(serve: Serve, files: Files) -> None:
    """502 with tls_certificate: an unknown authority is never talked to."""
    context = files.service(client_certificate=False)
    async with ScriptedUpstream(answer(OK), tls=context) as upstream:
        async with serve(routes(upstream.url)) as gateway, gateway.client() as client:
            got = await client.get("/")

    assert (got.status_code, got.json()["code"]) == (502, "tls_certificate")
    assert "error=tls_certificate_error" in got.headers["proxy-status"]
    assert upstream.requests == []


async def test_a_unix_socket_at_both_ends(serve: Serve, tmp_path: Path) -> None:
    """A sidecar needs no port: the listener and the upstream are files."""
    listen, target = str(tmp_path / "l.sock"), str(tmp_path / "u.sock")
    head = f'server: {{listen: "unix:{listen}", admin: null}}\n'
    async with ScriptedUpstream(echo, path=target) as upstream:
        async with serve(head + routes(upstream.url)) as gateway:
            async with raw_unix(listen) as client:
                got = await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            line = await gateway.line()

    assert got.status == 200
    (request,) = upstream.requests
    assert request.body == b"x"
    assert request.get("x-forwarded-for") == "unknown"
    assert "client" not in line
