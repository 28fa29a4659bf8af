"""TLS at the front door: certificates, their rotation, and certificates of clients."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.config.model_server import ServerTls
from gateway.errors import ConfigError
from gateway.server.settings import ServerSettings
from gateway.server.tls import TlsFront, server_context
from tests.conformance.case import get, request
from tests.conformance.target import Serving, recording_app, running
from tests.conformance.wire import Answer, Ended, Wire
from tests.server.app import cycle_of

# With TLS 1.3 the client learns of it with its first read, which may also find a bare end.
TURNED_AWAY = (ssl.SSLError, ConnectionError, Ended)
CLIENT_NAME = "orders@example.org"


class Files:
    """A CA, a server certificate and a client CA, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.client_ca = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.authority = folder / "clients.pem"
        self.client_ca.cert_pem.write_to_path(str(self.authority))
        self.issue(self.ca)

    def issue(self, authority: trustme.CA) -> None:
        """Write a new server certificate in place of the old."""
        made = authority.issue_cert("localhost", "127.0.0.1")
        self.key.write_bytes(made.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    def tls(self, client_cert: Any = "none") -> ServerTls:
        """The configuration that names these files."""
        ca = None if client_cert == "none" else self.authority
        return ServerTls(cert=self.cert, key=self.key, client_ca=ca, client_cert=client_cert)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Fresh certificates."""
    return Files(tmp_path)


def client_context(
    trusted: trustme.CA, certificate: trustme.LeafCert | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def ask(served: Serving, context: ssl.SSLContext, name: str | None = "localhost") -> Answer:
    """One GET over a new TLS connection."""
    if name is None:
        context.check_hostname = False
    with (
        socket.create_connection(served.address, 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
        Wire(secure) as wire,
    ):
        wire.send(get())
        return wire.read()


def describe(scopes: list[Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        cycle_of(scope).respond(200, [], b"ok")

    return app


@pytest.fixture
def front(files: Files) -> TlsFront:
    """The TLS side of a listener."""
    return TlsFront(server_context(files.tls()))


@pytest.fixture
def served(front: TlsFront) -> Iterator[Serving]:
    """A server behind it."""
    with running(recording_app([]), tls=front.context) as served:
        yield served


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_request_over_tls(files: Files, served: Serving, name: str | None) -> None:
    """RFC 9110 4.2.2: https is served, to clients that name a server and to those that don't."""
    assert ask(served, client_context(files.ca), name).status == 200


def test_old_versions_are_refused(files: Files, served: Serving) -> None:
    """RFC 8996: TLS 1.1 is not spoken."""
    context = client_context(files.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ask(served, context)


def test_tls_1_2_is_spoken(files: Files, served: Serving) -> None:
    """A client without TLS 1.3 is served."""
    context = client_context(files.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(served, context).status == 200


def test_http_1_1_is_what_alpn_offers(files: Files, served: Serving) -> None:
    """RFC 7301: a client that would rather speak h2 is told http/1.1."""
    context = client_context(files.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(served.address, 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "http/1.1"


def test_a_new_certificate_serves_new_handshakes(
    files: Files, front: TlsFront, served: Serving
) -> None:
    """A rotation needs no restart, and connections that are open stay open."""
    context = client_context(files.ca)
    with (
        socket.create_connection(served.address, 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
        Wire(secure) as wire,
    ):
        wire.send(get())
        assert wire.read().status == 200
        other = trustme.CA()
        files.issue(other)
        served.call(lambda: front.replace(server_context(files.tls())))
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(served, client_context(files.ca))
        assert ask(served, client_context(other)).status == 200
        wire.send(get())
        assert wire.read().status == 200


def test_broken_new_files_leave_the_old_certificate(files: Files, served: Serving) -> None:
    """A certificate and a key that don't belong together are found before anything changes."""
    files.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    with pytest.raises(ConfigError, match=r"(?i)mismatch"):
        server_context(files.tls())
    assert ask(served, client_context(files.ca)).status == 200


def test_unusable_files_are_named(files: Files) -> None:
    """Each mistake is one line with the file's name, and without what is in the file."""
    missing = files.tls().model_copy(update={"cert": files.folder / "gone.pem"})
    with pytest.raises(ConfigError, match=r"gone\.pem: no such file"):
        server_context(missing)
    files.authority.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"clients\.pem holds no PEM"):
        server_context(files.tls("required"))
    files.cert.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"cert\.pem") as caught:
        server_context(files.tls())
    assert "nonsense" not in str(caught.value)


def test_required_client_certificates(files: Files) -> None:
    """RFC 8446 4.3.2: none and one of another CA end the handshake; the right one is described."""
    scopes: list[Any] = []
    good = files.client_ca.issue_cert(CLIENT_NAME, common_name="orders", organization_name="A, Inc")
    bad = trustme.CA().issue_cert(CLIENT_NAME)
    tls = TlsFront(server_context(files.tls("required"))).context
    with running(describe(scopes), tls=tls) as served:
        assert ask(served, client_context(files.ca, good)).status == 200
        for certificate in (None, bad):
            with pytest.raises(TURNED_AWAY):
                ask(served, client_context(files.ca, certificate))
    assert len(scopes) == 1
    (scope,) = scopes
    details = scope["extensions"]["tls"]
    assert scope["scheme"] == "https"
    assert details["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert details["client_cert_name"].startswith("CN=orders,")
    assert "A\\, Inc" in details["client_cert_name"]
    assert ("email", CLIENT_NAME) in details["client_cert"]["subjectAltName"]
    assert details["tls_version"] == 0x0304


def test_optional_client_certificates(files: Files) -> None:
    """Without one the request is served and says so; a wrong one still ends the handshake."""
    scopes: list[Any] = []
    good = files.client_ca.issue_cert(CLIENT_NAME)
    bad = trustme.CA().issue_cert(CLIENT_NAME)
    tls = TlsFront(server_context(files.tls("optional"))).context
    with running(describe(scopes), tls=tls) as served:
        assert ask(served, client_context(files.ca)).status == 200
        assert ask(served, client_context(files.ca, good)).status == 200
        with pytest.raises(TURNED_AWAY):
            ask(served, client_context(files.ca, bad))
    names = [bool(each["extensions"]["tls"]["client_cert"]) for each in scopes]
    assert names == [False, True]


def test_a_reload_changes_who_may_connect(files: Files, front: TlsFront, served: Serving) -> None:
    """From none to required, and from one client CA to another, without a restart."""
    old = files.client_ca.issue_cert(CLIENT_NAME)
    assert ask(served, client_context(files.ca)).status == 200
    served.call(lambda: front.replace(server_context(files.tls("required"))))
    with pytest.raises(TURNED_AWAY):
        ask(served, client_context(files.ca))
    assert ask(served, client_context(files.ca, old)).status == 200
    newer = trustme.CA()
    newer.cert_pem.write_to_path(str(files.authority))
    served.call(lambda: front.replace(server_context(files.tls("required"))))
    with pytest.raises(TURNED_AWAY):
        ask(served, client_context(files.ca, old))
    assert ask(served, client_context(files.ca, newer.issue_cert(CLIENT_NAME))).status == 200


def test_a_refusal_over_tls_can_be_read(files: Files, front: TlsFront) -> None:
    """An error answer arrives whole, though TLS can't be half closed."""
    with (
        running(recording_app([]), ServerSettings(), front.context) as served,
        socket.create_connection(served.address, 10) as plain,
        client_context(files.ca).wrap_socket(plain, server_hostname="localhost") as secure,
        Wire(secure) as wire,
    ):
        wire.send(request(b"POST", b"/", b"Content-Length: x", body=b"y" * 100_000))
        assert wire.read().status == 400


def test_plain_http_on_the_tls_port_is_not_served(served: Serving) -> None:
    """A request that is not encrypted never reaches the application."""
    with socket.create_connection(served.address, 10) as plain, Wire(plain) as wire:
        wire.send(get())
        assert b"200" not in wire.rest()


def test_https_in_absolute_form_over_tls(files: Files, served: Serving) -> None:
    """RFC 9110 7.4: an https target is right here."""
    with (
        socket.create_connection(served.address, 10) as plain,
        client_context(files.ca).wrap_socket(plain, server_hostname="localhost") as secure,
        Wire(secure) as wire,
    ):
        wire.send(get(b"https://a:443/x"))
        assert wire.read().status == 200
