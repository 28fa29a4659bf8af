"""Who is at the other end of a connection, as the ASGI scope tells it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from gateway.certificate import ClientCertificate, distinguished_name

_TLS_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

Client = tuple[str, int] | None
Server = tuple[str, int | None] | None


def addresses(transport: asyncio.Transport) -> tuple[Client, Server]:
    """The scope's `client` and `server`; a client on a unix socket has no address."""
    far = transport.get_extra_info("peername")
    near = transport.get_extra_info("sockname")
    client = (far[0], far[1]) if isinstance(far, tuple) else None
    if isinstance(near, tuple):
        return client, (near[0], near[1])
    return client, (str(near), None) if near else None


def client_certificate(transport: asyncio.Transport) -> ClientCertificate | None:
    """The certificate that the client showed and that was verified, if it showed one."""
    connection = transport.get_extra_info("ssl_object")
    # Only what was verified is decoded: of any other, `ssl` tells the bytes alone.
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    if not der or not connection.getpeercert():
        return None
    return ClientCertificate(der, connection.getpeercert)


def tls_details(transport: asyncio.Transport) -> dict[str, Any]:
    """The scope's `tls` extension (ASGI TLS extension 0.2), for the leaf certificate alone.

    Beside the standard keys, `client_cert` is the verified certificate as `ssl` decodes it, with
    its subjectAltName, or None.
    """
    connection = transport.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True)
    decoded: dict[str, Any] | None = connection.getpeercert() if der else None
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else [],
        "client_cert_name": distinguished_name(decoded["subject"]) if decoded else None,
        "client_cert_error": None,
        "client_cert": decoded or None,
        "tls_version": _TLS_VERSIONS.get(connection.version()),
        "cipher_suite": None,
    }
