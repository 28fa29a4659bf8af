"""Tokens that are bound to the client's certificate (RFC 8705), over real TLS."""

from __future__ import annotations

import ssl
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import websockets

from gateway.certificate import ClientCertificate
from gateway.message import Exchange
from gateway.policies.base import Guard
from tests.policies.auth.conftest import Serve
from tests.support.gateway import RunningGateway, routes
from tests.support.idp import IdentityProvider, SigningKey
from tests.support.scripted import ScriptedUpstream, echo


class Pki:
    """A server's certificate and two clients', as files; contexts that show one of them."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.clients = trustme.CA(), trustme.CA()
        server = self.ca.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key, self.authority = (
            folder / "cert.pem",
            folder / "key.pem",
            folder / "ca.pem",
        )
        server.private_key_pem.write_to_path(str(self.key))
        server.cert_chain_pems[0].write_to_path(str(self.cert))
        self.clients.cert_pem.write_to_path(str(self.authority))
        self.ada = self.clients.issue_cert("ada.example.org", "ada@example.org", common_name="ada")
        self.bob = self.clients.issue_cert("bob.example.org")

    def context(self, client: trustme.LeafCert | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.ca.cert_pem.bytes().decode())
        if client is not None:
            client.configure_cert(context)
        return context

    @property
    def server(self) -> str:
        files = f"cert: '{self.cert}', key: '{self.key}', client_ca: '{self.authority}'"
        tls = f"tls: {{{files}, client_cert: optional}}"
        return f"server: {{listen: '127.0.0.1:0', admin: null, {tls}}}\n"


def thumbprint(cert: trustme.LeafCert) -> str:
    der = ssl.PEM_cert_to_DER_cert(cert.cert_chain_pems[0].bytes().decode())
    return urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


def config(pki: Pki, idp: IdentityProvider, upstream: ScriptedUpstream, options: str = "") -> str:
    return pki.server + idp.staff(options) + routes(upstream.url, options="auth: {any: [staff]}")


def client(gateway: RunningGateway, context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=context, base_url=f"https://localhost:{gateway.port}", trust_env=False
    )


async def test_bound_tokens(serve: Serve, key: SigningKey, tmp_path: Path) -> None:
    """Good with its certificate alone: also once remembered, also if it was stolen."""
    pki = Pki(tmp_path)
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(pki, idp, upstream)) as gateway:
            headers = {
                "Authorization": "Bearer " + idp.token(cnf={"x5t#S256": thumbprint(pki.ada)})
            }
            free = {"Authorization": "Bearer " + idp.token()}
            got = []
            for cert in (pki.bob, pki.ada, pki.bob, None, pki.ada):
                async with client(gateway, pki.context(cert)) as each:
                    got.append((await each.get("/", headers=headers)).status_code)
                    assert (await each.get("/", headers=free)).status_code == 200

    assert got == [401, 200, 401, 401, 200]


async def test_every_token_must_be_bound(serve: Serve, key: SigningKey, tmp_path: Path) -> None:
    """If that is asked for, a token without a binding is none."""
    pki = Pki(tmp_path)
    async with IdentityProvider(key) as idp, ScriptedUpstream(echo) as upstream:
        async with serve(config(pki, idp, upstream, "certificate_bound: true")) as gateway:
            async with client(gateway, pki.context(pki.ada)) as each:
                free = await each.get("/", headers={"Authorization": "Bearer " + idp.token()})
                bound = idp.token(cnf={"x5t#S256": thumbprint(pki.ada)})
                good = await each.get("/", headers={"Authorization": "Bearer " + bound})

    assert (free.status_code, good.status_code) == (401, 200)
    assert free.json()["detail"] == "the token is not bound to a client certificate"


class Look(Guard):
    """Keeps what it sees of the request's certificate."""

    def __init__(self) -> None:
        self.seen: list[ClientCertificate | None] = []

    def check(self, exchange: Exchange) -> None:
        self.seen.append(exchange.request.certificate)


async def test_facts_of_a_certificate(serve: Serve, tmp_path: Path) -> None:
    """Requests carry the certificate: one object a connection, with its names."""
    pki = Pki(tmp_path)
    look = Look()
    async with ScriptedUpstream(echo) as upstream:
        async with serve(pki.server + routes(upstream.url)) as gateway:
            route = gateway.snapshot.routes[0]
            inner: Any = route.handler

            async def watched(exchange: Exchange) -> Any:
                look.check(exchange)
                return await inner(exchange)

            object.__setattr__(route, "handler", watched)
            async with client(gateway, pki.context(pki.ada)) as each:
                await each.get("/")
                await each.get("/")
            async with client(gateway, pki.context(None)) as each:
                await each.get("/")

    first, second, none = look.seen
    assert first is second
    assert none is None
    assert first is not None
    assert first.thumbprint == thumbprint(pki.ada)
    assert first.names == {("DNS", "ada.example.org"), ("email", "ada@example.org")}
    assert "CN=ada" in first.subject
    assert first.not_after > 0


@pytest.mark.parametrize("who", ["ada", "bob", None])
async def test_websockets(serve: Serve, key: SigningKey, tmp_path: Path, who: str | None) -> None:
    """A handshake is a request like others: it needs a token, and that its certificate."""
    pki = Pki(tmp_path)

    async def answer(socket: websockets.ServerConnection) -> None:
        await socket.send(await socket.recv())

    async with IdentityProvider(key) as idp, websockets.serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        text = (
            pki.server
            + idp.staff()
            + routes(f"http://127.0.0.1:{port}", options="auth: {any: [staff]}")
        )
        async with serve(text) as gateway:
            token = idp.token(cnf={"x5t#S256": thumbprint(pki.ada)})
            context = pki.context(getattr(pki, who) if who else None)
            opening = websockets.connect(
                f"wss://localhost:{gateway.port}/", ssl=context, proxy=None,
                additional_headers={"Authorization": f"Bearer {token}"},
            )  # fmt: skip
            if who == "ada":
                async with opening as socket:
                    await socket.send("hello")
                    assert await socket.recv() == "hello"
            else:
                with pytest.raises(websockets.InvalidStatus) as caught:
                    await opening
                assert caught.value.response.status_code == 401


async def test_websockets_on_both_servers(serve_both: Serve, key: SigningKey) -> None:
    """With a token the handshake passes; without, or with a bad one, it is refused."""

    async def answer(socket: websockets.ServerConnection) -> None:
        assert socket.request is not None
        await socket.send(socket.request.headers.get("X-Consumer", ""))

    async with IdentityProvider(key) as idp, websockets.serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        text = idp.staff() + routes(
            f"http://127.0.0.1:{port}",
            options="auth: {any: [staff], forward_consumer: X-Consumer}",
        )
        async with serve_both(text) as gateway:
            url = f"ws://127.0.0.1:{gateway.port}/"
            good = {
                "Authorization": f"Bearer {idp.token()}",
                "X-Consumer": "root",
                "X_Consumer": "root",
            }
            async with websockets.connect(url, proxy=None, additional_headers=good) as socket:
                assert await socket.recv() == "web"
            for bad in ({}, {"Authorization": "Bearer a.b.c"}):
                with pytest.raises(websockets.InvalidStatus) as caught:
                    await websockets.connect(url, proxy=None, additional_headers=bad)
                assert caught.value.response.status_code == 401
