"""TLS at the front door, with certificates that can be changed while connections are open.

`TlsFront.context` is given to the server once and stays. Each reload brings a new context, and a
handshake is switched to the newest one in the moment the client says hello.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config.model_server import ServerTls

_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class TlsFront:
    """One context for the server's whole life, and behind it the one that is replaced."""

    def __init__(self, current: ssl.SSLContext) -> None:
        # It takes the client's hello and holds no certificate of its own.
        self.context = _base_context()
        self.context.sni_callback = self._switch
        self.replace(current)

    def replace(self, current: ssl.SSLContext) -> None:
        """Use `current`, made by `server_context`, for each handshake that begins from now on."""
        # Whether a client certificate is asked for is settled before the switch, on this context.
        # All of it happens in the loop's thread, so no handshake sees one without the other.
        self.context.verify_mode = current.verify_mode
        self._current = current

    def _switch(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # Also called for a client that names no server.
        connection.context = self._current


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """A context made of the files that `tls` names. It blocks for reading them.

    Raises ConfigError naming the file that can't be used, never what it holds.
    """
    context = _base_context()
    _load_pair(context, str(tls.cert), str(tls.key))
    if tls.client_cert != "none":
        _load_client_ca(context, str(tls.client_ca))
        context.verify_mode = _VERIFY[tls.client_cert]
    return context


def _base_context() -> ssl.SSLContext:
    """TLS 1.2 and later with forward secrecy, and HTTP/1.1 alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A resumed session would bring back a client that an earlier authority had vouched for.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    _check_readable(cert, "cert")
    _check_readable(key, "key")
    try:
        # Without a password OpenSSL asks the terminal for one; an empty one makes that an error.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{cert} and {key} are not a PEM certificate and its key without a passphrase"
            f" ({_reason(error)})",
            "server.tls",
        ) from error


def _load_client_ca(context: ssl.SSLContext, path: str) -> None:
    _check_readable(path, "client_ca")
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigError(
            f"{path} holds no PEM certificate ({_reason(error)})", "server.tls.client_ca"
        ) from error


def _check_readable(path: str, key: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"can't read {path}: {reason}", f"server.tls.{key}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
