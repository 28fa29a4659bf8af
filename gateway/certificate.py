"""The certificate that a client proved to hold in its TLS handshake."""

from __future__ import annotations

import ssl
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

_ATTRIBUTES: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "userId": "UID",
}
Decoded = Mapping[str, Any]


class ClientCertificate:
    """A verified leaf certificate. `der` is what was sent; all else is worked out when asked for.

    `decode` gives the certificate as `ssl.SSLObject.getpeercert` does. One object serves all
    requests of a connection.
    """

    def __init__(self, der: bytes, decode: Callable[[], Decoded]) -> None:
        self.der = der
        self._decode = decode

    @cached_property
    def decoded(self) -> Decoded:
        """Subject, issuer, serial number and names, as `ssl` tells them."""
        return self._decode()

    @cached_property
    def thumbprint(self) -> str:
        """`x5t#S256`: SHA-256 over the DER form, base64url without padding (RFC 8705 3.1)."""
        return urlsafe_b64encode(sha256(self.der).digest()).rstrip(b"=").decode("ascii")

    @cached_property
    def subject(self) -> str:
        """The subject as an RFC 4514 string, last part first; empty if it has none."""
        return distinguished_name(self.decoded.get("subject", ()))

    @cached_property
    def names(self) -> frozenset[tuple[str, str]]:
        """The alternative names, as pairs such as `("URI", "spiffe://prod/ns/a")`."""
        return frozenset(self.decoded.get("subjectAltName", ()))

    @property
    def not_after(self) -> float:
        """When it ends, in seconds of the Unix epoch."""
        return float(ssl.cert_time_to_seconds(self.decoded["notAfter"]))


def distinguished_name(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A subject as `ssl` decodes it, as an RFC 4514 string: last part first."""
    parts = [
        "+".join(f"{_ATTRIBUTES.get(key, key)}={_escape(value)}" for key, value in names)
        for names in subject
    ]
    return ",".join(reversed(parts))


def _escape(value: str) -> str:
    # RFC 4514 section 2.4.
    text = "".join("\\" + char if char in '"+,;<>\\' else char for char in value)
    text = text.replace("\0", "\\00")
    if text[:1] in {"#", " "}:
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text
