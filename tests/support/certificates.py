"""Client certificates with the names that a test asks for, of an authority of its own.

authority = Authority()
pair = authority.issue("CN=billing,O=Acme", uris=["spiffe://prod/ns/a/sa/b"])
pair.der, pair.write(folder)          # files for a client's SSLContext
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write(self, folder: Path, name: str = "client") -> Path:
        """One PEM file with both."""
        file = folder / f"{name}.pem"
        private = self.key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + self.certificate.public_bytes(PEM))
        return file

    def load_into(self, context: ssl.SSLContext, folder: Path, name: str = "client") -> None:
        """Have this context present the certificate."""
        context.load_cert_chain(self.write(folder, name))


class Authority:
    """A certificate authority that signs whatever it is asked for."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string("CN=Test Authority")
        self.certificate = self._sign(
            self._name, self._key, [(x509.BasicConstraints(ca=True, path_length=0), True)]
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def issue(
        self,
        subject: str = "",
        *,
        dns: list[str] | None = None,
        uris: list[str] | None = None,
        emails: list[str] | None = None,
        addresses: list[str] | None = None,
        lives: float = 3600.0,
    ) -> Pair:
        """A certificate with this subject, as RFC 4514 writes it, and these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            *map(x509.DNSName, dns or ()),
            *map(x509.UniformResourceIdentifier, uris or ()),
            *map(x509.RFC822Name, emails or ()),
            *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses or ()),
        ]
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True)
        ]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), not subject))
        name = x509.Name.from_rfc4514_string(subject)
        return Pair(self._sign(name, key, extensions, lives), key)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: list[tuple[x509.ExtensionType, bool]],
        lives: float = 3600.0,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(seconds=lives))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())
