"""Client certificates: verdicts, and real handshakes."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway.certificate import ClientCertificate
from gateway.clock import ManualClock
from gateway.config.model import GatewayConfig
from gateway.config.model_key import MtlsIdentity
from gateway.config.model_server import ServerConfig
from gateway.errors import ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.certificates import _REMEMBERED, Certificates, build
from gateway.policies.auth.identity import Foreign
from gateway.policies.base import BuildContext
from tests.support.certificates import Authority, Pair
from tests.support.gateway import run_gateway
from tests.support.scripted import ScriptedUpstream, echo

Make = Callable[..., Exchange]
AUTHORITY = Authority()
SERVICE = AUTHORITY.issue("CN=whatever", uris=["spiffe://prod/ns/a/sa/b"])
STRANGER = AUTHORITY.issue("CN=stranger", uris=["spiffe://stage/ns/a/sa/b"])
TLS = {"cert": "/c", "key": "/k", "client_ca": "/ca", "client_cert": "optional"}


def shown(pair: Pair | bytes) -> ClientCertificate:
    der = pair if isinstance(pair, bytes) else pair.der
    return ClientCertificate(der, dict)


def identity(
    context: BuildContext, *subjects: str, tls: dict[str, str] | None = TLS, **more: Any
) -> Certificates:
    server = ServerConfig.model_validate({"tls": tls} if tls else {}, context={"base_dir": Path()})
    context = dataclasses.replace(context, server=server, **more)
    given = {"type": "mtls", "subjects": subjects or ["spiffe://prod/ns/*/sa/*"]}
    return build("mesh", MtlsIdentity.model_validate(given), context)


def test_a_certificate_that_is_meant(context: BuildContext, make_exchange: Make) -> None:
    """The consumer is the name that matched; the claims tell the rest."""
    consumers = {"consumers": {"spiffe://prod/ns/a/sa/b": {"tier": "gold"}}}
    mesh = identity(context, config=GatewayConfig.model_validate(consumers))
    exchange = make_exchange(certificate=shown(SERVICE))

    found = mesh.authenticate(exchange)

    assert isinstance(found, Principal)
    assert (found.consumer, found.tier) == ("spiffe://prod/ns/a/sa/b", "gold")
    assert found.claims["cn"] == "whatever"
    assert mesh.authenticate(exchange) is found  # read once


def test_no_certificate(context: BuildContext, make_exchange: Make) -> None:
    """Nothing was shown, and what a proxy says of certificates is not believed."""
    exchange = make_exchange("GET", ("x-forwarded-client-cert", "URI=spiffe://prod/ns/a/sa/b"))

    assert identity(context).authenticate(exchange) is None


def test_a_certificate_of_somebody_else(context: BuildContext, make_exchange: Make) -> None:
    """Proved, and not among those who may call: 403, unless other credentials help."""
    found = identity(context).authenticate(make_exchange(certificate=shown(STRANGER)))

    assert isinstance(found, Foreign)
    assert found.kind.status == 403


def test_a_certificate_that_ended_meanwhile(context: BuildContext, make_exchange: Make) -> None:
    """A connection may outlive its certificate; the caller does not."""
    end = SERVICE.certificate.not_valid_after_utc.timestamp()
    clock = ManualClock(end - 1.0)
    mesh = identity(context, clock=clock)
    exchange = make_exchange(certificate=shown(SERVICE))
    assert isinstance(mesh.authenticate(exchange), Principal)

    clock.advance(1.0)
    found = mesh.authenticate(exchange)

    assert isinstance(found, Rejection)
    assert (found.kind.status, found.detail) == (401, "the client certificate has expired")


def test_what_can_not_be_read(context: BuildContext, make_exchange: Make) -> None:
    """A refusal, and no error."""
    found = identity(context).authenticate(make_exchange(certificate=shown(b"\x30\x03abc")))

    assert isinstance(found, Rejection)
    assert found.kind.status == 401


def test_memory_is_bounded(context: BuildContext, make_exchange: Make) -> None:
    """However many certificates come."""
    mesh = identity(context)
    for number in range(_REMEMBERED + 5):
        mesh.authenticate(make_exchange(certificate=shown(b"%d" % number)))

    assert len(mesh._known) <= _REMEMBERED


@pytest.mark.parametrize("tls", [None, {"cert": "/c", "key": "/k"}])
def test_a_listener_that_asks_for_none(context: BuildContext, tls: dict[str, str] | None) -> None:
    """Nobody could ever get in: refused when it is read."""
    with pytest.raises(ConfigError, match="client_cert"):
        identity(context, tls=tls)


def test_a_pattern_that_is_none(context: BuildContext) -> None:
    """With its place."""
    with pytest.raises(ConfigError, match="whole label") as caught:
        identity(context, "spiffe://prod/*", "a*.internal")
    assert caught.value.path == "subjects[1]"


async def test_handshakes(tmp_path: Path) -> None:
    """Real certificates: one that is meant, one of the same authority, none."""
    front = trustme.CA()
    pair = front.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "front.pem").write_bytes(pair.private_key_and_cert_chain_pem.bytes())
    (tmp_path / "clients.pem").write_bytes(AUTHORITY.pem)
    named = AUTHORITY.issue("CN=billing,O=Acme")
    text = """\
server:
  listen: "127.0.0.1:0"
  admin: null
  tls: {cert: front.pem, key: front.pem, client_ca: clients.pem, client_cert: optional}
identities:
  mesh: {type: mtls, subjects: ["spiffe://prod/ns/*/sa/*", "CN=billing,O=Acme"]}
upstreams:
  api: {targets: ["%s"]}
routes:
  - name: any
    match: {path: "/{rest:path}"}
    upstream: api
    auth: {any: [mesh], forward_consumer: X-Consumer, forward_claims: {X-Print: fingerprint}}
"""

    async def ask(url: str, client: Pair | None, name: str) -> httpx.Response:
        context = ssl.create_default_context()
        front.configure_trust(context)
        if client is not None:
            client.load_into(context, tmp_path, name)
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            return await http.get(url + "/x", headers={"X-Consumer": "forged"})

    async with ScriptedUpstream(echo) as upstream:
        async with run_gateway(tmp_path, text % upstream.url) as gateway:
            url = gateway.url.replace("http:", "https:")
            good = await ask(url, SERVICE, "service")
            billing = await ask(url, named, "billing")
            stranger = await ask(url, STRANGER, "stranger")
            nobody = await ask(url, None, "")

    assert [got.status_code for got in (good, billing, stranger, nobody)] == [200, 200, 403, 401]
    assert [request.get("x-consumer") for request in upstream.requests] == [
        "spiffe://prod/ns/a/sa/b", "billing",
    ]  # fmt: skip
    assert len(upstream.requests[0].get("x-print") or "") == 64
    assert nobody.json()["code"] == "missing_credentials"
    assert stranger.json()["code"] == "not_permitted"
